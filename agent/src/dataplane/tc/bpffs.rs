//! The bpffs that the pins live in.
//!
//! Pins must outlive this process *and its mount namespace*: `ip netns exec` gives every command a private one, in which a fresh
//! `/sys` hides the `/sys/fs/bpf` of the machine. So besides ours the *outer* mount namespace is looked at: that of PID 1, or
//! where that is out of reach, of our outermost ancestor within reach. In order:
//!
//! 1. a mount that bondd made at `<run dir>/bpf` before, in either: whatever is mounted elsewhere since, the pins are there;
//! 2. `/sys/fs/bpf`, here or in the outer namespace;
//! 3. a new mount at `<run dir>/bpf`, in the outer namespace if we may, else here with a warning.
//!
//! An open directory reaches into either namespace, so a bpffs is held as one.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{BPF_FS_MAGIC, fstatfs};

/// A bpffs and how to get rid of it.
#[derive(Debug)]
pub struct Bpffs {
    dir: File,
    /// Set if bondd mounted it, now or in an earlier life.
    own: Option<OwnMount>,
}

#[derive(Debug)]
struct OwnMount {
    point: PathBuf,
    namespace: Namespace,
}

/// A mount namespace: ours, or the outer one.
type Namespace = Option<File>;

impl Bpffs {
    /// The one in use already or one of the machine; mounts one if there is none.
    pub fn open(run_dir: &Path) -> io::Result<Bpffs> {
        if let Some(found) = Self::find(run_dir) {
            return Ok(found);
        }
        let point = own_mount_point(run_dir)?;
        let outer = outer_namespace();
        if outer.is_some() {
            match within(&outer, || mount_at(&point)) {
                Ok(dir) => return Ok(Self::of_ours(dir, point, outer)),
                Err(error) => log::warn!(
                    "cannot mount a bpffs outside this private mount namespace ({error}): \
                     bonds stop forwarding when its last process ends"
                ),
            }
        }
        let dir = mount_at(&point)?;
        Ok(Self::of_ours(dir, point, None))
    }

    /// The one in use already or one of the machine; mounts nothing.
    pub fn find(run_dir: &Path) -> Option<Bpffs> {
        let point = own_mount_point(run_dir).ok()?;
        let outer = outer_namespace();
        if let Ok(dir) = open_bpffs(&point) {
            return Some(Self::of_ours(dir, point, None));
        }
        if outer.is_some()
            && let Ok(dir) = within(&outer, || open_bpffs(&point))
        {
            return Some(Self::of_ours(dir, point, outer));
        }
        let system = Path::new(SYSTEM);
        let dir = open_bpffs(system)
            .or_else(|_| within(&outer, || open_bpffs(system)))
            .ok()?;
        Some(Bpffs { dir, own: None })
    }

    /// A path to its root directory for this process.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.dir.as_raw_fd()))
    }

    /// Unmounts it if bondd mounted it and nothing is pinned in it. One of the machine stays.
    pub fn unmount_if_empty(self) -> io::Result<()> {
        for entry in fs::read_dir(self.root())? {
            // The kernel itself puts maps.debug and progs.debug into every bpffs.
            if entry?.path().extension() != Some(OsStr::new("debug")) {
                return Ok(());
            }
        }
        // An open directory would keep it busy.
        drop(self.dir);
        match self.own {
            Some(own) => within(&own.namespace, || {
                umount2(&own.point, MntFlags::UMOUNT_NOFOLLOW)?;
                fs::remove_dir(&own.point)
            }),
            None => Ok(()),
        }
    }

    fn of_ours(dir: File, point: PathBuf, namespace: Namespace) -> Bpffs {
        let own = Some(OwnMount { point, namespace });
        Bpffs { dir, own }
    }
}

fn own_mount_point(run_dir: &Path) -> io::Result<PathBuf> {
    Ok(std::path::absolute(run_dir)?.join("bpf"))
}

/// The directory, if a bpffs is mounted there.
fn open_bpffs(path: &Path) -> io::Result<File> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let dir = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if fstatfs(&dir)?.filesystem_type() == BPF_FS_MAGIC {
        Ok(dir)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn mount_at(point: &Path) -> io::Result<File> {
    fs::create_dir_all(point)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), point, Some("bpf"), flags, Some("mode=0700"))?;
    open_bpffs(point)
}

/// The mount namespace that outlives ours; `None` if that is ours, or none is within reach.
fn outer_namespace() -> Namespace {
    let ours = fs::metadata("/proc/thread-self/ns/mnt").ok()?;
    let outermost_first = ancestors().into_iter().rev();
    let reachable = |pid| File::open(format!("/proc/{pid}/ns/mnt")).ok();
    let outer = std::iter::once(1).chain(outermost_first).find_map(reachable)?;
    let theirs = outer.metadata().ok()?;
    ((theirs.dev(), theirs.ino()) != (ours.dev(), ours.ino())).then_some(outer)
}

/// Process ids of parent, grandparent and so on.
fn ancestors() -> Vec<u32> {
    let mut line = Vec::new();
    let mut next = std::os::unix::process::parent_id();
    // A parent may end and its id be reused while we look: never walk in circles.
    while next > 0 && !line.contains(&next) {
        line.push(next);
        let status = fs::read_to_string(format!("/proc/{next}/status")).unwrap_or_default();
        next = parent(&status).unwrap_or(0);
    }
    line
}

fn parent(status: &str) -> Option<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()
}

/// Runs `work` in a mount namespace. For that of somebody else on a thread of its own: a thread may change its mount namespace
/// only if it shares its root and working directory with no other, and it never comes back.
fn within<T: Send>(namespace: &Namespace, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let Some(namespace) = namespace else { return work() };
    let entered = move || {
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        work()
    };
    thread::scope(|scope| scope.spawn(entered).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread in another mount namespace panicked")))
}

const SYSTEM: &str = "/sys/fs/bpf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_made_in_a_private_mount_namespace_is_found_outside() {
        let run_dir = std::env::temp_dir().join(format!("bondd-bpffs-{}", std::process::id()));
        let inner_run_dir = run_dir.clone();
        // As `ip netns exec` does it.
        let inner = thread::spawn(move || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("this test needs root");
            let private = MsFlags::MS_SLAVE | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            umount2("/sys", MntFlags::MNT_DETACH).unwrap();
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
            let made = Bpffs::open(&inner_run_dir).unwrap();
            fs::create_dir(made.root().join("kept")).unwrap();
        });
        inner.join().unwrap();
        let found = Bpffs::find(&run_dir).expect("the mount is visible here");
        fs::remove_dir(found.root().join("kept")).unwrap();
        let ours = found.own.is_some();
        found.unmount_if_empty().unwrap();
        assert!(!run_dir.join("bpf").exists());
        if ours {
            fs::remove_dir(&run_dir).unwrap();
        }
    }

    #[test]
    fn an_ordinary_folder_is_no_bpffs() {
        assert!(open_bpffs(Path::new("/")).is_err());
        assert!(open_bpffs(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn the_parent_is_read_from_a_process_status() {
        assert_eq!(parent("Name:\tsh\nPid:\t7\nPPid:\t42\n"), Some(42));
        assert_eq!(parent(""), None);
    }
}

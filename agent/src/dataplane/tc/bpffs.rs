//! The bpffs that the pins live in.
//!
//! Pins must outlive this process *and its mount namespace*: `ip netns exec` gives every command a private one, in which a fresh
//! `/sys` hides the `/sys/fs/bpf` of the machine. So a file system that PID 1 sees is preferred over one of our own. In order:
//!
//! 1. a mount that bondd made under its run directory before: whatever is mounted elsewhere since, the pins are there;
//! 2. `/sys/fs/bpf`;
//! 3. `/sys/fs/bpf` as PID 1 sees it;
//! 4. a new mount at `<run dir>/bpf`, in PID 1's mount namespace if we may enter it, else in ours, with a warning.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// A bpffs and how to get rid of it.
#[derive(Debug)]
pub struct Bpffs {
    /// How this process reaches it.
    root: PathBuf,
    /// Set if bondd mounted it, now or in an earlier life.
    own: Option<OwnMount>,
}

#[derive(Debug)]
struct OwnMount {
    /// Absolute path in the namespace that holds the mount.
    point: PathBuf,
    /// Whether that namespace is PID 1's and not ours.
    in_init: bool,
}

impl Bpffs {
    /// The one in use already or one of the machine; mounts one if there is none.
    pub fn open(run_dir: &Path) -> io::Result<Bpffs> {
        if let Some(found) = Self::find(run_dir) {
            return Ok(found);
        }
        let point = own_mount_point(run_dir)?;
        if !same_namespace_as_init() {
            match in_init_namespace(|| mount_at(&point)) {
                Ok(()) => {
                    let root = through_init(&point);
                    return Ok(Bpffs {
                        root,
                        own: Some(OwnMount { point, in_init: true }),
                    });
                }
                Err(error) => log::warn!(
                    "cannot mount a bpffs in the mount namespace of PID 1 ({error}): \
                     bonds stop forwarding when the last process of this mount namespace ends"
                ),
            }
        }
        mount_at(&point)?;
        Ok(Bpffs {
            root: point.clone(),
            own: Some(OwnMount { point, in_init: false }),
        })
    }

    /// How this process reaches its root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Unmounts it if bondd mounted it and nothing is pinned in it. One of the machine stays.
    pub fn unmount_if_empty(&self) -> io::Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        for entry in fs::read_dir(&self.root)? {
            // The kernel itself puts maps.debug and progs.debug into every bpffs.
            if entry?.path().extension() != Some(OsStr::new("debug")) {
                return Ok(());
            }
        }
        if own.in_init {
            in_init_namespace(|| unmount_at(&own.point))
        } else {
            unmount_at(&own.point)
        }
    }

    /// The one in use already or one of the machine; mounts nothing.
    pub fn find(run_dir: &Path) -> Option<Bpffs> {
        let point = &own_mount_point(run_dir).ok()?;
        let own = |root: PathBuf, in_init| {
            let point = point.clone();
            is_bpffs(&root).then(|| Bpffs {
                root,
                own: Some(OwnMount { point, in_init }),
            })
        };
        let machine = |root: PathBuf| is_bpffs(&root).then(|| Bpffs { root, own: None });
        own(point.clone(), false)
            .or_else(|| own(through_init(point), true))
            .or_else(|| machine(PathBuf::from(SYSTEM)))
            .or_else(|| machine(through_init(Path::new(SYSTEM))))
    }
}

fn own_mount_point(run_dir: &Path) -> io::Result<PathBuf> {
    Ok(std::path::absolute(run_dir)?.join("bpf"))
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// The path of a file in PID 1's mount namespace for a process outside of it.
fn through_init(path: &Path) -> PathBuf {
    Path::new("/proc/1/root").join(path.strip_prefix("/").unwrap_or(path))
}

fn same_namespace_as_init() -> bool {
    let (ours, init) = (
        fs::read_link("/proc/thread-self/ns/mnt"),
        fs::read_link("/proc/1/ns/mnt"),
    );
    // Where PID 1 cannot be looked at, it cannot be entered either.
    init.is_err() || ours.is_ok_and(|ours| init.is_ok_and(|init| ours == init))
}

/// Runs `work` on a thread of its own inside PID 1's mount namespace. A thread may change its mount namespace only if it shares
/// its root and working directory with no other, hence the first step; it never comes back, hence the thread.
fn in_init_namespace(work: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    let entered = move || {
        let namespace = File::open("/proc/1/ns/mnt")?;
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        work()
    };
    thread::scope(|scope| scope.spawn(entered).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread in PID 1's mount namespace panicked")))
}

fn mount_at(point: &Path) -> io::Result<()> {
    fs::create_dir_all(point)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), point, Some("bpf"), flags, Some("mode=0700"))?;
    Ok(())
}

fn unmount_at(point: &Path) -> io::Result<()> {
    umount2(point, MntFlags::UMOUNT_NOFOLLOW)?;
    fs::remove_dir(point)
}

const SYSTEM: &str = "/sys/fs/bpf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_pid_1_go_through_its_root() {
        assert_eq!(
            through_init(Path::new("/run/bondd/bpf")),
            Path::new("/proc/1/root/run/bondd/bpf")
        );
    }

    #[test]
    fn an_ordinary_folder_is_no_bpffs() {
        assert!(!is_bpffs(Path::new("/")));
        assert!(!is_bpffs(Path::new("/nonexistent")));
    }
}

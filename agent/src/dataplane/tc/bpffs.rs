//! The bpffs that the pins live in.
//!
//! Pins must outlive this process *and its mount namespace*: `ip netns exec` gives every command a private one, in which a fresh
//! `/sys` hides the `/sys/fs/bpf` of the machine. So besides ours the *outer* mount namespace is looked at: that of PID 1, or
//! where that is out of reach, of our outermost ancestor within reach. In order:
//!
//! 1. `<run dir>/bpf`, in either, mounted by an earlier bondd or by an operator: whatever is mounted elsewhere since, the pins are
//!    there;
//! 2. `/sys/fs/bpf`, here or in the outer namespace;
//! 3. a new mount at `<run dir>/bpf`, in the outer namespace if we may, else here.
//!
//! A mount that only our namespace has ends with it, and so does forwarding. Only PID 1 proves that ours is the outer one: an
//! ancestor may be in the same private one. So where PID 1 is out of reach, a mount made here counts as short-lived.
//!
//! An open directory reaches into either namespace, so a bpffs is held as one.
//!
//! Only a mount that bondd made is unmounted. Its source in `mountinfo` tells, to a later agent as well.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{BPF_FS_MAGIC, fstatfs};

use crate::apart::apart;

/// Unmounts a bpffs. A process that has just been forked, or looks into the folder, may have it open for a moment.
fn unmount(point: &Path) -> nix::Result<()> {
    let end = Instant::now() + BUSY_LIMIT;
    loop {
        match umount2(point, MntFlags::UMOUNT_NOFOLLOW) {
            Err(Errno::EBUSY) if Instant::now() < end => thread::sleep(BUSY_PAUSE),
            done => return done,
        }
    }
}

/// How long a stop waits for others to close a folder.
const BUSY_LIMIT: Duration = Duration::from_millis(200);

/// Between two attempts.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// A bpffs and how to get rid of it.
#[derive(Debug)]
pub struct Bpffs {
    dir: File,
    /// Set if bondd mounted it, now or in an earlier life.
    own: Option<OwnMount>,
    /// No namespace that outlives ours is known to have this mount.
    short_lived: bool,
}

#[derive(Debug)]
struct OwnMount {
    point: PathBuf,
    /// The mount namespace that it is in; `None` for ours.
    namespace: Option<File>,
}

/// The mount namespace that outlives ours.
enum Outer {
    /// It is ours.
    Ours,
    /// Another one.
    Other(File),
    /// Unknown.
    OutOfReach,
}

impl Outer {
    fn other(&self) -> Option<&File> {
        match self {
            Outer::Other(namespace) => Some(namespace),
            Outer::Ours | Outer::OutOfReach => None,
        }
    }

    /// The bpffs at this place of it, if it is another one.
    ///
    /// # Errors
    /// It cannot be looked at for want of a thread: another place would be taken for the one that has the pins.
    fn bpffs(&self, path: &Path) -> io::Result<Option<File>> {
        let Some(namespace) = self.other() else { return Ok(None) };
        Ok(apart(|| enter(namespace).and_then(|()| open_bpffs(path)))?.ok())
    }
}

impl Bpffs {
    /// The one in use already or one of the machine; mounts one if there is none.
    pub fn open(run_dir: &Path) -> io::Result<Bpffs> {
        if let Some(found) = Self::find(run_dir)? {
            return Ok(found);
        }
        let point = own_mount_point(run_dir)?;
        let outer = outer_namespace();
        if let Outer::Other(namespace) = &outer {
            match apart(|| enter(namespace).and_then(|()| mount_at(&point)))? {
                Ok(dir) => return Ok(Self::at_point(dir, point, outer, false)),
                Err(error) => log::warn!(
                    "cannot mount a bpffs outside this private mount namespace ({error}): \
                     bonds stop forwarding when its last process ends"
                ),
            }
        }
        let dir = mount_at(&point)?;
        let short_lived = !matches!(outer, Outer::Ours);
        Ok(Self::at_point(dir, point, Outer::Ours, short_lived))
    }

    /// The one in use already or one of the machine; mounts nothing.
    ///
    /// # Errors
    /// It is unknown which one that is.
    pub fn find(run_dir: &Path) -> io::Result<Option<Bpffs>> {
        let point = own_mount_point(run_dir)?;
        let outer = outer_namespace();
        if let Ok(dir) = open_bpffs(&point) {
            let lasts = matches!(outer, Outer::Ours) || !is_only_here(&dir) || outer.bpffs(&point)?.is_some();
            return Ok(Some(Self::at_point(dir, point, Outer::Ours, !lasts)));
        }
        if let Some(dir) = outer.bpffs(&point)? {
            return Ok(Some(Self::at_point(dir, point, outer, false)));
        }
        let system = Path::new(SYSTEM);
        let found = match open_bpffs(system) {
            Ok(dir) => Some(dir),
            Err(_) => outer.bpffs(system)?,
        };
        Ok(found.map(|dir| Bpffs {
            dir,
            own: None,
            short_lived: false,
        }))
    }

    /// Whether it ends with this process's mount namespace, and the forwarding of its bonds with it.
    pub fn is_short_lived(&self) -> bool {
        self.short_lived
    }

    /// As [`Bpffs::is_short_lived`] of the one that [`Bpffs::open`] would return, as far as that is known without a mount.
    pub fn would_be_short_lived(run_dir: &Path) -> bool {
        match Self::find(run_dir) {
            Ok(Some(found)) => found.short_lived,
            Ok(None) | Err(_) => matches!(outer_namespace(), Outer::OutOfReach),
        }
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
            Some(own) => within(own.namespace.as_ref(), || {
                let point = own.point.display();
                unmount(&own.point).map_err(|error| failed(error.into(), &format!("unmount {point}")))?;
                fs::remove_dir(&own.point).map_err(|error| match error.kind() {
                    io::ErrorKind::ResourceBusy => {
                        let what = format!("remove {point}, another mount is there (`umount {point}` ends it)");
                        failed(error, &what)
                    }
                    _ => failed(error, &format!("remove {point}")),
                })
            }),
            None => Ok(()),
        }
    }

    /// One that is mounted in the run directory.
    fn at_point(dir: File, point: PathBuf, mounted_in: Outer, short_lived: bool) -> Bpffs {
        let namespace = match mounted_in {
            Outer::Other(namespace) => Some(namespace),
            Outer::Ours | Outer::OutOfReach => None,
        };
        let mount = within(namespace.as_ref(), || mount_of(&dir));
        let is_own = mount.is_ok_and(|line| source(&line) == Some(SOURCE));
        let own = is_own.then_some(OwnMount { point, namespace });
        Bpffs { dir, own, short_lived }
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
    mount(Some(SOURCE), point, Some("bpf"), flags, Some("mode=0700"))?;
    open_bpffs(point)
}

/// Whether bondd mounted it in our namespace, and none that ours was copied from has it. One that an operator mounted is taken
/// for lasting: that is the way to make it so.
fn is_only_here(dir: &File) -> bool {
    mount_of(dir).is_ok_and(|line| is_unshared_mount_of_ours(&line))
}

/// The line of `mountinfo` of the mount that this directory is in, which must be one of the calling thread's namespace.
fn mount_of(dir: &File) -> io::Result<String> {
    let described = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", dir.as_raw_fd()))?;
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
    let id = described.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let mount = id.and_then(|id| mounts.lines().find(|line| line.split(' ').next() == Some(id.trim())));
    mount.map(str::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The source of a mount by its line of `mountinfo`.
fn source(line: &str) -> Option<&str> {
    line.split_once(" - ")?.1.split(' ').nth(1)
}

/// Whether this line of `mountinfo` is of a mount that bondd made and that was not received from another namespace.
fn is_unshared_mount_of_ours(line: &str) -> bool {
    let tags = line.split_once(" - ").map_or("", |(left, _)| left);
    let received = tags.split(' ').skip(6).any(|tag| tag.starts_with("master:"));
    source(line) == Some(SOURCE) && !received
}

/// What could not be done, with the kernel's reason.
fn failed(error: io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

fn outer_namespace() -> Outer {
    let open = |pid: u32| File::open(format!("/proc/{pid}/ns/mnt")).ok();
    let of_init = open(1);
    let sees_init = of_init.is_some();
    let reachable = of_init.or_else(|| ancestors().into_iter().rev().find_map(open));
    let Some(outer) = reachable else {
        return Outer::OutOfReach;
    };
    let (Ok(ours), Ok(theirs)) = (fs::metadata("/proc/thread-self/ns/mnt"), outer.metadata()) else {
        return Outer::OutOfReach;
    };
    match (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
        false => Outer::Other(outer),
        true if sees_init => Outer::Ours,
        true => Outer::OutOfReach,
    }
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

/// Runs `work` in a mount namespace; in one that is not ours, on a thread of its own: a thread may change its mount namespace
/// only if it shares its root and working directory with no other, and it never comes back.
fn within<T: Send>(namespace: Option<&File>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let Some(namespace) = namespace else { return work() };
    apart(|| enter(namespace).and_then(|()| work()))?
}

/// Moves the calling thread to another mount namespace for good.
fn enter(namespace: &File) -> io::Result<()> {
    unshare(CloneFlags::CLONE_FS)?;
    Ok(setns(namespace, CloneFlags::CLONE_NEWNS)?)
}

const SYSTEM: &str = "/sys/fs/bpf";

/// The source of mounts that bondd makes, as `mountinfo` shows it.
const SOURCE: &str = "bondd";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apart::tests::refused;

    #[test]
    fn without_a_thread_it_is_unknown_which_bpffs_has_the_pins() {
        let dir = std::env::temp_dir().join(format!("bondd-no-thread-{}", std::process::id()));
        let inner = thread::spawn(move || {
            enter_private_namespace();
            let looked_for = refused(|| Bpffs::find(&dir).map(drop));
            let opened = refused(|| Bpffs::open(&dir).map(drop));
            [looked_for, opened].map(|done| done.unwrap_err().to_string())
        });
        for said in inner.join().unwrap() {
            assert!(said.starts_with("no thread can be made ("), "{said}");
        }
    }

    #[test]
    fn a_mount_made_in_a_private_mount_namespace_is_found_outside() {
        let run_dir = std::env::temp_dir().join(format!("bondd-bpffs-{}", std::process::id()));
        let inner_run_dir = run_dir.clone();
        let inner = thread::spawn(move || {
            enter_private_namespace();
            let made = Bpffs::open(&inner_run_dir).unwrap();
            fs::create_dir(made.root().join("kept")).unwrap();
        });
        inner.join().unwrap();
        let found = Bpffs::find(&run_dir).unwrap().expect("the mount is visible here");
        fs::remove_dir(found.root().join("kept")).unwrap();
        assert_eq!(found.own.is_some(), open_bpffs(Path::new(SYSTEM)).is_err());
        let ours = found.own.is_some();
        let looks = File::open(found.root()).unwrap();
        let looker = thread::spawn(move || {
            thread::sleep(BUSY_LIMIT / 10);
            drop(looks);
        });
        found.unmount_if_empty().unwrap();
        looker.join().unwrap();
        assert!(!run_dir.join("bpf").exists());
        if ours {
            fs::remove_dir(&run_dir).unwrap();
        }
    }

    /// As `ip netns exec` does it.
    fn enter_private_namespace() {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("this test needs root");
        let private = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        umount2("/sys", MntFlags::MNT_DETACH).unwrap();
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
    }

    #[test]
    fn where_the_outer_namespace_is_out_of_reach_the_mount_is_known_to_end_with_ours() {
        let run_dir = std::env::temp_dir().join(format!("bondd-bpffs-private-{}", std::process::id()));
        let inner_run_dir = run_dir.clone();
        let inner = thread::spawn(move || {
            enter_private_namespace();
            // As after the end of the script that started bondd, in a container whose PID 1 is not to be looked at.
            for pid in ancestors().into_iter().chain([1]) {
                let hidden = format!("/proc/{pid}");
                let _ = mount(Some("none"), &*hidden, Some("tmpfs"), MsFlags::empty(), None::<&str>);
            }
            assert!(Bpffs::would_be_short_lived(&inner_run_dir));
            let made = Bpffs::open(&inner_run_dir).unwrap();
            assert!(made.is_short_lived());
            let found = Bpffs::find(&inner_run_dir).unwrap().expect("it is mounted");
            assert!(found.is_short_lived(), "also for the next agent");
            drop(found);
            made.unmount_if_empty().unwrap();
            // What an operator mounted there is his own affair.
            let point = own_mount_point(&inner_run_dir).unwrap();
            fs::create_dir_all(&point).unwrap();
            mount(Some("bpf"), &point, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
            assert!(!Bpffs::would_be_short_lived(&inner_run_dir));
            Bpffs::open(&inner_run_dir).unwrap().unmount_if_empty().unwrap();
            assert!(open_bpffs(&point).is_ok(), "it stays");
            umount2(&point, MntFlags::empty()).unwrap();
        });
        let result = inner.join();
        fs::remove_dir_all(&run_dir).unwrap();
        result.unwrap();
    }

    #[test]
    fn a_mount_of_an_operator_stays_wherever_it_was_made() {
        let run_dir = std::env::temp_dir().join(format!("bondd-bpffs-operator-{}", std::process::id()));
        let point = own_mount_point(&run_dir).unwrap();
        fs::create_dir_all(&point).unwrap();
        let mounted = || mount(Some("bpf"), &point, Some("bpf"), MsFlags::empty(), None::<&str>);
        mounted().unwrap();
        let of_run_dir = Bpffs::open(&run_dir).unwrap();
        of_run_dir.unmount_if_empty().unwrap();
        let stays_here = open_bpffs(&point).is_ok();
        let inner_run_dir = run_dir.clone();
        let inner = thread::spawn(move || {
            enter_private_namespace();
            umount2(&own_mount_point(&inner_run_dir).unwrap(), MntFlags::empty()).unwrap();
            let outside = Bpffs::open(&inner_run_dir).unwrap();
            outside.unmount_if_empty().unwrap();
        });
        let result = inner.join();
        let stays_outside = open_bpffs(&point).is_ok();
        let _ = umount2(&point, MntFlags::empty());
        fs::remove_dir_all(&run_dir).unwrap();
        result.unwrap();
        assert!(stays_here && stays_outside, "{stays_here} {stays_outside}");
    }

    #[test]
    fn a_mount_that_hides_another_is_unmounted_and_the_folder_of_the_other_is_named() {
        let run_dir = std::env::temp_dir().join(format!("bondd-bpffs-stacked-{}", std::process::id()));
        let point = own_mount_point(&run_dir).unwrap();
        fs::create_dir_all(&point).unwrap();
        mount(Some("bpf"), &point, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        drop(mount_at(&point).unwrap());
        let unmounted = Bpffs::open(&run_dir).unwrap().unmount_if_empty();
        let left = open_bpffs(&point).is_ok();
        let _ = umount2(&point, MntFlags::empty());
        fs::remove_dir_all(&run_dir).unwrap();
        let why = unmounted.expect_err("the folder is in use").to_string();
        let point = point.display();
        assert_eq!(
            why,
            format!(
                "cannot remove {point}, another mount is there (`umount {point}` ends it): Device or resource busy (os error 16)"
            )
        );
        assert!(left);
    }

    #[test]
    fn a_mount_that_another_namespace_has_as_well_is_told_from_one_that_only_ours_has() {
        let line = |tags: &str, source: &str| format!("90 23 0:47 / /run/bondd/bpf rw,nosuid{tags} - bpf {source} rw");
        assert!(is_unshared_mount_of_ours(&line("", "bondd")));
        assert!(is_unshared_mount_of_ours(&line(" shared:7", "bondd")));
        assert!(!is_unshared_mount_of_ours(&line(" shared:7 master:3", "bondd")));
        assert!(!is_unshared_mount_of_ours(&line("", "bpf")));
        assert!(!is_unshared_mount_of_ours("no mount"));
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

//! What a process asks of the kernel, counted by the kernel's tracepoints: the process is not stopped for it, as by strace.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount, umount};

/// Counters of system calls of all threads of a process.
#[derive(Debug)]
pub struct Requests {
    counters: [Vec<File>; 4],
}

/// How many there were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Messages sent, which is how a request goes to netlink.
    pub sent: u64,
    /// By ioctl(2), which is how older interfaces take them.
    pub ioctls: u64,
    /// By bpf(2): writes and reads of maps.
    pub maps: u64,
    /// System calls of any kind.
    pub all: u64,
}

impl Requests {
    /// Counts from now on.
    ///
    /// # Errors
    /// The kernel has no such tracepoints.
    pub fn of(pid: u32) -> io::Result<Requests> {
        let tracefs = Tracefs::mount()?;
        let open = |names: &[&str]| -> io::Result<Vec<File>> {
            let mut counters = Vec::new();
            for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
                let thread = thread?
                    .file_name()
                    .to_string_lossy()
                    .parse()
                    .expect("threads are numbers");
                for name in names {
                    counters.push(counter(thread, tracefs.id(name)?)?);
                }
            }
            Ok(counters)
        };
        Ok(Requests {
            counters: [
                open(&["syscalls/sys_enter_sendto", "syscalls/sys_enter_sendmsg"])?,
                open(&["syscalls/sys_enter_ioctl"])?,
                open(&["syscalls/sys_enter_bpf"])?,
                open(&["raw_syscalls/sys_enter"])?,
            ],
        })
    }

    /// Those so far.
    pub fn so_far(&self) -> Counted {
        let [sent, ioctls, maps, all] = self.counters.each_ref().map(|files| files.iter().map(read).sum());
        Counted {
            sent,
            ioctls,
            maps,
            all,
        }
    }
}

fn read(mut counter: &File) -> u64 {
    let mut count = [0; 8];
    counter
        .read_exact(&mut count)
        .expect("a counter can be read at any time");
    u64::from_ne_bytes(count)
}

/// `struct perf_event_attr` in its first version. [perf_event_open(2)]
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample: [u64; 3],
    flags: u64,
    rest: [u64; 2],
}

/// Counts how often a thread, and each that it starts, comes by a tracepoint.
fn counter(thread: libc::pid_t, tracepoint: u64) -> io::Result<File> {
    const TRACEPOINT: u32 = 2;
    const INHERIT: u64 = 1 << 1;
    let attributes = Attributes {
        kind: TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: tracepoint,
        flags: INHERIT,
        ..Attributes::default()
    };
    let (any_cpu, no_group, cloexec) = (-1, -1, 1 << 3);
    // SAFETY: the call reads `attributes`, whose size they tell, and what it returns is a new descriptor that nobody else owns.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            thread,
            any_cpu,
            no_group,
            cloexec,
        )
    };
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(opened as i32) }))
}

/// The list of tracepoints, mounted for as long as it is read.
struct Tracefs {
    point: PathBuf,
}

impl Tracefs {
    fn mount() -> io::Result<Tracefs> {
        let point = std::env::temp_dir().join(format!("bondd-tracefs-{}", std::process::id()));
        fs::create_dir_all(&point)?;
        let (kind, none) = (Some("tracefs"), None::<&str>);
        mount(kind, &point, kind, MsFlags::empty(), none).inspect_err(|_| {
            let _ = fs::remove_dir(&point);
        })?;
        Ok(Tracefs { point })
    }

    fn id(&self, name: &str) -> io::Result<u64> {
        let path = self.point.join("events").join(name).join("id");
        let text = fs::read_to_string(&path).map_err(|e| named(&path, &e))?;
        text.trim().parse().map_err(|e| named(&path, &e))
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        let _ = umount(&self.point);
        let _ = fs::remove_dir(&self.point);
    }
}

fn named(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

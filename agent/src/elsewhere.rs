//! Other network namespaces of this machine: found by their ids, and worked in.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use crate::apart::apart;
use crate::descriptors::cannot;
use crate::netlink::RouteSocket;

/// The network namespace that has this id in ours, if it has a name for `ip netns` or a process is in it. The kernel has no way from
/// an id to a namespace, so all of those are asked for theirs.
///
/// # Errors
/// None can be asked.
pub fn find(id: i32) -> io::Result<Option<File>> {
    let mut links = RouteSocket::open()?;
    let mut seen = BTreeSet::new();
    for path in names().chain(processes()) {
        // Others come and go meanwhile, or are not ours to look at.
        let Ok(file) = File::open(path) else { continue };
        let Ok(of) = file.metadata() else { continue };
        if seen.insert((of.dev(), of.ino())) && links.namespace_id(file.as_fd()).is_ok_and(|found| found == Some(id)) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// Does `work` on a thread of its own in that network namespace: its sockets, and what it sees in `/proc/sys/net`, belong there.
///
/// # Errors
/// The thread cannot be made, or may not go there; or it panicked.
pub fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    apart(|| {
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .map_err(cannot("enter the network namespace, which needs CAP_SYS_ADMIN"))?;
        Ok(work())
    })?
}

fn names() -> impl Iterator<Item = PathBuf> {
    entries("/run/netns")
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let is_process = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    entries("/proc").filter(is_process).map(|path| path.join("ns/net"))
}

fn entries(folder: impl AsRef<Path>) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::netlink::tests::{in_netns, ip};
    use crate::netlink::{Events, LinkEvent, Moved};

    /// Moves the interface `a` to a namespace; where the kernel says that it is.
    fn move_a(to: &str) -> Moved {
        let mut events = Events::open().unwrap();
        ip(&format!("link set dev a netns {to}"));
        let mut seen = Vec::new();
        events.read(64, &mut seen).unwrap();
        let moved = seen.iter().find_map(|event| match event {
            LinkEvent::Gone { name, moved, .. } if name == "a" => *moved,
            _ => None,
        });
        moved.expect("the kernel says where it is")
    }

    #[test]
    fn the_namespace_of_a_process_is_found_by_its_id_and_worked_in() {
        in_netns(|| {
            RouteSocket::open().unwrap().add_veth("a", "b").unwrap();
            let mut process = Command::new("unshare")
                .args(["--net", "cat"])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let its = format!("/proc/{}/ns/net", process.id());
            let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
            while fs::read_link(&its).unwrap() == own {
                std::thread::yield_now();
            }
            let moved = move_a(&its);
            let found = find(moved.namespace).unwrap().expect("it is there");
            let name = inside(&found, || {
                let link = RouteSocket::open().unwrap().by_index(moved.ifindex).unwrap();
                link.map(|link| link.report.name)
            });
            assert_eq!(name.unwrap().as_deref(), Some("a"));
            drop(process.stdin.take());
            process.wait().unwrap();
        });
    }

    #[test]
    fn a_namespace_that_has_neither_a_name_nor_a_process_is_not_found() {
        in_netns(|| {
            RouteSocket::open().unwrap().add_veth("a", "b").unwrap();
            let alone = apart(|| {
                nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
                File::open("/proc/thread-self/ns/net").unwrap()
            });
            let alone = alone.unwrap();
            let moved = move_a(&format!("/proc/{}/fd/{}", std::process::id(), alone.as_raw_fd()));
            assert!(find(moved.namespace).unwrap().is_none());
            let mut links = RouteSocket::open().unwrap();
            assert_eq!(links.namespace_id(alone.as_fd()).unwrap(), Some(moved.namespace));
            let file = File::open("/proc/self/status").unwrap();
            assert!(links.namespace_id(file.as_fd()).is_err(), "it is no namespace");
        });
    }
}

//! Credentials of a client, and its right to change bonds.
//!
//! They are the user, group and supplementary groups that the process had when it connected, as the kernel reports them. No
//! user database is asked, because a database on the network could block the loop.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Group, Uid};

/// The group whose members may change bonds.
pub(super) const GROUP: &str = "bondd";

/// Number of supplementary groups of a process that are checked.
const MAX_GROUPS: usize = 1024;

/// Users who may change bonds, besides root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// The agent's own user.
    pub(super) uid: u32,
    /// Group `bondd`, if this system has it.
    pub(super) gid: Option<u32>,
}

impl Policy {
    /// The rule of this process. Looks the group up once.
    pub(super) fn of_this_process() -> Self {
        let group = Group::from_name(GROUP).unwrap_or_else(|e| {
            log::warn!("cannot look up group {GROUP}, only root may change bonds: {e}");
            None
        });
        Policy {
            uid: Uid::effective().as_raw(),
            gid: group.map(|g| g.gid.as_raw()),
        }
    }

    /// Applies the rule to a connected socket.
    pub(super) fn judge(&self, socket: impl AsFd) -> io::Result<Peer> {
        let fd = socket.as_fd();
        let credentials = getsockopt(&fd, PeerCredentials)?;
        let mut groups = supplementary_groups(fd);
        groups.push(credentials.gid());
        Ok(Peer {
            uid: credentials.uid(),
            may_change: self.allows(credentials.uid(), &groups),
        })
    }

    fn allows(&self, uid: u32, groups: &[u32]) -> bool {
        uid == 0 || uid == self.uid || self.gid.is_some_and(|gid| groups.contains(&gid))
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its effective user.
    pub(super) uid: u32,
    /// Whether it may change bonds.
    pub(super) may_change: bool,
}

/// Supplementary groups of the peer; an empty list from kernels before 4.13, which do not report them.
fn supplementary_groups(fd: BorrowedFd<'_>) -> Vec<u32> {
    let mut groups = vec![0 as libc::gid_t; MAX_GROUPS];
    let mut length = mem::size_of_val(groups.as_slice()) as libc::socklen_t;
    // SAFETY: the descriptor is open while borrowed, and the kernel writes at most `length` bytes into `groups`, which has them.
    let outcome = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &mut length,
        )
    };
    let known = if outcome == 0 {
        length as usize / mem::size_of::<libc::gid_t>()
    } else {
        0
    };
    groups.truncate(known);
    groups
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn root_the_agents_user_and_group_bondd_may_change_and_nobody_else() {
        let policy = Policy { uid: 7, gid: Some(40) };
        assert!(policy.allows(0, &[0]));
        assert!(policy.allows(7, &[7]));
        assert!(policy.allows(1000, &[40]), "primary group");
        assert!(policy.allows(1000, &[4, 40, 1000]), "supplementary group");
        assert!(!policy.allows(1000, &[4, 1000]));
        assert!(!policy.allows(1000, &[0]), "root's group is not root");
        assert!(!Policy { uid: 7, gid: None }.allows(1000, &[40]));
    }

    #[test]
    fn the_peer_of_a_socketpair_is_this_process() {
        let (here, _there) = UnixStream::pair().unwrap();
        let peer = Policy::of_this_process().judge(&here).unwrap();
        assert_eq!(
            peer,
            Peer {
                uid: Uid::effective().as_raw(),
                may_change: true
            }
        );
        let mut seen = supplementary_groups(here.as_fd());
        let mut own: Vec<u32> = nix::unistd::getgroups().unwrap().iter().map(|g| g.as_raw()).collect();
        seen.sort_unstable();
        own.sort_unstable();
        assert_eq!(seen, own);
    }
}

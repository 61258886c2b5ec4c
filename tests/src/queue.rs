//! What waits in the queue of an interface, asked of the kernel without starting a program.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::many_bonds::watch::attributes;
use crate::netns::Netns;

/// The outermost queueing discipline of an interface.
#[derive(Debug)]
pub struct Queue {
    socket: OwnedFd,
    request: Vec<u8>,
}

/// What it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Bytes in it.
    pub waiting: u64,
    /// Frames that it has dropped, those that disciplines below it have dropped included.
    pub dropped: u64,
}

impl Queue {
    /// Of this interface.
    ///
    /// # Panics
    /// Without such an interface.
    #[track_caller]
    pub fn of(netns: &Netns, interface: &str) -> Queue {
        let (socket, index) = netns.enter(|| {
            let socket = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkRoute,
            );
            let socket = socket.expect("everyone may ask the kernel");
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(10)).expect("a socket takes a time-out");
            let index = if_nametoindex(interface).unwrap_or_else(|e| panic!("{interface}: {e}"));
            (socket, index)
        });
        Queue {
            socket,
            request: request(index),
        }
    }

    /// Now.
    ///
    /// # Panics
    /// When the interface is gone.
    pub fn state(&self) -> State {
        let mut answer = [0; 8 * 1024];
        let length = send(self.socket.as_raw_fd(), &self.request, MsgFlags::empty()).and_then(|_| {
            loop {
                match recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                    Err(Errno::EINTR) => {}
                    length => return length,
                }
            }
        });
        let length = length.unwrap_or_else(|e| panic!("cannot ask for a queue: {e}"));
        parse(&answer[..length]).unwrap_or_else(|| panic!("no queue: {:?}", &answer[..length]))
    }
}

/// [rtnetlink(7): struct nlmsghdr, struct tcmsg]
fn request(index: u32) -> Vec<u8> {
    const ROOT: u32 = 0xffff_ffff;
    let length = (HEADER + MESSAGE) as u32;
    // Without the echo the answer goes to those alone who have subscribed. [net/sched/sch_api.c: qdisc_notify]
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ECHO;
    let kind = [libc::RTM_GETQDISC, flags as u16].map(u16::to_ne_bytes);
    let words = [0, 0, 0, index, 0, ROOT, 0].map(u32::to_ne_bytes);
    [&length.to_ne_bytes()[..], kind.as_flattened(), words.as_flattened()].concat()
}

/// [linux/gen_stats.h: struct gnet_stats_queue]
fn parse(answer: &[u8]) -> Option<State> {
    const STATS2: u16 = 7;
    const STATS_QUEUE: u16 = 3;
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != libc::RTM_NEWQDISC {
        return None;
    }
    let (_, stats) = attributes(answer.get(HEADER + MESSAGE..)?).find(|(kind, _)| *kind == STATS2)?;
    let (_, queue) = attributes(stats).find(|(kind, _)| *kind == STATS_QUEUE)?;
    let word = |at: usize| Some(u64::from(u32::from_ne_bytes(queue.get(at..at + 4)?.try_into().ok()?)));
    Some(State {
        waiting: word(4)?,
        dropped: word(8)?,
    })
}

/// Bytes of the header of every message.
const HEADER: usize = 16;
/// Bytes that a message about queueing disciplines has before its attributes.
const MESSAGE: usize = 20;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::machine::Machine;
    use crate::netns::Cable;

    #[test]
    fn frames_that_wait_and_those_that_find_no_room_are_seen() {
        let _machine = Machine::shared();
        let (near, far) = (Netns::new("near"), Netns::new("far"));
        let _cable = Cable::new(&near, "eth0", &far, "eth0");
        near.ip("addr add 10.77.0.1/24 dev eth0");
        near.ip("neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 dev eth0 nud permanent");
        let narrow = "tc qdisc replace dev eth0 root tbf rate 8kbit burst 1600 limit 4000";
        near.exec(&narrow.split(' ').collect::<Vec<_>>());
        let queue = Queue::of(&near, "eth0");
        let before = queue.state();
        near.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for _ in 0..10 {
                let _ = socket.send_to(&[0; 1_000], "10.77.0.2:9");
            }
        });
        let after = queue.state();
        assert!((1_000..=4_000).contains(&after.waiting), "{after:?}");
        assert!(after.dropped >= before.dropped + 4, "{before:?}, {after:?}");
    }
}

//! The kernel's link events, read before the agent can act on them.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;

use crate::netns::Netns;
use crate::process::hurry;

/// What the kernel told of a link.
#[derive(Clone, Debug)]
pub struct LinkEvent {
    /// When it was read.
    pub at: Instant,
    /// Which link.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Whether it is up and has carrier.
    pub carrier: bool,
}

/// A subscription to the link events of a namespace.
#[derive(Debug)]
pub struct LinkEvents {
    socket: OwnedFd,
    /// Read by [`LinkEvents::renew`].
    before: Vec<LinkEvent>,
}

impl LinkEvents {
    /// All from now on.
    pub fn subscribe(netns: &Netns) -> LinkEvents {
        let socket = netns.enter(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
            setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, libc::RTMGRP_LINK as u32))?;
            Ok::<_, Errno>(socket)
        });
        LinkEvents {
            socket: socket.unwrap_or_else(|e| panic!("cannot subscribe to link events: {e}")),
            before: Vec::new(),
        }
    }

    /// Gets events before all others who are subscribed, and loses none. The kernel serves the youngest socket first, and an agent
    /// that is served before us may have moved its bond before we hear of the event: its priority is higher than that of the
    /// kernel's thread, which then waits. [net/netlink/af_netlink.c: netlink_broadcast_filtered, sk_add_bind_node]
    pub fn renew(&mut self, netns: &Netns) {
        let mut young = LinkEvents::subscribe(netns);
        young.before = self.read(Duration::ZERO);
        *self = young;
    }

    /// Waits at most this long for an event and returns all that have come.
    ///
    /// # Panics
    /// When events were lost.
    pub fn read(&mut self, wait: Duration) -> Vec<LinkEvent> {
        if !self.before.is_empty() {
            return std::mem::take(&mut self.before);
        }
        let mut readable = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut readable, Some(TimeSpec::from_duration(wait)), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => panic!("cannot wait for link events: {e}"),
        }
        let (mut events, mut buffer) = (Vec::new(), [0; 32 * 1024]);
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => events.extend(parse(&buffer[..length], Instant::now())),
                Err(Errno::EAGAIN) => return events,
                Err(Errno::EINTR) => {}
                Err(e) => panic!("link events were lost: {e}"),
            }
        }
    }
}

/// The link that a datagram is about; none if it is about something else. [rtnetlink(7): struct nlmsghdr, struct ifinfomsg]
fn parse(datagram: &[u8], at: Instant) -> Option<LinkEvent> {
    let word = |at: usize| Some(u32::from_ne_bytes(datagram.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_ne_bytes(datagram.get(at..at + 2)?.try_into().ok()?));
    let of_all_families = *datagram.get(HEADER)? == libc::AF_UNSPEC as u8;
    if half(4)? != libc::RTM_NEWLINK || !of_all_families {
        return None;
    }
    let (ifindex, flags) = (word(HEADER + 4)?, word(HEADER + 8)?);
    let (_, name) = attributes(datagram.get(HEADER + 16..)?).find(|(kind, _)| *kind == libc::IFLA_IFNAME)?;
    Some(LinkEvent {
        at,
        ifindex,
        name: CStr::from_bytes_until_nul(name).ok()?.to_string_lossy().into_owned(),
        carrier: flags & libc::IFF_LOWER_UP as u32 != 0,
    })
}

/// The attributes of a message, each with its type. [netlink(7): struct nlattr]
pub fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const NESTED_OR_BIG_ENDIAN: u16 = 0xc000;
    std::iter::from_fn(move || {
        let (header, _) = rest.split_first_chunk::<4>()?;
        let [length, kind] = [[header[0], header[1]], [header[2], header[3]]].map(u16::from_ne_bytes);
        let data = rest.get(4..usize::from(length))?;
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !NESTED_OR_BIG_ENDIAN, data))
    })
}

/// Runs with a higher real-time priority than the agent has: an event that is read late makes a wait look short.
pub fn at_once<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let urgent = scope.spawn(|| {
            hurry();
            body()
        });
        urgent.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Length of a message's header.
pub const HEADER: usize = 16;
/// For all events of a thousand bonds at once, in bytes.
const RECEIVE_BUFFER: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::LIMIT;
    use crate::netns::{Cable, Hands};
    use crate::until;

    #[test]
    fn a_pulled_cable_is_heard_of_by_the_index_and_name_of_its_near_end() {
        let (near, far) = (Netns::new("near"), Netns::new("far"));
        let _cable = Cable::new(&near, "eth0", &far, "far0");
        let mut events = LinkEvents::subscribe(&near);
        let mut hands = Hands::new(&far);
        for (word, carrier) in [("down", false), ("up", true)] {
            hands.tell(&format!("link set far0 {word}"));
            let heard = until(LIMIT, || {
                let heard = events.read(LIMIT).into_iter().find(|event| event.carrier == carrier);
                heard.filter(|event| event.name == "eth0")
            });
            let index = near.link("eth0").expect("it is there")["ifindex"].as_u64();
            assert_eq!(heard.map(|event| u64::from(event.ifindex)), index, "{word}");
        }
    }
}

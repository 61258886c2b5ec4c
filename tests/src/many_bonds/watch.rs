//! The kernel's link events, and where the traffic of bonds on the tc plane goes: seen without asking the agent.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;

use crate::daemon::Daemon;
use crate::netns::Netns;

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
    let mut attribute = HEADER + 16;
    let name = loop {
        let length = usize::from(half(attribute)?);
        if half(attribute + 2)? == libc::IFLA_IFNAME {
            break datagram.get(attribute + 4..attribute + length)?;
        }
        attribute += length.max(4).next_multiple_of(4);
    };
    Some(LinkEvent {
        at,
        ifindex,
        name: CStr::from_bytes_until_nul(name).ok()?.to_string_lossy().into_owned(),
        carrier: flags & libc::IFF_LOWER_UP as u32 != 0,
    })
}

/// The pins of an agent's bonds on the tc plane.
#[derive(Debug)]
pub struct Pins {
    /// Where they may be: which bpffs the agent uses depends on what is mounted.
    places: Vec<PathBuf>,
}

impl Pins {
    /// Those of this agent.
    pub fn of(daemon: &Daemon) -> Pins {
        let own = daemon.dir().join("bpf");
        // As seen by PID 1, where the agent mounts a bpffs of its own if it may.
        let outside = Path::new("/proc/1/root").join(own.strip_prefix("/").unwrap_or(&own));
        let mounts = [own, outside, PathBuf::from("/sys/fs/bpf")];
        let inode = daemon.netns().inode().to_string();
        let places = mounts.map(|mount| mount.join("bondd").join(&inode));
        Pins { places: places.into() }
    }

    /// The selector of the bond with this index, once the port with that index is attached to it, too.
    pub fn selector(&self, bond: u32, port: u32) -> Option<Selector> {
        let folders = self.places.iter().map(|place| place.join(bond.to_string()));
        let folder = folders
            .into_iter()
            .find(|folder| folder.join(format!("rx-{port}")).exists())?;
        let data = MapData::from_pin(folder.join("transmit")).ok()?;
        let map = Map::from_map_data(data).and_then(Array::try_from);
        Some(Selector {
            map: map.unwrap_or_else(|e| panic!("{} is another map: {e}", folder.display())),
        })
    }
}

/// Where the frames of one bond leave, as its program reads it for each frame.
pub struct Selector {
    map: Array<MapData, [u32; 2]>,
}

impl Selector {
    /// Index of the port; 0 for none.
    pub fn port(&self) -> u32 {
        self.map.get(&ACTIVE_BACKUP, 0).map_or(0, |[port, _]| port)
    }
}

/// Runs with a higher real-time priority than the agent has: an event that is read late makes a wait look short.
pub fn at_once<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let urgent = scope.spawn(|| {
            let parameters = libc::sched_param { sched_priority: 2 };
            // SAFETY: the call reads `parameters`, which outlives it, and changes nothing but this thread's scheduling.
            let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameters) };
            assert!(done == 0, "no real-time priority: {}", io::Error::last_os_error());
            body()
        });
        urgent.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Of a netlink message.
const HEADER: usize = 16;
/// For all events of a thousand bonds at once, in bytes.
const RECEIVE_BUFFER: usize = 256 << 20;
/// The key of active-backup's program in `transmit`.
const ACTIVE_BACKUP: u32 = 0;

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

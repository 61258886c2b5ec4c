//! Link and address events, from a multicast socket of their own.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkBuffer;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use super::message::{self, Address, Link};

/// The stream of changes in the network namespace in which it was opened. Open it before the first dump, so that no change is
/// missed in between.
pub struct Events {
    socket: Socket,
    buffer: Box<[u8]>,
}

impl Events {
    /// Subscribes to links, to IPv4 and IPv6 addresses, and to what becomes of IPv6 on interfaces.
    pub fn open() -> io::Result<Events> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        // SAFETY: `socket` is open until the end of this function at least.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        // Without the privilege the default size stays; overruns come earlier, and are handled.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        for group in [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Ifinfo,
        ] {
            socket.add_membership(group as u32)?;
        }
        Ok(Events {
            socket,
            buffer: vec![0; DATAGRAM_MAX].into_boxed_slice(),
        })
    }

    /// Appends events to `sink`, from at most `budget` datagrams. After [`Drained::More`] the caller must call again:
    /// an edge-triggered wait would not report the rest.
    pub fn read(&mut self, budget: usize, sink: &mut Vec<LinkEvent>) -> io::Result<Drained> {
        for _ in 0..budget {
            match self.socket.recv_from(&mut &mut self.buffer[..], 0) {
                // Accept messages from the kernel only, which is port 0.
                Ok((length, from)) if from.port_number() == 0 => parse_datagram(&self.buffer[..length], sink),
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(Drained::Empty),
                    Some(libc::EINTR) => {}
                    Some(libc::ENOBUFS) => sink.push(LinkEvent::Overrun),
                    _ => return Err(error),
                },
            }
        }
        Ok(Drained::More)
    }
}

#[cfg(test)]
impl Events {
    /// Shrinks the buffer to the queued messages and a few more.
    pub(crate) fn shrink(&mut self) {
        self.socket.set_rx_buf_sz(1 as libc::c_int).unwrap();
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// An interface appeared or changed, with its whole state.
    Link(Box<Link>),
    /// An interface was removed or moved to another namespace.
    Gone {
        /// The index it had.
        ifindex: u32,
        /// The name it had.
        name: String,
        /// Where it is, if it was moved. Kernels before 4.15 do not say that.
        moved: Option<Moved>,
    },
    /// An address came, went, became usable or ceased to be.
    Address {
        /// The interface that has or had it.
        ifindex: u32,
        /// Which one.
        address: Address,
        /// It is there, duplicate address detection does not run for it and has not failed.
        usable: bool,
    },
    /// IPv6 of an interface may have been switched on.
    Ipv6 {
        /// Which one.
        ifindex: u32,
    },
    /// The kernel dropped events; read the state by a full dump.
    Overrun,
}

/// The place of an interface in another network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The id that the namespace has in ours; the kernel gives it one with the first such event.
    pub namespace: i32,
    /// The index that the interface has there.
    pub ifindex: u32,
}

/// Whether there is more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nothing: wait for the descriptor.
    Empty,
    /// Perhaps: the budget ran out first.
    More,
}

/// Parses the messages of one datagram. Unreadable ones are skipped; after a broken length the rest is dropped.
fn parse_datagram(mut bytes: &[u8], sink: &mut Vec<LinkEvent>) {
    while let Ok(message) = NetlinkBuffer::new_checked(bytes) {
        sink.extend(parse_message(message.message_type(), message.payload()));
        let length = (message.length() as usize).next_multiple_of(NLMSG_ALIGN);
        bytes = bytes.get(length..).unwrap_or_default();
    }
}

fn parse_message(kind: u16, payload: &[u8]) -> Option<LinkEvent> {
    match kind {
        libc::RTM_NEWLINK => parse_changed(payload),
        libc::RTM_DELLINK => parse_gone(payload),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            let (ifindex, address, usable) = message::any_address(&message::decode_address(payload)?)?;
            Some(LinkEvent::Address {
                ifindex,
                address,
                usable: usable && kind == libc::RTM_NEWADDR,
            })
        }
        _ => None,
    }
}

/// IPv6 sends this type with its own family when it begins on an interface, seconds before there is an address.
/// [addrconf.c: addrconf_notify]
fn parse_changed(payload: &[u8]) -> Option<LinkEvent> {
    let message = message::decode(payload)?;
    match message.header.interface_family {
        AddressFamily::Inet6 => Some(LinkEvent::Ipv6 {
            ifindex: message.header.index,
        }),
        _ => message::parse(&message).map(|link| LinkEvent::Link(Box::new(link))),
    }
}

/// A bridge also sends this type, with its own family, when a port leaves it: the device itself stays.
fn parse_gone(payload: &[u8]) -> Option<LinkEvent> {
    let message = message::decode(payload)?;
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let ifindex = message.header.index;
    let (mut name, mut namespace, mut there) = (None, None, ifindex);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(given) => name = Some(given),
            LinkAttribute::NewNetnsId(id) => namespace = Some(id),
            LinkAttribute::NewIfIndex(index) => there = index.try_into().unwrap_or(ifindex),
            _ => {}
        }
    }
    Some(LinkEvent::Gone {
        ifindex,
        name: name?,
        moved: namespace.map(|namespace| Moved {
            namespace,
            ifindex: there,
        }),
    })
}

/// Bytes for some thousands of events, more than a carrier storm on a large switch.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The kernel's largest netlink datagram is 32 KiB.
const DATAGRAM_MAX: usize = 64 << 10;

/// Messages in a datagram start at multiples of this.
const NLMSG_ALIGN: usize = 4;

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, Instant};

    use nix::poll::{PollFd, PollFlags, poll};

    use super::super::message::tests::{FIXTURES, fixture};
    use super::*;
    use crate::netlink::RouteSocket;
    use crate::netlink::tests::{in_netns, ip};

    /// Reads until an event matches, and returns all events. Some come a moment later, from a worker of the kernel.
    pub(crate) fn read_until(events: &mut Events, fits: impl Fn(&LinkEvent) -> bool) -> Vec<LinkEvent> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut seen = Vec::new();
        loop {
            events.read(64, &mut seen).unwrap();
            if seen.iter().any(&fits) {
                return seen;
            }
            assert!(Instant::now() < deadline, "not among {seen:#?}");
            // SAFETY: `events` keeps the socket open.
            let fd = unsafe { BorrowedFd::borrow_raw(events.as_raw_fd()) };
            poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], 100u8).unwrap();
        }
    }

    fn read_all(events: &mut Events) -> Vec<LinkEvent> {
        let mut seen = Vec::new();
        while events.read(64, &mut seen).unwrap() == Drained::More {}
        seen
    }

    pub(crate) fn carrier_of(event: &LinkEvent, index: u32) -> Option<bool> {
        match event {
            LinkEvent::Link(link) if link.ifindex == index => Some(link.report.carrier.is_on()),
            _ => None,
        }
    }

    #[test]
    fn a_device_is_seen_to_come_change_and_go() {
        in_netns(|| {
            let (mut events, mut links) = (Events::open().unwrap(), RouteSocket::open().unwrap());
            links.add_veth("a", "b").unwrap();
            let a = links.by_name("a").unwrap().unwrap();
            let b = a.peer.unwrap();
            assert!(
                read_all(&mut events).contains(&LinkEvent::Link(Box::new(a.clone()))),
                "the same as by request"
            );
            links.set_up(a.ifindex, true).unwrap();
            links.set_up(b, true).unwrap();
            read_until(&mut events, |event| carrier_of(event, a.ifindex) == Some(true));
            links.set_up(b, false).unwrap();
            read_until(&mut events, |event| carrier_of(event, a.ifindex) == Some(false));
            links.delete(a.ifindex).unwrap();
            let gone = LinkEvent::Gone {
                ifindex: a.ifindex,
                name: "a".to_owned(),
                moved: None,
            };
            read_until(&mut events, |event| *event == gone);
        });
    }

    #[test]
    fn addresses_of_both_families_are_announced() {
        in_netns(|| {
            let (mut events, mut links) = (Events::open().unwrap(), RouteSocket::open().unwrap());
            links.set_up(1, true).unwrap();
            let seen = read_all(&mut events);
            let announced = seen
                .iter()
                .filter(|event| {
                    matches!(
                        event,
                        LinkEvent::Address {
                            ifindex: 1,
                            usable: true,
                            ..
                        }
                    )
                })
                .count();
            assert_eq!(announced, 2, "127.0.0.1 and ::1 in {seen:#?}");
        });
    }

    #[test]
    fn leaving_a_bridge_is_not_the_end_of_a_device() {
        in_netns(|| {
            let (mut events, mut links) = (Events::open().unwrap(), RouteSocket::open().unwrap());
            links.add_veth("eth0", "eth1").unwrap();
            ip("link add br0 type bridge");
            ip("link set eth0 master br0");
            ip("link set eth0 nomaster");
            let seen = read_all(&mut events);
            let owned = |event: &LinkEvent| matches!(event, LinkEvent::Link(link) if link.master.is_some());
            assert!(seen.iter().any(owned), "{seen:#?}");
            assert!(
                !seen.iter().any(|event| matches!(event, LinkEvent::Gone { .. })),
                "{seen:#?}"
            );
        });
    }

    #[test]
    fn a_spent_budget_leaves_the_rest_for_the_next_call() {
        in_netns(|| {
            let (mut events, mut links) = (Events::open().unwrap(), RouteSocket::open().unwrap());
            links.add_veth("a", "b").unwrap();
            let mut first = Vec::new();
            assert_eq!(events.read(1, &mut first).unwrap(), Drained::More);
            assert_eq!(first.len(), 1);
            assert!(!read_all(&mut events).is_empty());
            assert_eq!(events.read(1, &mut first).unwrap(), Drained::Empty);
        });
    }

    #[test]
    fn an_overrun_is_told_once_and_reading_goes_on() {
        in_netns(|| {
            let (mut events, mut links) = (Events::open().unwrap(), RouteSocket::open().unwrap());
            links.set_up(1, true).unwrap();
            read_all(&mut events);
            events.socket.set_rx_buf_sz(1 as libc::c_int).unwrap();
            for turn in 0..64 {
                links.set_alias(1, &format!("turn {turn}")).unwrap();
            }
            let overruns = |seen: &[_]| seen.iter().filter(|event| **event == LinkEvent::Overrun).count();
            assert_eq!(overruns(&read_all(&mut events)), 1);
            links.set_alias(1, "last").unwrap();
            let seen = read_all(&mut events);
            assert!(
                matches!(&seen[..], [LinkEvent::Link(link)] if link.alias == "last"),
                "{seen:#?}"
            );
        });
    }

    #[test]
    fn several_messages_in_one_datagram_are_all_read() {
        let mut bytes = fixture("veth_up");
        bytes.extend(fixture("vlan"));
        let mut seen = Vec::new();
        parse_datagram(&bytes, &mut seen);
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn truncated_and_damaged_messages_are_survived() {
        for (name, _) in FIXTURES {
            let whole = fixture(name);
            for length in 0..whole.len() {
                let mut seen = Vec::new();
                parse_datagram(&whole[..length], &mut seen);
                assert_eq!(seen, [], "{name} cut to {length}");
                // The same with a header that hides the cut.
                let mut cut = whole[..length].to_vec();
                if let Some(header) = cut.first_chunk_mut::<4>() {
                    *header = u32::try_from(length).unwrap().to_ne_bytes();
                }
                parse_datagram(&cut, &mut seen);
            }
            for at in 0..whole.len() {
                for damage in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                    let mut damaged = whole.clone();
                    damaged[at] = damage;
                    parse_datagram(&damaged, &mut Vec::new());
                }
            }
        }
        for kind in [
            libc::RTM_NEWLINK,
            libc::RTM_DELLINK,
            libc::RTM_NEWADDR,
            libc::RTM_DELADDR,
            0,
            u16::MAX,
        ] {
            for length in 0..8 {
                assert_eq!(parse_message(kind, &vec![0xff; length]), None, "{kind} {length}");
            }
        }
    }
}

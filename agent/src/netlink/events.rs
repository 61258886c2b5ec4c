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

use super::message::{self, Link};

/// The stream of changes in one network namespace: the one in which it was opened. Open it before the first dump, so that no
/// change falls between the two.
pub struct Events {
    socket: Socket,
    buffer: Box<[u8]>,
}

impl Events {
    /// Subscribes to links and to IPv4 and IPv6 addresses.
    pub fn open() -> io::Result<Events> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        // SAFETY: `socket` is open until the end of this function at least.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        // Without the privilege the default size stays: an overrun then comes earlier and is handled all the same.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        for group in [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ] {
            socket.add_membership(group as u32)?;
        }
        Ok(Events {
            socket,
            buffer: vec![0; DATAGRAM_MAX].into_boxed_slice(),
        })
    }

    /// Appends what happened to `sink`, from at most `budget` datagrams. With [`Drained::More`] the caller owes another call:
    /// an edge-triggered wait would not report the rest.
    pub fn read(&mut self, budget: usize, sink: &mut Vec<LinkEvent>) -> io::Result<Drained> {
        for _ in 0..budget {
            match self.socket.recv_from(&mut &mut self.buffer[..], 0) {
                // Only the kernel is listened to, and it is port 0.
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

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// An interface appeared or changed; this is all of it.
    Link(Box<Link>),
    /// An interface was removed or moved to another namespace.
    Gone {
        /// The index it had.
        ifindex: u32,
        /// The name it had.
        name: String,
    },
    /// An address came, went or became usable.
    AddressesChanged {
        /// The interface that has or had it.
        ifindex: u32,
    },
    /// The kernel dropped events: only a full dump tells the state now.
    Overrun,
}

/// Whether anything is left to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nothing: wait for the descriptor.
    Empty,
    /// Perhaps: the budget ran out first.
    More,
}

/// Reads the messages of one datagram. What cannot be read is skipped; the rest after a broken length cannot be found.
fn parse_datagram(mut bytes: &[u8], sink: &mut Vec<LinkEvent>) {
    while let Ok(message) = NetlinkBuffer::new_checked(bytes) {
        sink.extend(parse_message(message.message_type(), message.payload()));
        let length = (message.length() as usize).next_multiple_of(NLMSG_ALIGN);
        bytes = bytes.get(length..).unwrap_or_default();
    }
}

fn parse_message(kind: u16, payload: &[u8]) -> Option<LinkEvent> {
    match kind {
        libc::RTM_NEWLINK => message::parse(&message::decode(payload)?).map(|link| LinkEvent::Link(Box::new(link))),
        libc::RTM_DELLINK => parse_gone(payload),
        // The index is the last field of `struct ifaddrmsg`.
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            let index = payload.get(4..8)?.try_into().ok()?;
            Some(LinkEvent::AddressesChanged {
                ifindex: u32::from_ne_bytes(index),
            })
        }
        _ => None,
    }
}

/// A bridge also sends this type, with its own family, when a port leaves it: the device itself stays.
fn parse_gone(payload: &[u8]) -> Option<LinkEvent> {
    let message = message::decode(payload)?;
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let name = message.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    })?;
    Some(LinkEvent::Gone {
        ifindex: message.header.index,
        name,
    })
}

/// Room for some thousands of events in bytes; a carrier storm on a large switch stays below.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The kernel's largest netlink datagram is 32 KiB.
const DATAGRAM_MAX: usize = 64 << 10;

/// Messages in a datagram start at multiples of this.
const NLMSG_ALIGN: usize = 4;

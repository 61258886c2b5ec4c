//! Sends Ethernet frames out of a port, independent of addresses and routes, and receives them before the port's programs:
//! announcements after a failover, probes of the monitors and their answers.

mod filter;
mod frame_socket;
mod send;

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

use bond_monitors::MacAddr;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

pub use frame_socket::FrameSocket;
pub use send::PacketSocket;

/// A packet socket without a protocol: it queues no frames until it is bound to one. [packet(7)]
pub(crate) fn open_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Packet, SockType::Raw, flags, None)?)
}

/// A protocol, in network order, on an interface.
fn link_address(ifindex: u32, protocol: u16) -> io::Result<libc::sockaddr_ll> {
    // SAFETY: all fields are integers or arrays of them; zero is a valid value for each.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    // 0 would be every interface.
    let index = i32::try_from(ifindex).ok().filter(|index| *index > 0);
    address.sll_ifindex = index.ok_or(Errno::ENXIO)?;
    Ok(address)
}

/// Receives frames of a protocol, in network order, in both directions of an interface.
pub(crate) fn bind(socket: &OwnedFd, ifindex: u32, protocol: u16) -> io::Result<()> {
    let at = link_address(ifindex, protocol)?;
    // SAFETY: the pointer leads to a live value of the length given with it.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const at).cast(), length_of(&at)) };
    Errno::result(bound)?;
    Ok(())
}

/// Makes the interface receive a group address for this socket, or no longer. Closing the socket ends it too.
fn join(socket: &OwnedFd, ifindex: u32, group: MacAddr, joins: bool) -> io::Result<()> {
    let mut address = [0; 8];
    address[..group.0.len()].copy_from_slice(&group.0);
    let request = libc::packet_mreq {
        mr_ifindex: i32::try_from(ifindex).map_err(|_| Errno::ENXIO)?,
        mr_type: libc::PACKET_MR_MULTICAST as u16,
        mr_alen: group.0.len() as u16,
        mr_address: address,
    };
    let option = if joins {
        libc::PACKET_ADD_MEMBERSHIP
    } else {
        libc::PACKET_DROP_MEMBERSHIP
    };
    set_option(socket, libc::SOL_PACKET, option, &request)
}

/// Sets a socket option that nix does not have. `value` must be of the type that the option has.
pub(crate) fn set_option<T>(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the pointer leads to a live value of the length given with it.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const *value).cast(),
            length_of(value),
        )
    };
    Errno::result(set)?;
    Ok(())
}

fn length_of<T>(value: &T) -> libc::socklen_t {
    mem::size_of_val(value) as libc::socklen_t
}

#[cfg(test)]
pub(crate) mod tests {
    use nix::poll::{PollFd, PollFlags, poll};
    use nix::sys::socket::{MsgFlags, recv};
    use std::os::fd::AsFd;

    use super::*;
    use crate::netlink::events::tests::{carrier_of, read_until};
    use crate::netlink::{Events, RouteSocket};

    /// Makes a veth pair, both ends in service, and returns their indices.
    pub(crate) fn pair(links: &mut RouteSocket, near: &str, far: &str) -> (u32, u32) {
        let mut events = Events::open().unwrap();
        links.add_veth(near, far).unwrap();
        let (near, far) = (links.by_name(near), links.by_name(far));
        let (near, far) = (near.unwrap().unwrap().ifindex, far.unwrap().unwrap().ifindex);
        links.set_up(near, true).unwrap();
        links.set_up(far, true).unwrap();
        // The events, not the carrier flag: the kernel puts the queue into service between the two. [link_watch.c]
        read_until(&mut events, |event| carrier_of(event, near) == Some(true));
        (near, far)
    }

    /// Waits until the socket is readable; fails after a long time.
    pub(crate) fn await_readable(socket: impl AsFd) {
        let ready = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], 5000u16);
        assert_eq!(ready, Ok(1), "nothing came");
    }

    /// The next frame of a tap.
    pub(crate) fn receive(tap: &OwnedFd) -> Vec<u8> {
        await_readable(tap);
        let mut buffer = [0; 2048];
        let length = recv(tap.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        buffer[..length].to_vec()
    }
}

//! Whole Ethernet frames out of a port, past every address and route: announcements after a failover.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// A packet socket that only sends, out of any interface of the namespace in which it was opened.
pub struct PacketSocket {
    socket: OwnedFd,
}

impl PacketSocket {
    /// Opens the socket; needs CAP_NET_RAW.
    pub fn open() -> io::Result<PacketSocket> {
        // Protocol 0: no frame is ever queued to it, so nobody has to read it empty. [packet(7)]
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        Ok(PacketSocket {
            socket: socket(AddressFamily::Packet, SockType::Raw, flags, None)?,
        })
    }

    /// Sends one frame, from destination address to payload, out of an interface.
    ///
    /// A port whose carrier has only just come takes the frame and drops it without a word, until its link event arrives.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let [.., high, low] = *frame.first_chunk::<ETHERNET_HEADER>().ok_or(Errno::EINVAL)?;
        // SAFETY: all fields are integers or arrays of them; zero is a valid value for each.
        let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        // As the frame says, already in network order: classifiers and taps look at it.
        to.sll_protocol = u16::from_ne_bytes([high, low]);
        to.sll_ifindex = i32::try_from(ifindex).map_err(|_| Errno::ENXIO)?;
        // SAFETY: both pointers lead to live values of the lengths given with them.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                mem::size_of_val(&to) as libc::socklen_t,
            )
        };
        // A packet is sent whole or not at all.
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

/// Two addresses and the type.
const ETHERNET_HEADER: usize = 14;

#[cfg(test)]
mod tests {
    use nix::sys::socket::{MsgFlags, SockProtocol, recv, setsockopt, sockopt};
    use nix::sys::time::{TimeVal, TimeValLike};

    use super::*;
    use crate::netlink::events::tests::{carrier_of, read_until};
    use crate::netlink::tests::in_netns;
    use crate::netlink::{Events, Links};

    /// To everybody, from 02:00:00:00:00:01, a type reserved for experiments.
    const FRAME: [u8; 60] = {
        let mut frame = [0xff; 60];
        let header = [2, 0, 0, 0, 0, 1, 0x88, 0xb5];
        let mut at = 0;
        while at < header.len() {
            frame[6 + at] = header[at];
            at += 1;
        }
        frame
    };

    #[test]
    fn a_frame_leaves_as_it_is_and_nothing_comes_back() {
        in_netns(|| {
            let (mut links, sender) = (Links::open().unwrap(), PacketSocket::open().unwrap());
            let mut events = Events::open().unwrap();
            links.add_veth("a", "b").unwrap();
            let a = links.by_name("a").unwrap().unwrap();
            links.set_up(a.ifindex, true).unwrap();
            links.set_up(a.peer.unwrap(), true).unwrap();
            // The event, not the carrier flag: the kernel puts the queue into service between the two. [link_watch.c]
            read_until(&mut events, |event| carrier_of(event, a.ifindex) == Some(true));
            let everything = SockProtocol::EthAll;
            let tap = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, everything).unwrap();
            setsockopt(&tap, sockopt::ReceiveTimeout, &TimeVal::seconds(5)).unwrap();

            sender.send(a.ifindex, &FRAME).unwrap();
            let mut buffer = [0; 2048];
            // Once on its way out of a, once on its way in through b; the kernel's own IPv6 frames are passed over.
            for _ in 0..2 {
                while recv(tap.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap() != FRAME.len()
                    || buffer[..60] != FRAME
                {}
            }
            let heard = recv(sender.socket.as_raw_fd(), &mut buffer, MsgFlags::empty());
            assert_eq!(heard, Err(Errno::EAGAIN));
        });
    }

    #[test]
    fn a_port_that_cannot_send_is_told_by_errno() {
        in_netns(|| {
            let (mut links, sender) = (Links::open().unwrap(), PacketSocket::open().unwrap());
            links.add_veth("a", "b").unwrap();
            let a = links.by_name("a").unwrap().unwrap();
            let errno = |ifindex, frame: &[u8]| sender.send(ifindex, frame).unwrap_err().raw_os_error();
            assert_eq!(errno(a.ifindex, &FRAME), Some(libc::ENETDOWN));
            assert_eq!(errno(9999, &FRAME), Some(libc::ENXIO));
            assert_eq!(errno(u32::MAX, &FRAME), Some(libc::ENXIO));
            assert_eq!(errno(a.ifindex, &FRAME[..13]), Some(libc::EINVAL));
        });
    }
}

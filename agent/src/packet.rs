//! Whole Ethernet frames out of a port, past every address and route: announcements after a failover.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

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
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let [.., high, low] = *frame
            .first_chunk::<ETHERNET_HEADER>()
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: all fields are integers or arrays of them; zero is a valid value for each.
        let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        // As the frame says, already in network order: classifiers and taps look at it.
        to.sll_protocol = u16::from_ne_bytes([high, low]);
        to.sll_ifindex = i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
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

//! A packet socket on one device: what comes in there, and a way out.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, bind, recvfrom, sendto, setsockopt, socket,
    sockopt,
};

/// Hears every frame that arrives at a device.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
    address: LinkAddr,
}

impl Tap {
    /// On the device with this index in the calling thread's namespace.
    pub fn open(index: u32) -> nix::Result<Tap> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        let address = all_frames_of(index);
        // Room for some thousand small frames between two readings.
        setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(Tap { socket, address })
    }

    /// Frames that arrived since the last time; those sent from here are none of them.
    pub fn drain(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                Ok((length, from)) if from.is_none_or(|from| packet_type(&from) != libc::PACKET_OUTGOING) => {
                    frames.push(buffer[..length].to_vec());
                }
                // ENETDOWN is told once when the device goes down, and what was heard before comes after it.
                Ok(_) | Err(Errno::ENETDOWN | Errno::EINTR) => {}
                Err(_) => return frames,
            }
        }
    }

    /// Sends a frame out of the device.
    pub fn send(&self, frame: &[u8]) -> nix::Result<()> {
        sendto(self.socket.as_raw_fd(), frame, &self.address, MsgFlags::empty()).map(drop)
    }
}

fn packet_type(address: &LinkAddr) -> u8 {
    let raw: &libc::sockaddr_ll = address.as_ref();
    raw.sll_pkttype
}

fn all_frames_of(index: u32) -> LinkAddr {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer is to a whole sockaddr_ll, whose length is the one given.
    let address = unsafe {
        LinkAddr::from_raw(
            (&raw const address).cast(),
            Some(size_of_val(&address) as libc::socklen_t),
        )
    };
    address.expect("the family is that of a packet address")
}

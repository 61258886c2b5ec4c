//! A packet socket that receives and sends on one device.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, bind, recvmsg, sendto,
    setsockopt, socket, sockopt,
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
        tell_tags(&socket)?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(Tap { socket, address })
    }

    /// Frames that arrived since the last time, with their VLAN tag; those sent from here are none of them.
    pub fn drain(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            match self.receive(&mut buffer) {
                Ok(frame) => frames.extend(frame),
                // ENETDOWN is reported once when the device goes down; frames received before follow it.
                Err(Errno::ENETDOWN | Errno::EINTR) => {}
                Err(_) => return frames,
            }
        }
    }

    /// The next frame; none if it was sent from here.
    fn receive(&self, buffer: &mut [u8]) -> nix::Result<Option<Vec<u8>>> {
        let mut told = nix::cmsg_space!([u8; AUXDATA]);
        let mut space = [IoSliceMut::new(buffer)];
        let received = recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut space, Some(&mut told), MsgFlags::empty())?;
        if received
            .address
            .is_some_and(|from| packet_type(&from) == libc::PACKET_OUTGOING)
        {
            return Ok(None);
        }
        let tag = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Unknown(message) => tag(&message.data_bytes),
            _ => None,
        });
        let mut frame: Vec<u8> = received.iovs().flatten().copied().collect();
        if let Some(tag) = tag.filter(|_| frame.len() > 12) {
            frame.splice(12..12, tag);
        }
        Ok(Some(frame))
    }

    /// Sends a frame out of the device.
    pub fn send(&self, frame: &[u8]) -> nix::Result<()> {
        sendto(self.socket.as_raw_fd(), frame, &self.address, MsgFlags::empty()).map(drop)
    }
}

/// The kernel removes the tag from a frame; from now on it reports the tag beside the frame.
fn tell_tags(socket: &OwnedFd) -> nix::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer is to a whole int, whose length is the one given, and outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_AUXDATA,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    Errno::result(done).map(drop)
}

/// The tag in a `struct tpacket_auxdata`, as it was in the frame.
fn tag(auxdata: &[u8]) -> Option<[u8; 4]> {
    let status = u32::from_ne_bytes(auxdata.get(..4)?.try_into().ok()?);
    let tci = u16::from_ne_bytes(auxdata.get(16..18)?.try_into().ok()?).to_be_bytes();
    (status & TP_STATUS_VLAN_VALID != 0).then_some([0x81, 0, tci[0], tci[1]])
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

/// Size of a `struct tpacket_auxdata`. [linux/if_packet.h]
const AUXDATA: usize = 20;
const PACKET_AUXDATA: libc::c_int = 8;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;

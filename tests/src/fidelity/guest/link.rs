//! Devices, made and changed over route netlink: no program is started, which is slow in the guest.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

/// A socket that acts in the namespace in which it was opened.
#[derive(Debug)]
pub struct Links {
    socket: OwnedFd,
}

/// One end of a cable to be.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Interface name.
    pub name: &'a str,
    /// Interface index.
    pub index: u32,
    /// Hardware address.
    pub mac: [u8; 6],
}

impl Links {
    /// In the calling thread's namespace.
    pub fn open() -> nix::Result<Links> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Links { socket })
    }

    /// A cable between this namespace and another; both ends down.
    ///
    /// The ends need different indexes: an end whose peer has the same one looks like a physical device, whose events the kernel
    /// holds back for up to a second. [link_watch.c: linkwatch_urgent_event]
    pub fn cable(&self, near: End<'_>, far: End<'_>, namespace: RawFd) -> nix::Result<()> {
        let peer = [
            header(far.index, 0, 0),
            name(far.name),
            mac(far.mac),
            attr(IFLA_NET_NS_FD, &namespace.to_ne_bytes()),
        ]
        .concat();
        let data = attr(VETH_INFO_PEER, &peer);
        let info = [attr(IFLA_INFO_KIND, b"veth\0"), attr(IFLA_INFO_DATA, &data)].concat();
        let body = [
            header(near.index, 0, 0),
            name(near.name),
            mac(near.mac),
            attr(IFLA_LINKINFO, &info),
        ]
        .concat();
        self.ask(libc::RTM_NEWLINK, (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16, &body)
    }

    /// Takes a device away.
    pub fn delete(&self, device: &str) -> nix::Result<()> {
        self.ask(libc::RTM_DELLINK, 0, &[header(0, 0, 0), name(device)].concat())
    }

    /// Sets a device up or down.
    pub fn admin(&self, device: &str, up: bool) -> nix::Result<()> {
        let flag = libc::IFF_UP as u32;
        let body = [header(0, if up { flag } else { 0 }, flag), name(device)].concat();
        self.ask(libc::RTM_SETLINK, 0, &body)
    }

    /// Changes a device's hardware address.
    pub fn set_mac(&self, device: &str, address: [u8; 6]) -> nix::Result<()> {
        self.ask(
            libc::RTM_SETLINK,
            0,
            &[header(0, 0, 0), name(device), mac(address)].concat(),
        )
    }

    /// Changes a device's MTU.
    pub fn set_mtu(&self, device: &str, mtu: u32) -> nix::Result<()> {
        let body = [header(0, 0, 0), name(device), attr(libc::IFLA_MTU, &mtu.to_ne_bytes())].concat();
        self.ask(libc::RTM_SETLINK, 0, &body)
    }

    /// One request and its acknowledgement.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> nix::Result<()> {
        let flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let length = (16 + body.len()) as u32;
        let head = [
            &length.to_ne_bytes()[..],
            &kind.to_ne_bytes(),
            &flags.to_ne_bytes(),
            &[0; 8],
        ]
        .concat();
        let message = [&head, body].concat();
        sendto(
            self.socket.as_raw_fd(),
            &message,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        let mut answer = [0; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let code = answer.get(16..20).filter(|_| length >= 20).ok_or(Errno::EBADMSG)?;
        match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
            0 => Ok(()),
            error => Err(Errno::from_raw(-error)),
        }
    }
}

/// `struct ifinfomsg`.
fn header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

fn name(device: &str) -> Vec<u8> {
    attr(libc::IFLA_IFNAME, &[device.as_bytes(), &[0]].concat())
}

fn mac(address: [u8; 6]) -> Vec<u8> {
    attr(libc::IFLA_ADDRESS, &address)
}

/// One attribute, padded to four bytes.
fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

const IFLA_LINKINFO: u16 = libc::IFLA_LINKINFO;
const IFLA_NET_NS_FD: u16 = libc::IFLA_NET_NS_FD;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

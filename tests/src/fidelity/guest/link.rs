//! Devices, made and changed over route netlink: no program is started, which is slow in the guest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

/// A socket that acts in the namespace in which it was opened.
#[derive(Debug)]
pub struct RouteSocket {
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

/// Targets of a bond of the kernel's driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// `arp_ip_target`.
    V4(Vec<Ipv4Addr>),
    /// `ns_ip6_target`.
    V6(Vec<Ipv6Addr>),
}

impl RouteSocket {
    /// In the calling thread's namespace.
    pub fn open() -> nix::Result<RouteSocket> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(RouteSocket { socket })
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
        let info = kind("veth", &attr(VETH_INFO_PEER, &peer));
        self.create(&[header(near.index, 0, 0), name(near.name), mac(near.mac), info].concat())
    }

    /// A cable with both ends here.
    pub fn patch(&self, one: End<'_>, other: End<'_>) -> nix::Result<()> {
        let peer = [header(other.index, 0, 0), name(other.name), mac(other.mac)].concat();
        let info = kind("veth", &attr(VETH_INFO_PEER, &peer));
        self.create(&[header(one.index, 0, 0), name(one.name), mac(one.mac), info].concat())
    }

    /// A learning bridge that floods every multicast frame; down.
    pub fn bridge(&self, bridge: End<'_>) -> nix::Result<()> {
        let info = kind("bridge", &attr(IFLA_BR_MCAST_SNOOPING, &[0]));
        self.create(&[header(bridge.index, 0, 0), name(bridge.name), mac(bridge.mac), info].concat())
    }

    /// A VLAN device above another; down. With index 0 the kernel chooses one.
    pub fn vlan(&self, device: &str, index: u32, below: u32, id: u16) -> nix::Result<()> {
        let info = kind("vlan", &attr(IFLA_VLAN_ID, &id.to_ne_bytes()));
        let below = attr(libc::IFLA_LINK, &below.to_ne_bytes());
        self.create(&[header(index, 0, 0), name(device), below, info].concat())
    }

    /// Makes a device a port of a bridge.
    pub fn join(&self, device: &str, bridge: u32) -> nix::Result<()> {
        let body = [
            header(0, 0, 0),
            name(device),
            attr(libc::IFLA_MASTER, &bridge.to_ne_bytes()),
        ]
        .concat();
        self.ask(libc::RTM_SETLINK, 0, &body)
    }

    /// Gives a device an address that is in use at once.
    pub fn add_address(&self, device: u32, address: IpAddr, prefix: u8) -> nix::Result<()> {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        self.ask(libc::RTM_NEWADDR, flags, &address_of(device, address, prefix))
    }

    /// Takes an address away from a device.
    pub fn delete_address(&self, device: u32, address: IpAddr, prefix: u8) -> nix::Result<()> {
        self.ask(libc::RTM_DELADDR, 0, &address_of(device, address, prefix))
    }

    /// Replaces a list of targets of the kernel's own bond, as iproute2 does.
    pub fn set_targets(&self, bond: &str, targets: &Targets) -> nix::Result<()> {
        let (option, list) = match targets {
            Targets::V4(list) => (
                IFLA_BOND_ARP_IP_TARGET,
                list.iter().map(|a| a.octets().to_vec()).collect(),
            ),
            Targets::V6(list) => (
                IFLA_BOND_NS_IP6_TARGET,
                list.iter().map(|a| a.octets().to_vec()).collect::<Vec<_>>(),
            ),
        };
        let nest: Vec<u8> = (0u16..)
            .zip(&list)
            .flat_map(|(slot, address)| attr(slot, address))
            .collect();
        let info = kind("bond", &attr(option | NESTED, &nest));
        self.ask(libc::RTM_NEWLINK, 0, &[header(0, 0, 0), name(bond), info].concat())
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

    fn create(&self, body: &[u8]) -> nix::Result<()> {
        self.ask(libc::RTM_NEWLINK, (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16, body)
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

/// What kind of device, with what only that kind has.
fn kind(kind: &str, data: &[u8]) -> Vec<u8> {
    let info = [
        attr(IFLA_INFO_KIND, &[kind.as_bytes(), &[0]].concat()),
        attr(IFLA_INFO_DATA | NESTED, data),
    ];
    attr(libc::IFLA_LINKINFO | NESTED, &info.concat())
}

/// `struct ifaddrmsg` with its address; duplicate address detection would keep it waiting.
fn address_of(device: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let head = [family as u8, prefix, libc::IFA_F_NODAD as u8, 0];
    let local = [attr(libc::IFA_LOCAL, &bytes), attr(libc::IFA_ADDRESS, &bytes)].concat();
    [&head[..], &device.to_ne_bytes(), &local].concat()
}

/// One attribute, padded to four bytes.
fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

const NESTED: u16 = libc::NLA_F_NESTED as u16;
const IFLA_NET_NS_FD: u16 = libc::IFLA_NET_NS_FD;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BOND_ARP_IP_TARGET: u16 = 8;
const IFLA_BOND_NS_IP6_TARGET: u16 = 31;

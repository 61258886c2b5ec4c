//! Link state by ioctl, for `use_carrier=0`, that is, drivers that do not keep the kernel's carrier flag. [bond_main.c:
//! bond_check_dev_link]

use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

use bond_monitors::Carrier;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Asks the driver by ETHTOOL_GLINK, else reads the PHY's registers. A device that is down or gone is `Off`. `None` if the
/// driver supports neither (the kernel's driver then counts the link as up).
pub fn carrier_by_ioctl(name: &str) -> Option<Carrier> {
    let Some(name) = interface_name(name) else {
        return Some(Carrier::Off);
    };
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    match ethtool_link(&socket, name) {
        Err(Errno::ENODEV) => return Some(Carrier::Off),
        Err(_) => {}
        Ok(up) => return Some(Carrier::from_bool(up)),
    }
    match is_up(&socket, name) {
        Ok(false) | Err(Errno::ENODEV) => return Some(Carrier::Off),
        _ => {}
    }
    bmsr(&socket, name)
        .ok()
        .map(|bits| Carrier::from_bool(bits & BMSR_LSTATUS != 0))
}

/// ETHTOOL_GLINK; the kernel answers 0 for a device that is down.
fn ethtool_link(socket: &OwnedFd, name: Name) -> nix::Result<bool> {
    let mut value = EthtoolValue {
        cmd: ETHTOOL_GLINK,
        data: 0,
    };
    let mut request = Request::new(
        name,
        Argument {
            pointer: &raw mut value,
        },
    );
    // SAFETY: the request is as large as `struct ifreq`, and its pointer leads to a `struct ethtool_value` that outlives it.
    unsafe { ioctl::ethtool(socket.as_raw_fd(), &mut request) }?;
    Ok(value.data != 0)
}

fn is_up(socket: &OwnedFd, name: Name) -> nix::Result<bool> {
    Ok(flags(socket, name)? & libc::IFF_UP != 0)
}

/// Those of these interfaces that are there and not running (IFF_RUNNING). Unlike a link request this does not wait for the
/// kernel's RTNL lock. [dev_ioctl.c: dev_ioctl, dev_ifsioc_locked]
pub fn not_running(interfaces: &[u32]) -> Vec<u32> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let Ok(socket) = socket else { return Vec::new() };
    let is_running =
        |ifindex: u32| Ok::<_, Errno>(flags(&socket, name_of(&socket, ifindex)?)? & libc::IFF_RUNNING != 0);
    let found = interfaces
        .iter()
        .copied()
        .filter(|ifindex| is_running(*ifindex) == Ok(false));
    found.collect()
}

fn flags(socket: &OwnedFd, name: Name) -> nix::Result<libc::c_int> {
    let mut request = Request::new(name, Argument { flags: 0 });
    // SAFETY: the request is as large as `struct ifreq`.
    unsafe { ioctl::flags(socket.as_raw_fd(), &mut request) }?;
    // SAFETY: SIOCGIFFLAGS has filled in `flags`; every bit pattern is a valid one.
    Ok(libc::c_int::from(unsafe { request.argument.flags }))
}

/// The name that an interface has now. A request by a name that is gone would have the kernel look for a module of that name.
fn name_of(socket: &OwnedFd, ifindex: u32) -> nix::Result<Name> {
    let ifindex = libc::c_int::try_from(ifindex).map_err(|_| Errno::ENODEV)?;
    let mut request = Request::new(Name::default(), Argument { ifindex });
    // SAFETY: the request is as large as `struct ifreq`.
    unsafe { ioctl::name(socket.as_raw_fd(), &mut request) }?;
    Ok(request.name)
}

/// The PHY's basic mode status register.
fn bmsr(socket: &OwnedFd, name: Name) -> nix::Result<u16> {
    let mut request = Request::new(
        name,
        Argument {
            mii: MiiData::default(),
        },
    );
    // SAFETY: the request is as large as `struct ifreq`; the kernel keeps `struct mii_ioctl_data` inside it.
    unsafe { ioctl::mii_phy(socket.as_raw_fd(), &mut request) }?;
    // SAFETY: `mii` was initialised above; every bit pattern is a valid one.
    let phy_id = unsafe { request.argument.mii }.phy_id;
    request.argument.mii = MiiData {
        phy_id,
        reg_num: MII_BMSR,
        ..MiiData::default()
    };
    // SAFETY: as above.
    unsafe { ioctl::mii_register(socket.as_raw_fd(), &mut request) }?;
    // SAFETY: as above.
    Ok(unsafe { request.argument.mii }.val_out)
}

/// Name in `struct ifreq`: padded with zeros, at least one.
type Name = [u8; libc::IFNAMSIZ];

fn interface_name(name: &str) -> Option<Name> {
    let mut padded = [0; libc::IFNAMSIZ];
    padded[..libc::IFNAMSIZ - 1]
        .get_mut(..name.len())?
        .copy_from_slice(name.as_bytes());
    Some(padded)
}

/// `struct ifreq` with the arguments in use here.
#[repr(C)]
struct Request {
    name: Name,
    argument: Argument,
}

impl Request {
    fn new(name: Name, argument: Argument) -> Self {
        const { assert!(mem::size_of::<Request>() == mem::size_of::<libc::ifreq>()) };
        Request { name, argument }
    }
}

#[repr(C)]
union Argument {
    pointer: *mut EthtoolValue,
    mii: MiiData,
    flags: libc::c_short,
    ifindex: libc::c_int,
    /// As large as the kernel's union.
    _size: libc::__c_anonymous_ifr_ifru,
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// `struct mii_ioctl_data`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct MiiData {
    phy_id: u16,
    reg_num: u16,
    val_in: u16,
    val_out: u16,
}

mod ioctl {
    use super::Request;

    nix::ioctl_readwrite_bad!(ethtool, libc::SIOCETHTOOL, Request);
    nix::ioctl_readwrite_bad!(name, libc::SIOCGIFNAME, Request);
    nix::ioctl_readwrite_bad!(flags, libc::SIOCGIFFLAGS, Request);
    nix::ioctl_readwrite_bad!(mii_phy, libc::SIOCGMIIPHY, Request);
    nix::ioctl_readwrite_bad!(mii_register, libc::SIOCGMIIREG, Request);
}

/// [ethtool.h]
const ETHTOOL_GLINK: u32 = 0x0000_000a;

/// Basic mode status register. [mii.h]
const MII_BMSR: u16 = 1;

/// Link status bit of it. [mii.h]
const BMSR_LSTATUS: u16 = 0x0004;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::netlink::RouteSocket;
    use crate::netlink::tests::{in_netns, ip};

    #[test]
    fn the_driver_tells_the_link_and_a_device_that_is_down_or_gone_has_none() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            links.add_veth("a", "b").unwrap();
            let a = links.by_name("a").unwrap().unwrap();
            let b = a.peer.unwrap();
            assert_eq!(carrier_by_ioctl("a"), Some(Carrier::Off), "down");
            links.set_up(a.ifindex, true).unwrap();
            assert_eq!(carrier_by_ioctl("a"), Some(Carrier::Off), "peer down");
            links.set_up(b, true).unwrap();
            assert_eq!(carrier_by_ioctl("a"), Some(Carrier::On));
            for name in ["nosuch", "", "a-name-that-is-too-long"] {
                assert_eq!(carrier_by_ioctl(name), Some(Carrier::Off), "{name}");
            }
        });
    }

    #[test]
    fn interfaces_that_are_not_running_are_found_by_index_under_any_name() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            links.add_veth("a", "b").unwrap();
            let a = links.by_name("a").unwrap().unwrap();
            let (a, b) = (a.ifindex, a.peer.unwrap());
            assert_eq!(not_running(&[a, b, 4711]), [a, b]);
            links.set_up(a, true).unwrap();
            links.set_up(b, true).unwrap();
            let deadline = Instant::now() + Duration::from_secs(10);
            while !links.by_index(a).unwrap().unwrap().is_running() {
                assert!(Instant::now() < deadline);
            }
            ip("link set dev a name renamed");
            assert!(not_running(&[a]).is_empty());
            links.set_up(b, false).unwrap();
            let deadline = Instant::now() + Duration::from_secs(10);
            while links.by_index(a).unwrap().unwrap().is_running() {
                assert!(Instant::now() < deadline);
            }
            assert_eq!(not_running(&[a]), [a]);
        });
    }

    #[test]
    fn a_name_leaves_room_for_the_terminating_zero() {
        assert_eq!(interface_name("exactly15bytes!"), Some(*b"exactly15bytes!\0"));
        assert_eq!(interface_name("sixteen bytes..."), None);
    }
}

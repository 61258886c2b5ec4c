//! The kernel's route to an address.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia};

use super::link::RouteSocket;

/// The kernel's choice for one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Interface index of the device it leaves by; the loopback device if `local`.
    pub ifindex: u32,
    /// The router, which may have an IPv6 address also for an IPv4 route; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that the kernel would use: the route's own (RTA_PREFSRC), else one of the device. `None` if the
    /// device has no address, or only a tentative IPv6 address.
    pub source: Option<IpAddr>,
    /// The destination is an address of this host.
    pub local: bool,
}

impl RouteSocket {
    /// The route to a destination, independent of sockets, marks and interfaces. `None` if the kernel would refuse to send:
    /// there is no route, or one of the types unreachable, blackhole and prohibit.
    ///
    /// A route over a device without carrier counts, as long as the device is administratively up, unless
    /// `ignore_routes_with_linkdown` is set for the device. A link-local IPv6 destination is on every link; the answer names
    /// any one of them.
    pub fn route(&mut self, to: IpAddr) -> io::Result<Option<Route>> {
        let answer = self.ask(|handle| {
            let replies = handle.route().get(question(to)).execute();
            async move { std::pin::pin!(replies).try_next().await }
        });
        match answer {
            Ok(Some(message)) => Ok(parse(&message)),
            // A missing answer must not count as "no route".
            Ok(None) => Err(Errno::EPROTO.into()),
            Err(error) if error.raw_os_error().is_some_and(|errno| NO_WAY.contains(&errno)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn question(to: IpAddr) -> RouteMessage {
    let (family, bits) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.destination_prefix_length = bits;
    message.attributes.push(RouteAttribute::Destination(to.into()));
    message
}

/// Parses a route message. `None` for the types that refuse to send, with which some kernels answer instead of an error.
fn parse(message: &RouteMessage) -> Option<Route> {
    use RouteType::{BlackHole, Prohibit, Unreachable};
    if matches!(message.header.kind, Unreachable | BlackHole | Prohibit) {
        return None;
    }
    let (mut ifindex, mut gateway, mut source) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(router) => gateway = ip(router),
            RouteAttribute::Via(RouteVia::Inet(router)) => gateway = Some(IpAddr::V4(*router)),
            RouteAttribute::Via(RouteVia::Inet6(router)) => gateway = Some(IpAddr::V6(*router)),
            RouteAttribute::PrefSource(own) => source = ip(own),
            _ => {}
        }
    }
    Some(Route {
        ifindex: ifindex?,
        gateway,
        source,
        local: message.header.kind == RouteType::Local,
    })
}

/// The address, unless it is the unspecified one.
fn ip(address: &RouteAddress) -> Option<IpAddr> {
    let ip = match address {
        RouteAddress::Inet(ip) => IpAddr::V4(*ip),
        RouteAddress::Inet6(ip) => IpAddr::V6(*ip),
        _ => return None,
    };
    (!ip.is_unspecified()).then_some(ip)
}

/// Errors with which the kernel refuses to send: no route, and the types unreachable, blackhole, prohibit in this order
/// [fib_semantics.c:
/// fib_props]; last, an unknown family. [rtnetlink.c: rtnetlink_rcv_msg]
const NO_WAY: [i32; 5] = [
    libc::ENETUNREACH,
    libc::EHOSTUNREACH,
    libc::EINVAL,
    libc::EACCES,
    libc::EOPNOTSUPP,
];

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::netlink::Address;
    use crate::netlink::Link;
    use crate::netlink::events::tests::read_until;
    use crate::netlink::tests::{in_netns, ip as command};
    use crate::netlink::{Events, LinkEvent};

    /// Makes a veth pair, both ends up, with these addresses on the near end, and returns both.
    fn pair(links: &mut RouteSocket) -> (Link, Link) {
        let mut events = Events::open().unwrap();
        command("link add eth0 type veth peer name eth1");
        command("link set eth0 up");
        command("link set eth1 up");
        let near = links.by_name("eth0").unwrap().unwrap();
        read_until(&mut events, |event| in_service(event, near.ifindex) == Some(true));
        command("addr add 10.0.0.1/24 dev eth0");
        command("addr add fd00::1/64 dev eth0 nodad");
        let own: IpAddr = "fd00::1".parse().unwrap();
        let is_own = |(ifindex, address): &(u32, Address)| *ifindex == near.ifindex && address.ip == own;
        let ifindex = near.ifindex;
        // A worker of the kernel makes it usable.
        while !links.addresses().unwrap().iter().any(is_own) {
            read_until(
                &mut events,
                |event| matches!(event, LinkEvent::Address { ifindex: at, .. } if *at == ifindex),
            );
        }
        (near, links.by_name("eth1").unwrap().unwrap())
    }

    fn in_service(event: &LinkEvent, ifindex: u32) -> Option<bool> {
        match event {
            LinkEvent::Link(link) if link.ifindex == ifindex => Some(link.in_service && link.report.carrier.is_on()),
            _ => None,
        }
    }

    fn route(links: &mut RouteSocket, to: &str) -> Option<Route> {
        links.route(to.parse().unwrap()).unwrap()
    }

    fn addr(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_destination_on_the_link_has_no_gateway_and_one_behind_it_has() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            let ifindex = pair(&mut links).0.ifindex;
            command("route add 192.0.2.0/24 via 10.0.0.254");
            command("route add 198.51.100.0/24 via inet6 fd00::254");
            command("route add fd99::/64 via fd00::254");
            for (to, gateway, source) in [
                ("10.0.0.2", None, "10.0.0.1"),
                ("10.0.0.255", None, "10.0.0.1"),
                ("192.0.2.1", addr("10.0.0.254"), "10.0.0.1"),
                ("198.51.100.1", addr("fd00::254"), "10.0.0.1"),
                ("fd00::2", None, "fd00::1"),
                ("fd99::1", addr("fd00::254"), "fd00::1"),
            ] {
                let expected = Route {
                    ifindex,
                    gateway,
                    source: addr(source),
                    local: false,
                };
                assert_eq!(route(&mut links, to), Some(expected), "{to}");
            }
        });
    }

    #[test]
    fn a_route_has_its_preferred_source() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            pair(&mut links);
            command("addr add 10.9.9.9/32 dev eth0");
            command("route add 192.0.2.0/24 via 10.0.0.254 src 10.9.9.9");
            assert_eq!(route(&mut links, "192.0.2.1").unwrap().source, addr("10.9.9.9"));
            command("addr flush dev eth0");
            command("route add 192.0.2.0/24 dev eth0");
            assert_eq!(
                route(&mut links, "192.0.2.1").unwrap().source,
                None,
                "no address at all"
            );
        });
    }

    #[test]
    fn an_own_address_is_local() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            pair(&mut links);
            links.set_up(1, true).unwrap();
            for to in ["10.0.0.1", "fd00::1", "127.0.0.1"] {
                let deadline = Instant::now() + Duration::from_secs(10);
                let found = loop {
                    let found = route(&mut links, to).unwrap();
                    // The kernel enters the route of an address a moment after it tells of the address.
                    if found.local || Instant::now() > deadline {
                        break found;
                    }
                };
                assert!(found.local && found.gateway.is_none(), "{to} {found:?}");
            }
        });
    }

    #[test]
    fn where_the_kernel_would_not_send_there_is_no_route() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            pair(&mut links);
            for kind in ["blackhole", "unreachable", "prohibit", "throw"] {
                command(&format!("route add {kind} 10.1.0.0/16"));
                command(&format!("route add {kind} fd01::/16"));
                for to in ["10.1.2.3", "fd01::1"] {
                    assert_eq!(route(&mut links, to), None, "{kind} {to}");
                }
                command("route del 10.1.0.0/16");
                command("route del fd01::/16");
            }
            for to in ["203.0.113.1", "2001:db8::1"] {
                assert_eq!(route(&mut links, to), None, "{to}");
            }
        });
    }

    #[test]
    fn a_route_over_a_device_without_carrier_answers_unless_it_is_to_be_ignored() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            let (near, far) = pair(&mut links);
            // Earlier events were about a device that was not in service yet.
            let mut events = Events::open().unwrap();
            links.set_up(far.ifindex, false).unwrap();
            read_until(&mut events, |event| in_service(event, near.ifindex) == Some(false));
            for (to, source) in [("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")] {
                let route = route(&mut links, to).unwrap();
                assert_eq!((route.ifindex, route.source), (near.ifindex, addr(source)), "{to}");
            }
            for family in ["ipv4", "ipv6"] {
                let switch = format!("/proc/sys/net/{family}/conf/eth0/ignore_routes_with_linkdown");
                std::fs::write(switch, "1").unwrap();
            }
            for to in ["10.0.0.2", "fd00::2"] {
                assert_eq!(route(&mut links, to), None, "{to}");
            }
            links.set_up(near.ifindex, false).unwrap();
            assert_eq!(route(&mut links, "10.0.0.2"), None, "down");
        });
    }

    #[test]
    fn an_answer_of_a_refusing_type_is_no_route() {
        let mut message = RouteMessage::default();
        message.attributes = vec![RouteAttribute::Oif(1)];
        message.header.kind = RouteType::Unicast;
        assert!(parse(&message).is_some());
        for kind in [RouteType::BlackHole, RouteType::Unreachable, RouteType::Prohibit] {
            message.header.kind = kind;
            assert_eq!(parse(&message), None, "{kind:?}");
        }
    }
}

//! Devices above a bond and hosts behind them: addresses to announce, paths to targets, hosts behind bridges, multicast
//! memberships.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bond_modes::{Event, HostBehind, LocalAddress, Reach, TargetPath};
use bond_monitors::Time;
use bond_monitors::wire::ethernet::Tag;
use bond_monitors::wire::{igmp, mld};

use super::Instances;
use super::id::InstanceId;
use super::logged_failures::Subject;
use crate::netlink::groups::memberships;
use crate::netlink::{Link, Memberships, RouteSocket, sysctl};

impl Instances {
    /// Gives a bond the addresses on it and above it: its own, those of its VLANs, that of its bridge.
    /// [bond_main.c: bond_peer_notify_work raises NETDEV_NOTIFY_PEERS, which VLANs and bridges pass on]
    pub(super) fn refresh_addresses(&mut self, now: Time, at: InstanceId) {
        let Some(instance) = self.bonds.get(at) else { return };
        let above = self.host.above(instance.ifindex, passes_on);
        let Some((bond, _)) = above.first() else { return };
        let found = above.iter().flat_map(|(link, tags)| {
            let own = self.host.addresses(link.ifindex);
            own.map(|ip| local_address(link, tags, bond, ip))
        });
        let mut found: Vec<LocalAddress> = found.collect();
        found.sort();
        let announced = above.iter().map(|(link, _)| link.ifindex).collect();
        self.bonds[at].announced = announced;
        self.feed(now, at, Event::Addresses { addresses: found });
    }

    /// How targets are reached, by the routing table. [bond_main.c: bond_arp_send_all, bond_ns_send_all]
    ///
    /// `None` if the kernel cannot be asked: the known paths stay.
    pub(super) fn find_paths(&mut self, at: InstanceId, targets: &[IpAddr]) -> Option<Event> {
        let found = self.paths(self.bonds[at].ifindex, targets);
        let instance = &mut self.bonds[at];
        let doing = "find out how targets are reached";
        let paths = instance
            .failures
            .record(&instance.name, Subject::Bond, doing, found)??;
        Some(Event::Paths { paths })
    }

    /// `None` if the bond's interface is gone.
    fn paths(&mut self, bond: u32, targets: &[IpAddr]) -> io::Result<Option<Vec<TargetPath>>> {
        let above = self.host.above(bond, |_| true);
        if above.is_empty() {
            return Ok(None);
        }
        let mut paths = Vec::new();
        for &target in targets {
            let route = match is_link_local(target) {
                true => None,
                false => self.links.route(target)?,
            };
            let reach = match route {
                None if is_link_local(target) => through(self.host.addresses(bond).find(|ip| is_link_local(*ip)), &[]),
                // As if there were no route: the target may be a neighbour all the same.
                None => through(None, &[]),
                Some(route) if target.is_ipv4() && route.gateway.is_some() => through(None, &[]),
                Some(route) => match above.iter().find(|(link, _)| link.ifindex == route.ifindex) {
                    Some((link, tags)) => through(
                        route
                            .source
                            .filter(|ip| self.host.addresses(link.ifindex).any(|own| own == *ip)),
                        tags,
                    ),
                    None => Reach::Elsewhere {
                        device: self.name_of(route.ifindex),
                    },
                },
            };
            paths.push(TargetPath { target, reach });
        }
        Ok(Some(paths))
    }

    /// Asks for the hosts behind the bond: those that a bridge above it has learned on its other ports, and devices above with an
    /// address of their own.
    pub(super) fn ask_hosts_behind(&mut self, at: InstanceId) {
        let Some(instance) = self.bonds.get(at) else { return };
        let is_bridge = |master: &u32| {
            let master = self.host.link(*master);
            master.is_some_and(|link| link.kind.as_deref() == Some("bridge"))
        };
        let above = self.host.above(instance.ifindex, passes_on).into_iter();
        let above: Vec<(u32, Option<u32>, Vec<Tag>)> = above
            .map(|(link, tags)| (link.ifindex, link.master.filter(is_bridge), tags))
            .collect();
        self.threads.kernel.ask(move |kernel| {
            let hosts = above
                .iter()
                .flat_map(|(link, bridge, tags)| hosts_behind(&mut kernel.links, *link, *bridge, tags));
            let hosts: BTreeSet<HostBehind> = hosts.collect();
            Box::new(move |instances, now| {
                if instances.bonds.get(at).is_some() {
                    let hosts = hosts.into_iter().collect();
                    instances.feed(now, at, Event::HostsBehind { hosts });
                }
            })
        });
    }

    /// Reports of every multicast group that this host has joined on the bond or above it.
    pub(super) fn membership_reports(&self, at: InstanceId) -> Vec<Vec<u8>> {
        let Some(instance) = self.bonds.get(at) else {
            return Vec::new();
        };
        let above = self.host.above(instance.ifindex, passes_on).into_iter();
        above
            .flat_map(|(link, tags)| {
                let own: Vec<IpAddr> = self.host.addresses(link.ifindex).collect();
                reports_of(link, &tags, &own)
            })
            .collect()
    }

    fn name_of(&self, ifindex: u32) -> String {
        let link = self.host.link(ifindex);
        link.map_or_else(|| format!("interface {ifindex}"), |link| link.report.name.clone())
    }
}

/// Hosts behind one interface, which may be a port of a bridge.
fn hosts_behind(links: &mut RouteSocket, link: u32, bridge: Option<u32>, tags: &[Tag]) -> Vec<HostBehind> {
    let learned = bridge.map(|bridge| links.hosts_behind(link, bridge).unwrap_or_default());
    let learned = learned.into_iter().flatten().map(|host| HostBehind {
        mac: host.mac,
        tags: tags.iter().copied().chain(host.tag).collect(),
    });
    let own = links.unicast_addresses(link).unwrap_or_default().into_iter();
    let own = own.map(|mac| HostBehind {
        mac,
        tags: tags.to_vec(),
    });
    learned.chain(own).collect()
}

/// Whether announcements for the bond also cover this device above it: a VLAN or a bridge. The addresses of a tunnel belong to
/// another network.
fn passes_on(link: &Link) -> bool {
    link.vlan.is_some() || link.kind.as_deref() == Some("bridge")
}

fn through(source: Option<IpAddr>, tags: &[Tag]) -> Reach {
    Reach::Through {
        source,
        tags: tags.to_vec(),
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn local_address(link: &Link, tags: &[Tag], bond: &Link, ip: IpAddr) -> LocalAddress {
    LocalAddress {
        ip,
        mac: (link.report.mac != bond.report.mac).then_some(link.report.mac),
        tags: tags.to_vec(),
        router: sysctl::forwarding(&link.report.name, ip.is_ipv6()),
    }
}

/// One interface's reports, in the versions of IGMP and MLD that it speaks.
fn reports_of(link: &Link, tags: &[Tag], own: &[IpAddr]) -> Vec<Vec<u8>> {
    let found = memberships(link.ifindex, &link.report.name).unwrap_or_else(|error| {
        log::warn!("{}: cannot read its multicast groups: {error}", link.report.name);
        Memberships::default()
    });
    let (mac, mtu) = (link.report.mac, link.report.mtu);
    let mut v4 = own.iter().filter_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    let source = v4.next().unwrap_or(Ipv4Addr::UNSPECIFIED);
    let mut frames = match found.igmp_version {
        2 => found
            .v4
            .iter()
            .map(|record| igmp::v2(mac, source, record.group, tags))
            .collect(),
        _ => igmp::v3(mac, source, &found.v4, mtu, tags),
    };
    // A report needs a source of the link itself. [RFC 3810 5.2.13]
    let mut v6 = own.iter().filter_map(|ip| match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(*ip),
        _ => None,
    });
    let source = v6.next().unwrap_or(Ipv6Addr::UNSPECIFIED);
    frames.extend::<Vec<_>>(match found.mld_version {
        1 => found
            .v6
            .iter()
            .map(|record| mld::v1(mac, source, record.group, tags))
            .collect(),
        _ => mld::v2(mac, source, &found.v6, mtu, tags),
    });
    frames
}

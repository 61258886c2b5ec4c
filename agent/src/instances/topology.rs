//! Devices above a bond and hosts behind them: addresses to announce, paths to targets, hosts behind bridges.

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use bond_modes::{Event, HostBehind, LocalAddress, Reach, TargetPath};
use bond_monitors::Time;
use bond_monitors::wire::ethernet::Tag;

use super::Instances;
use super::id::InstanceId;
use super::logged_failures::Subject;
use crate::netlink::{Link, RouteSocket, sysctl};

impl Instances {
    /// Gives a bond the addresses on it and above it: its own, those of its VLANs, that of its bridge.
    /// [bond_main.c: bond_peer_notify_work raises NETDEV_NOTIFY_PEERS, which VLANs and bridges pass on]
    pub(super) fn refresh_addresses(&mut self, now: Time, at: InstanceId) {
        let Some(instance) = self.bonds.get(at) else { return };
        let above = self.host.above(instance.ifindex, passes_on);
        let Some((bond, _)) = above.first() else { return };
        let found = above.iter().flat_map(|(link, tags)| {
            // One file for an interface, and none without IPv6: there may be hundreds of interfaces with some addresses each.
            let routes = LazyCell::new(|| sysctl::forwarding(&link.report.name));
            let own = self.host.addresses(link.ifindex);
            own.map(move |ip| local_address(link, tags, bond, ip, ip.is_ipv6() && *routes))
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
                false => self.routes.route(target)?,
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

    /// Asks for the hosts behind bonds that asked for them: those that a bridge above has learned on its other ports, and devices
    /// above with an address of their own.
    pub(super) fn ask_hosts_behind(&mut self) {
        let Some(asked) = self.hosts_behind.begin() else { return };
        let asked: Vec<(InstanceId, Vec<Above>)> = asked.into_iter().map(|at| (at, self.above_bond(at))).collect();
        self.threads.kernel.ask(move |kernel| {
            let mut behind = |(at, above): (InstanceId, Vec<Above>)| (at, Behind::read(&mut kernel.links, &above));
            let found: Vec<(InstanceId, Behind)> = asked.into_iter().map(&mut behind).collect();
            Box::new(move |instances, now| {
                instances.hosts_behind.end();
                for (at, behind) in found {
                    instances.on_hosts_behind(now, at, behind);
                }
            })
        });
    }

    fn on_hosts_behind(&mut self, now: Time, at: InstanceId, behind: Behind) {
        if self.bonds.get(at).is_none() {
            return;
        }
        let instance = &mut self.bonds[at];
        let doing = "find all hosts behind it";
        instance
            .failures
            .record(&instance.name, Subject::Bond, doing, behind.whole);
        let hosts = behind.hosts.into_iter().collect();
        self.feed(now, at, Event::HostsBehind { hosts });
    }

    fn above_bond(&self, at: InstanceId) -> Vec<Above> {
        let Some(instance) = self.bonds.get(at) else {
            return Vec::new();
        };
        let is_bridge = |master: &u32| {
            let master = self.host.link(*master);
            master.is_some_and(|link| link.kind.as_deref() == Some("bridge"))
        };
        let above = self.host.above(instance.ifindex, passes_on).into_iter();
        let above = above.map(|(link, tags)| Above {
            link: link.ifindex,
            bridge: link.master.filter(is_bridge),
            tags,
        });
        above.collect()
    }

    pub(super) fn name_of(&self, ifindex: u32) -> String {
        let link = self.host.link(ifindex);
        link.map_or_else(|| format!("interface {ifindex}"), |link| link.report.name.clone())
    }
}

/// Hosts behind a bond.
struct Behind {
    /// Those that were found.
    hosts: BTreeSet<HostBehind>,
    /// Why there may be more.
    whole: io::Result<()>,
}

impl Behind {
    fn read(links: &mut RouteSocket, above: &[Above]) -> Behind {
        let mut behind = Behind {
            hosts: BTreeSet::new(),
            whole: Ok(()),
        };
        for above in above {
            match above.hosts(links) {
                Ok(hosts) => behind.hosts.extend(hosts),
                Err(error) => behind.whole = Err(error),
            }
        }
        behind
    }
}

/// An interface on or above a bond.
struct Above {
    link: u32,
    /// It is a port of that bridge.
    bridge: Option<u32>,
    /// Of its frames on the wire.
    tags: Vec<Tag>,
}

impl Above {
    /// The hosts behind it.
    fn hosts(&self, links: &mut RouteSocket) -> io::Result<Vec<HostBehind>> {
        let learned = match self.bridge {
            Some(bridge) => links.hosts_behind(self.link, bridge)?,
            None => Vec::new(),
        };
        let learned = learned.into_iter().map(|host| HostBehind {
            mac: host.mac,
            tags: self.tags.iter().copied().chain(host.tag).collect(),
        });
        let own = links.unicast_addresses(self.link)?.into_iter();
        let own = own.map(|mac| HostBehind {
            mac,
            tags: self.tags.clone(),
        });
        Ok(learned.chain(own).collect())
    }
}

/// Whether announcements for the bond also cover this device above it: a VLAN or a bridge. The addresses of a tunnel belong to
/// another network.
pub(super) fn passes_on(link: &Link) -> bool {
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

fn local_address(link: &Link, tags: &[Tag], bond: &Link, ip: IpAddr, router: bool) -> LocalAddress {
    LocalAddress {
        ip,
        mac: (link.report.mac != bond.report.mac).then_some(link.report.mac),
        tags: tags.to_vec(),
        router,
    }
}

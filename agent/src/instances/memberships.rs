//! Reports of multicast memberships, through the port that carries a bond's traffic now: switches and routers send groups only
//! where somebody has reported them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bond_modes::PortId;
use bond_monitors::wire::ethernet::Tag;
use bond_monitors::wire::{igmp, mld};

use super::Instances;
use super::id::InstanceId;
use super::topology::passes_on;
use crate::netlink::{Groups, Link};

impl Instances {
    /// Has the reports made that bonds asked for. All of them need the same files, which list the groups of every
    /// interface, so one reading serves them all.
    pub(super) fn ask_reports(&mut self) {
        let Some(wanted) = self.reports.begin() else { return };
        let wanted = wanted.into_iter();
        let wanted: Vec<(InstanceId, PortId, Vec<Member>)> =
            wanted.map(|(at, port)| (at, port, self.members(at))).collect();
        self.threads.reader.ask(move |reader| {
            let members = wanted.iter().flat_map(|(_, _, members)| members);
            let interfaces = members.map(|member| member.link.ifindex).collect();
            let read = || {
                let groups = Groups::read(&interfaces).unwrap_or_else(|error| {
                    log::warn!("cannot read the multicast groups of this host, they are not reported: {error}");
                    Groups::default()
                });
                let reports =
                    |members: Vec<Member>| members.iter().flat_map(|member| member.reports(&groups)).collect();
                let made = wanted
                    .into_iter()
                    .map(|(at, port, members)| (at, port, reports(members)));
                made.collect::<Vec<(InstanceId, PortId, Vec<Vec<u8>>)>>()
            };
            let made = reader.read(read);
            Box::new(move |instances, _| {
                instances.reports.end();
                for (at, port, reports) in made {
                    // A frame with the bond's address must not leave where its traffic does not.
                    let sends = instances
                        .bonds
                        .get(at)
                        .is_some_and(|instance| instance.bond.plan().tx.ports.contains(&port));
                    if sends {
                        instances.send(at, reports.into_iter().map(|frame| (port.0, frame)).collect());
                    }
                }
            })
        });
    }

    /// The interfaces on and above a bond.
    fn members(&self, at: InstanceId) -> Vec<Member> {
        let Some(instance) = self.bonds.get(at) else {
            return Vec::new();
        };
        let above = self.host.above(instance.ifindex, passes_on).into_iter();
        let member = |(link, tags): (&Link, Vec<Tag>)| Member {
            link: link.clone(),
            tags,
            own: self.host.addresses(link.ifindex).collect(),
        };
        above.map(member).collect()
    }
}

/// An interface that may have joined groups.
struct Member {
    link: Link,
    /// Of its frames on the wire.
    tags: Vec<Tag>,
    /// Its addresses.
    own: Vec<IpAddr>,
}

impl Member {
    /// Its reports, in the versions of IGMP and MLD that it speaks.
    fn reports(&self, groups: &Groups) -> Vec<Vec<u8>> {
        let Member { link, tags, own } = self;
        let found = groups.of(link.ifindex, &link.report.name);
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
}

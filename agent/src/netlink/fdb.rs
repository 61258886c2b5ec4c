//! Addresses that a device stands for besides its own: the hosts behind a bridge, and devices that share its link.
//!
//! Both stand in the neighbour dump of family AF_BRIDGE. The kernel narrows it down to one bridge or one device where it can
//! (strict checking, since 4.20); older ones send all of it, so everything is checked again here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bond_monitors::MacAddr;
use bond_monitors::wire::ethernet::Tag;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    AfSpecBridge, BridgeVlanInfoFlags, InfoBridge, InfoData, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage,
    VlanProtocol,
};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};

use super::link::RouteSocket;

/// A host behind a bridge, as seen from one of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LearnedHost {
    /// Its address.
    pub mac: MacAddr,
    /// The tag that its frames bear when they leave the port; `None` if they leave without one.
    pub tag: Option<Tag>,
}

impl RouteSocket {
    /// The unicast addresses that a bridge has learned on, or has as static entries on, other ports than `bridge_port`; not
    /// those of the ports and of the bridge themselves. Sorted, each once per VLAN.
    ///
    /// On a bridge with `vlan_filtering`, hosts in VLANs that `bridge_port` is no member of are left out: their frames never
    /// leave by it. Empty if the bridge is gone.
    pub fn hosts_behind(&mut self, bridge_port: u32, bridge: u32) -> io::Result<Vec<LearnedHost>> {
        let egress = self.egress(bridge_port, bridge)?;
        let mut question = question();
        question.attributes.push(NeighbourAttribute::Controller(bridge));
        match self.neighbours(question) {
            Ok(entries) => Ok(learned_hosts(&entries, bridge_port, bridge, &egress)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The secondary unicast addresses on which a device listens for its uppers, such as those of macvlans; not its own, no
    /// groups. Sorted, each once; empty if the device is gone.
    pub fn unicast_addresses(&mut self, ifindex: u32) -> io::Result<Vec<MacAddr>> {
        let Some(link) = self.by_index(ifindex)? else {
            return Ok(Vec::new());
        };
        let mut question = question();
        question.header.ifindex = ifindex;
        Ok(unicast_addresses(&self.neighbours(question)?, ifindex, link.report.mac))
    }

    fn neighbours(&mut self, question: NeighbourMessage) -> io::Result<Vec<NeighbourMessage>> {
        self.ask(|handle| {
            let mut request = handle.neighbours().get();
            *request.message_mut() = question;
            request.execute().try_collect()
        })
    }

    fn egress(&mut self, port: u32, bridge: u32) -> io::Result<Egress> {
        let found = self.describe(|handle| handle.link().get().match_index(bridge))?;
        let Some(tag) = found.as_ref().and_then(tagging) else {
            return Ok(Egress::Untagged);
        };
        // This family answers for all ports of all bridges or not at all. [rtnetlink.c: valid_bridge_getlink_req]
        let ports: Vec<LinkMessage> = self.ask(|handle| {
            let ranges = vec![LinkExtentMask::BrvlanCompressed];
            let request = handle.link().get().set_filter_mask(AddressFamily::Bridge, ranges);
            request.execute().try_collect()
        })?;
        let port = ports.iter().find(|message| message.header.index == port);
        Ok(Egress::PerVlan(
            port.map(|port| memberships(port, tag)).unwrap_or_default(),
        ))
    }
}

/// How frames leave a bridge port.
#[derive(Debug, PartialEq, Eq)]
enum Egress {
    /// The bridge does not look at tags.
    Untagged,
    /// It does; for each VLAN of the port, the tag.
    PerVlan(BTreeMap<u16, Option<Tag>>),
}

impl Egress {
    /// The tag on a frame of that VLAN; `None` if no such frame leaves. An entry without a VLAN is dead while the bridge looks
    /// at tags: then every frame belongs to one.
    fn tag(&self, vlan: Option<u16>) -> Option<Option<Tag>> {
        match self {
            Egress::Untagged => Some(None),
            Egress::PerVlan(members) => members.get(&vlan?).copied(),
        }
    }
}

fn question() -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message
}

fn learned_hosts(entries: &[NeighbourMessage], port: u32, bridge: u32, egress: &Egress) -> Vec<LearnedHost> {
    let host = |message: &NeighbourMessage| {
        let entry = Entry::read(message)?;
        // The permanent ones are the ports' own. [br_fdb.c: fdb_to_nud]
        let elsewhere = entry.bridge == Some(bridge)
            && ![port, bridge].contains(&message.header.ifindex)
            && message.header.state != NeighbourState::Permanent;
        let tag = egress.tag(entry.vlan)?;
        elsewhere.then_some(LearnedHost { mac: entry.mac, tag })
    };
    entries
        .iter()
        .filter_map(host)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn unicast_addresses(entries: &[NeighbourMessage], ifindex: u32, own: MacAddr) -> Vec<MacAddr> {
    let secondary = |message: &NeighbourMessage| {
        let header = &message.header;
        let listened_to = header.ifindex == ifindex
            && header.flags.contains(NeighbourFlags::Own)
            && header.state == NeighbourState::Permanent;
        let mac = Entry::read(message)?.mac;
        (listened_to && mac != own).then_some(mac)
    };
    entries
        .iter()
        .filter_map(secondary)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// A unicast address in the dump.
struct Entry {
    mac: MacAddr,
    vlan: Option<u16>,
    bridge: Option<u32>,
}

impl Entry {
    fn read(message: &NeighbourMessage) -> Option<Entry> {
        let (mut mac, mut vlan, mut bridge) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().map(MacAddr).ok(),
                NeighbourAttribute::Vlan(id) => vlan = Some(*id),
                NeighbourAttribute::Controller(index) => bridge = Some(*index),
                _ => {}
            }
        }
        let mac = mac.filter(|mac| mac.is_valid_unicast())?;
        Some(Entry { mac, vlan, bridge })
    }
}

/// The kind of tag that belongs to an id on a bridge with `vlan_filtering` on, by its `vlan_protocol`; a kernel without the
/// feature mentions neither.
fn tagging(bridge: &LinkMessage) -> Option<fn(u16) -> Tag> {
    let infos = bridge.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let data = infos.flatten().filter_map(|info| match info {
        LinkInfo::Data(InfoData::Bridge(data)) => Some(data),
        _ => None,
    });
    let data: Vec<&InfoBridge> = data.flatten().collect();
    let service = data.contains(&&InfoBridge::VlanProtocol(VlanProtocol::Ieee8021Ad));
    let tag = if service { Tag::s } else { Tag::c };
    data.contains(&&InfoBridge::VlanFiltering(true)).then_some(tag)
}

/// The VLANs of a bridge port, each with the tag on its frames. The kernel reports equal neighbours as a range: the first, with
/// a flag, and the last, with another. [br_netlink.c: br_fill_ifvlaninfo_range]
fn memberships(port: &LinkMessage, tag: fn(u16) -> Tag) -> BTreeMap<u16, Option<Tag>> {
    let mut members = BTreeMap::new();
    let mut first = None;
    let specs = port.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::AfSpecBridge(specs) => Some(specs),
        _ => None,
    });
    for spec in specs.flatten() {
        let AfSpecBridge::VlanInfo(info) = spec else { continue };
        if info.flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            first = Some(info.vid);
            continue;
        }
        let tagged = !info.flags.contains(BridgeVlanInfoFlags::Untagged);
        let range = first.take().unwrap_or(info.vid)..=info.vid;
        members.extend(range.map(|id| (id, tagged.then(|| tag(id)))));
    }
    members
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::fs;

    use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
    use rtnetlink::packet_route::RouteNetlinkMessage;

    use super::*;
    use crate::netlink::message::tests::from_hex;
    use crate::netlink::tests::{in_netns, ip, run};

    fn host(mac: [u8; 2], vlan: Option<u16>) -> LearnedHost {
        let [high, low] = mac;
        LearnedHost {
            mac: MacAddr([2, 0, 0, 0, high, low]),
            tag: vlan.map(Tag::c),
        }
    }

    fn index(links: &mut RouteSocket, name: &str) -> u32 {
        links.by_name(name).unwrap().unwrap().ifindex
    }

    /// A bridge with the ports p0, p1 and p2; gives its index and theirs.
    fn bridge(links: &mut RouteSocket, options: &str) -> (u32, [u32; 3]) {
        ip(&format!("link add br0 type bridge{options}"));
        for port in ["p0", "p1", "p2"] {
            ip(&format!("link add {port} type veth peer name far-{port}"));
            ip(&format!("link set {port} master br0 up"));
        }
        (index(links, "br0"), ["p0", "p1", "p2"].map(|port| index(links, port)))
    }

    #[test]
    fn hosts_behind_the_other_ports_are_listed_once_and_sorted() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            let (br0, [p0, p1, _]) = bridge(&mut links, "");
            ip("link add br1 type bridge");
            ip("link add x0 type veth peer name x1");
            ip("link set x0 master br1 up");
            run("bridge", "fdb add 02:00:00:00:02:01 dev p2 master static");
            run("bridge", "fdb add 02:00:00:00:01:01 dev p1 master static");
            run("bridge", "fdb add 02:00:00:00:00:01 dev p0 master static");
            run("bridge", "fdb add 02:00:00:00:01:02 dev p1 master permanent");
            run("bridge", "fdb add 02:00:00:00:09:01 dev x0 master static");
            run("bridge", "fdb add 02:00:00:00:01:03 dev p1 self permanent");
            assert_eq!(
                links.hosts_behind(p0, br0).unwrap(),
                [host([1, 1], None), host([2, 1], None)]
            );
            assert_eq!(
                links.hosts_behind(p1, br0).unwrap(),
                [host([0, 1], None), host([2, 1], None)]
            );
            links.delete(br0).unwrap();
            assert_eq!(links.hosts_behind(p0, br0).unwrap(), []);
        });
    }

    #[test]
    fn thousands_of_hosts_are_read_in_one_go() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            let (br0, [p0, ..]) = bridge(&mut links, "");
            let mut batch = String::new();
            for number in 0..5000_u16 {
                let [high, low] = number.to_be_bytes();
                writeln!(batch, "fdb add 02:00:00:00:{high:02x}:{low:02x} dev p1 master static").unwrap();
            }
            let file = std::env::temp_dir().join(format!("bondd-fdb-{}", std::process::id()));
            fs::write(&file, batch).unwrap();
            run("bridge", &format!("-batch {}", file.display()));
            fs::remove_file(&file).unwrap();
            let expected: Vec<_> = (0..5000_u16).map(|number| host(number.to_be_bytes(), None)).collect();
            assert_eq!(links.hosts_behind(p0, br0).unwrap(), expected);
        });
    }

    #[test]
    fn uppers_addresses_are_told_without_the_devices_own_and_without_groups() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            links.add_veth("eth0", "eth1").unwrap();
            let eth0 = index(&mut links, "eth0");
            links.set_up(eth0, true).unwrap();
            assert_eq!(links.unicast_addresses(eth0).unwrap(), []);
            let own = links.by_index(eth0).unwrap().unwrap().report.mac;
            run("bridge", &format!("fdb add {own} dev eth0 self permanent"));
            ip("link add m1 link eth0 address 02:00:00:00:00:02 type macvlan mode bridge");
            ip("link add m2 link eth0 address 02:00:00:00:00:01 type macvlan mode bridge");
            ip("link set m1 up");
            ip("link set m2 up");
            let expected = [1, 2].map(|last| MacAddr([2, 0, 0, 0, 0, last]));
            assert_eq!(links.unicast_addresses(eth0).unwrap(), expected);
            ip("link del m1");
            assert_eq!(links.unicast_addresses(eth0).unwrap(), expected[..1]);
            assert_eq!(links.unicast_addresses(9999).unwrap(), []);
        });
    }

    /// The messages of a fixture.
    fn messages(fixture: &str) -> Vec<RouteNetlinkMessage> {
        let bytes = from_hex(fixture);
        let mut rest = &bytes[..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).unwrap();
            rest = &rest[(message.header.length as usize).next_multiple_of(4)..];
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => found.push(inner),
                other => panic!("{other:?}"),
            }
        }
        found
    }

    fn link(fixture: &str) -> LinkMessage {
        match messages(fixture).remove(0) {
            RouteNetlinkMessage::NewLink(link) => link,
            other => panic!("{other:?}"),
        }
    }

    fn neighbours(fixture: &str) -> Vec<NeighbourMessage> {
        let neighbour = |message| match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => neighbour,
            other => panic!("{other:?}"),
        };
        messages(fixture).into_iter().map(neighbour).collect()
    }

    /// Makes a bridge one of 802.1ad.
    fn serve_providers(info: &mut LinkInfo) {
        if let LinkInfo::Data(InfoData::Bridge(data)) = info {
            data.retain(|item| !matches!(item, InfoBridge::VlanProtocol(_)));
            data.push(InfoBridge::VlanProtocol(VlanProtocol::Ieee8021Ad));
        }
    }

    #[test]
    fn a_bridge_tells_whether_it_looks_at_tags_and_of_which_kind() {
        let mut bridge = link(BRIDGE);
        let tag = |bridge: &LinkMessage| tagging(bridge).map(|tag| tag(7));
        assert_eq!(tag(&bridge), Some(Tag::c(7)));
        for attribute in &mut bridge.attributes {
            if let LinkAttribute::LinkInfo(infos) = attribute {
                infos.iter_mut().for_each(serve_providers);
            }
        }
        assert_eq!(tag(&bridge), Some(Tag::s(7)));
        bridge
            .attributes
            .retain(|attribute| !matches!(attribute, LinkAttribute::LinkInfo(_)));
        assert_eq!(tag(&bridge), None);
    }

    #[test]
    fn ranges_of_vlans_are_unfolded_and_untagged_ones_told_from_tagged_ones() {
        let tagged = [10, 20, 21, 22, 23, 24, 25].map(|id| (id, Some(Tag::c(id))));
        let untagged = [(1, None), (30, None)];
        assert_eq!(
            memberships(&link(PORT), Tag::c),
            tagged.into_iter().chain(untagged).collect()
        );
        assert_eq!(memberships(&link(BARE_PORT), Tag::c), BTreeMap::new());
    }

    #[test]
    fn an_entry_counts_with_the_tag_of_its_vlan_and_not_at_all_outside_the_ports() {
        let entries = neighbours(FDB);
        let members = memberships(&link(PORT), Tag::c);
        let expected = [
            host([1, 0], None),
            host([1, 0], Some(10)),
            host([1, 0], Some(22)),
            host([1, 1], None),
            host([1, 0x0a], Some(10)),
            host([1, 0x16], Some(22)),
            host([2, 0x0a], Some(10)),
        ];
        assert_eq!(learned_hosts(&entries, P0, BR0, &Egress::PerVlan(members)), expected);
    }

    #[test]
    fn where_tags_do_not_matter_each_host_counts_once() {
        let entries = neighbours(FDB);
        let expected = [[1, 0], [1, 1], [1, 0x0a], [1, 0x16], [1, 0x63], [2, 0x0a]].map(|mac| host(mac, None));
        assert_eq!(learned_hosts(&entries, P0, BR0, &Egress::Untagged), expected);
        assert_eq!(
            learned_hosts(&entries, P0, BR0 + 1, &Egress::Untagged),
            [],
            "another bridge's"
        );
    }

    const BRIDGE: &str = include_str!("fixtures/bridge_vlan_filtering.hex");
    const PORT: &str = include_str!("fixtures/bridge_port_vlans.hex");
    const BARE_PORT: &str = include_str!("fixtures/bridge_port_no_vlans.hex");
    const FDB: &str = include_str!("fixtures/bridge_fdb.hex");

    /// Indices in the fixtures.
    const BR0: u32 = 2;
    const P0: u32 = 4;
}

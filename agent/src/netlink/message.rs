//! Parses link and address messages into the agent's types. Pure: bytes in, values out.

use std::net::IpAddr;

use bond_monitors::wire::ethernet::Tag;
use bond_monitors::{Carrier, Duplex, LinkReport, MacAddr, Speed};
use rtnetlink::packet_core::{NlaBuffer, NlasIterator, Parseable, ParseableParametrized};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeader, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkInfo, LinkLayerType, LinkMessage,
    State, VlanProtocol,
};

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// State, without speed and duplex, which [`RouteSocket::speed_duplex`](super::RouteSocket::speed_duplex) reads. `promisc` and
    /// `allmulti` are the effective modes, set by an operator, a bridge or a packet capture.
    pub report: LinkReport,
    /// Whether the kernel has put the queues into service after carrier came (`operstate`). Frames sent before that are
    /// dropped. [link_watch.c: linkwatch_do_dev]
    pub in_service: bool,
    /// `operstate` by its name in sysfs. [net-sysfs.c: operstates]
    pub operstate: &'static str,
    /// IFF_PROMISC as an operator set it: the only part of `report.promisc` that
    /// [`RouteSocket::set_promisc`](super::RouteSocket::set_promisc) changes, so the one to save and restore.
    pub promisc_flag: bool,
    /// IFF_ALLMULTI as an operator set it, likewise.
    pub allmulti_flag: bool,
    /// Kind of a virtual device: `veth`, `netkit`, `bridge`, `vlan`, `team`; `None` for hardware.
    pub kind: Option<String>,
    /// The other end of a veth pair or a netkit device, or the device below a VLAN; `None` if there is none or it is in another namespace.
    pub peer: Option<u32>,
    /// The bridge, team or other upper device that owns it.
    pub master: Option<u32>,
    /// Whether it is a loopback device.
    pub loopback: bool,
    /// Whether it carries Ethernet frames (ARPHRD_ETHER).
    pub ethernet: bool,
    /// Alias text; empty for none.
    pub alias: String,
    /// The tag that it adds if `kind` is `vlan`.
    pub vlan: Option<Tag>,
    /// Most transmit queues that it can have; it may use fewer.
    pub tx_queues: u32,
}

impl Link {
    /// The other end, of a device that has two: a veth pair or a netkit device.
    pub fn far_end(&self) -> Option<u32> {
        self.peer.filter(|_| self.has_two_ends())
    }

    /// The device that it stands on, as a VLAN does.
    pub fn stands_on(&self) -> Option<u32> {
        self.peer.filter(|_| !self.has_two_ends())
    }

    fn has_two_ends(&self) -> bool {
        matches!(self.kind.as_deref(), Some("veth" | "netkit"))
    }

    /// IFF_RUNNING: it is up, and `operstate` is up or unknown. [dev.c: dev_get_flags]
    pub fn is_running(&self) -> bool {
        self.report.admin_up && matches!(self.operstate, "up" | "unknown")
    }
}

/// An address of an interface. An interface may have the same one more than once, with other prefixes or peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The interface's own.
    pub ip: IpAddr,
    /// Length of the prefix in bits.
    pub prefix: u8,
    /// The other end of a point-to-point link, else `ip` once more. [if_addr.h: IFA_ADDRESS]
    pub peer: IpAddr,
}

/// What a poll reads of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// As in a [`Link`]'s report: off while it is administratively down.
    pub carrier: Carrier,
    /// As [`Link::in_service`].
    pub in_service: bool,
}

/// Parses a link message. `None` for the partial messages of some subsystems under the same type (bridge ports, wireless
/// scans), which name a device without describing it.
pub(super) fn parse(message: &LinkMessage) -> Option<Link> {
    let header = &message.header;
    if header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let mut attributes = Attributes::default();
    attributes.read(&message.attributes);
    let admin_up = header.flags.contains(LinkFlags::Up);
    let carrier = attributes.carrier_of(header.flags);
    let promisc_flag = header.flags.contains(LinkFlags::Promisc);
    let allmulti_flag = header.flags.contains(LinkFlags::Allmulti);
    Some(Link {
        ifindex: header.index,
        report: LinkReport {
            name: attributes.name?,
            admin_up,
            carrier,
            mac: attributes.mac,
            mtu: attributes.mtu?,
            promisc: promisc_flag || attributes.promiscuity > 0,
            allmulti: allmulti_flag || attributes.allmulti > 0,
            speed: Speed::default(),
            duplex: Duplex::default(),
        },
        in_service: !attributes.not_in_service,
        operstate: operstate(attributes.operstate),
        promisc_flag,
        allmulti_flag,
        kind: attributes.kind,
        peer: if attributes.peer_elsewhere {
            None
        } else {
            attributes.peer
        },
        master: attributes.master,
        loopback: header.flags.contains(LinkFlags::Loopback),
        ethernet: header.link_layer_type == LinkLayerType::Ether,
        alias: attributes.alias,
        vlan: attributes.vlan,
        tx_queues: attributes.tx_queues,
    })
}

fn operstate(state: Option<State>) -> &'static str {
    match state {
        Some(State::NotPresent) => "notpresent",
        Some(State::Down) => "down",
        Some(State::LowerLayerDown) => "lowerlayerdown",
        Some(State::Testing) => "testing",
        Some(State::Dormant) => "dormant",
        Some(State::Up) => "up",
        _ => "unknown",
    }
}

/// The attributes that matter, as found.
#[derive(Default)]
struct Attributes {
    name: Option<String>,
    mac: MacAddr,
    mtu: Option<u32>,
    carrier: Option<bool>,
    not_in_service: bool,
    operstate: Option<State>,
    promiscuity: u32,
    allmulti: u32,
    peer: Option<u32>,
    peer_elsewhere: bool,
    master: Option<u32>,
    alias: String,
    kind: Option<String>,
    vlan: Option<Tag>,
    tx_queues: u32,
}

impl Attributes {
    fn read(&mut self, attributes: &[LinkAttribute]) {
        for attribute in attributes {
            match attribute {
                LinkAttribute::IfName(name) => self.name = Some(name.clone()),
                // Other lengths belong to devices that are not Ethernet and cannot be ports.
                LinkAttribute::Address(bytes) => {
                    self.mac = bytes.as_slice().try_into().map(MacAddr).unwrap_or_default()
                }
                LinkAttribute::Mtu(mtu) => self.mtu = Some(*mtu),
                LinkAttribute::Carrier(on) => self.carrier = Some(*on != 0),
                LinkAttribute::OperState(state) => {
                    self.not_in_service = matches!(state, State::Down | State::LowerLayerDown | State::NotPresent);
                    self.operstate = Some(*state);
                }
                LinkAttribute::NumTxQueues(count) => self.tx_queues = *count,
                LinkAttribute::Promiscuity(users) => self.promiscuity = *users,
                LinkAttribute::AllMulticast(users) => self.allmulti = *users,
                LinkAttribute::Link(0) => {}
                LinkAttribute::Link(index) => self.peer = Some(*index),
                LinkAttribute::LinkNetNsId(_) => self.peer_elsewhere = true,
                LinkAttribute::Controller(index) => self.master = Some(*index),
                LinkAttribute::IfAlias(alias) => self.alias.clone_from(alias),
                LinkAttribute::LinkInfo(infos) => self.read_infos(infos),
                _ => {}
            }
        }
    }

    /// An interface that is administratively down has no carrier.
    fn carrier_of(&self, flags: LinkFlags) -> Carrier {
        let signal = self.carrier.unwrap_or(flags.contains(LinkFlags::LowerUp));
        Carrier::from_bool(flags.contains(LinkFlags::Up) && signal)
    }

    fn read_infos(&mut self, infos: &[LinkInfo]) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                LinkInfo::Data(InfoData::Vlan(data)) => self.vlan = vlan_tag(data),
                _ => {}
            }
        }
    }
}

/// The tag of a VLAN interface: a customer tag if no protocol is given. [vlan_netlink.c: vlan_newlink]
fn vlan_tag(data: &[InfoVlan]) -> Option<Tag> {
    let mut tag = None;
    let mut protocol = VlanProtocol::default();
    for item in data {
        match item {
            InfoVlan::Id(id) => tag = Some(Tag::c(*id)),
            InfoVlan::Protocol(given) => protocol = *given,
            _ => {}
        }
    }
    tag.map(|tag| Tag {
        protocol: protocol.into(),
        ..tag
    })
}

/// Reads the payload of a link message. An attribute that cannot be parsed (a newer kernel may send it in another form) is
/// skipped, so that the event is not lost. If the list of attributes is broken, the result is `None`.
pub(super) fn decode(payload: &[u8]) -> Option<LinkMessage> {
    let mut message = LinkMessage::default();
    message.header = LinkHeader::parse(payload).ok()?;
    for attribute in NlasIterator::new(payload.get(LINK_HEADER_LEN..)?) {
        let attribute: NlaBuffer<&[u8]> = attribute.ok()?;
        if !UNREAD.contains(&attribute.kind()) {
            message.attributes.extend(LinkAttribute::parse_with_param(
                &attribute,
                message.header.interface_family,
            ));
        }
    }
    Some(message)
}

/// The interface's own address in an address message, if it may be used: not while duplicate address detection runs, nor after
/// it has failed.
pub(super) fn parse_address(message: &AddressMessage) -> Option<(u32, Address)> {
    let (ifindex, address, usable) = any_address(message)?;
    usable.then_some((ifindex, address))
}

/// The interface and its address in an address message, and whether it may be used.
pub(super) fn any_address(message: &AddressMessage) -> Option<(u32, Address, bool)> {
    let (mut local, mut address) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(wide) => flags = *wide,
            _ => {}
        }
    }
    let usable = !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
    let ip = local.or(address)?;
    let address = Address {
        ip,
        prefix: message.header.prefix_len,
        peer: address.unwrap_or(ip),
    };
    Some((message.header.index, address, usable))
}

/// The part of a link message that a poll reads: interface index, carrier, and whether its queues are in service.
pub(super) fn link_state(payload: &[u8]) -> Option<(u32, LinkState)> {
    let header = LinkHeader::parse(payload).ok()?;
    let mut attributes = Attributes::default();
    for attribute in NlasIterator::new(payload.get(LINK_HEADER_LEN..)?) {
        let attribute: NlaBuffer<&[u8]> = attribute.ok()?;
        if matches!(attribute.kind(), libc::IFLA_CARRIER | libc::IFLA_OPERSTATE) {
            attributes.read(&[LinkAttribute::parse_with_param(&attribute, header.interface_family).ok()?]);
        }
    }
    let state = LinkState {
        carrier: attributes.carrier_of(header.flags),
        in_service: !attributes.not_in_service,
    };
    Some((header.index, state))
}

/// Reads the payload of an address message. An attribute that cannot be parsed is skipped.
pub(super) fn decode_address(payload: &[u8]) -> Option<AddressMessage> {
    let mut message = AddressMessage::default();
    message.header = AddressHeader::parse(payload).ok()?;
    for attribute in NlasIterator::new(payload.get(ADDRESS_HEADER_LEN..)?) {
        let attribute: NlaBuffer<&[u8]> = attribute.ok()?;
        message.attributes.extend(AddressAttribute::parse(&attribute));
    }
    Some(message)
}

/// Counters are most of a link message and are not used.
pub(super) fn brief() -> Vec<LinkExtentMask> {
    vec![LinkExtentMask::SkipStats]
}

/// Size of `struct ifaddrmsg`.
const ADDRESS_HEADER_LEN: usize = 8;

/// Size of `struct ifinfomsg`.
const LINK_HEADER_LEN: usize = 16;

/// Large attributes that are not used: IFLA_STATS, IFLA_MAP, IFLA_STATS64, IFLA_AF_SPEC.
const UNREAD: [u16; 4] = [7, 14, 23, 26];

#[cfg(test)]
pub(super) mod tests {
    use std::slice;

    use super::*;

    /// Messages with their netlink header; each file names its origin.
    pub(in crate::netlink) const FIXTURES: [(&str, &str); 5] = [
        ("veth_up", include_str!("fixtures/veth_up.hex")),
        ("veth_no_carrier", include_str!("fixtures/veth_no_carrier.hex")),
        ("loopback", include_str!("fixtures/loopback.hex")),
        ("bridge_port", include_str!("fixtures/bridge_port.hex")),
        ("vlan", include_str!("fixtures/vlan.hex")),
    ];

    pub(in crate::netlink) fn fixture(name: &str) -> Vec<u8> {
        let (_, text) = FIXTURES
            .iter()
            .find(|(known, _)| *known == name)
            .expect("a known fixture");
        from_hex(text)
    }

    /// The bytes of a file of hexadecimal digits with comment lines.
    pub(in crate::netlink) fn from_hex(text: &str) -> Vec<u8> {
        let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
        (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect()
    }

    fn link(name: &str) -> Link {
        parse(&decode(&fixture(name)[NLMSG_HEADER..]).unwrap()).unwrap()
    }

    /// A veth with the values that all fixtures share.
    fn veth(ifindex: u32, name: &str, mac: u8, peer: u32) -> Link {
        Link {
            in_service: true,
            operstate: "up",
            ifindex,
            report: LinkReport {
                name: name.to_owned(),
                admin_up: true,
                carrier: Carrier::On,
                mac: MacAddr([2, 0, 0, 0, 0, mac]),
                mtu: 1500,
                promisc: false,
                allmulti: false,
                speed: Speed(None),
                duplex: Duplex::Unknown,
            },
            promisc_flag: false,
            allmulti_flag: false,
            kind: Some("veth".to_owned()),
            peer: Some(peer),
            master: None,
            loopback: false,
            ethernet: true,
            alias: String::new(),
            vlan: None,
            tx_queues: 2,
        }
    }

    #[test]
    fn a_pair_has_a_far_end_and_a_vlan_stands_on_another_device() {
        for (kind, far_end) in [("veth", true), ("netkit", true), ("vlan", false), ("macvlan", false)] {
            let link = Link {
                kind: Some(kind.to_owned()),
                ..veth(3, "p0", 1, 2)
            };
            let expected = if far_end { (Some(2), None) } else { (None, Some(2)) };
            assert_eq!((link.far_end(), link.stands_on()), expected, "{kind}");
        }
    }

    #[test]
    fn a_link_with_signal_has_carrier() {
        let expected = Link {
            alias: "port of bond0".to_owned(),
            ..veth(3, "p0", 1, 2)
        };
        assert_eq!(link("veth_up"), expected);
    }

    #[test]
    fn a_link_that_is_up_without_signal_has_no_carrier() {
        let mut expected = veth(5, "n0", 3, 4);
        expected.in_service = false;
        expected.operstate = "lowerlayerdown";
        expected.report.carrier = Carrier::Off;
        expected.report.mtu = 9000;
        assert_eq!(link("veth_no_carrier"), expected);
    }

    #[test]
    fn promiscuity_asked_for_by_a_bridge_is_reported_but_is_no_operators_flag() {
        let mut expected = Link {
            master: Some(6),
            ..veth(8, "b0", 5, 7)
        };
        expected.report.promisc = true;
        expected.report.allmulti = true;
        assert_eq!(link("bridge_port"), expected);
    }

    #[test]
    fn loopback_is_told_from_ethernet() {
        let lo = link("loopback");
        assert_eq!((lo.ifindex, lo.report.name.as_str(), lo.report.mtu), (1, "lo", 65536));
        assert!(lo.loopback && !lo.ethernet && lo.report.carrier.is_on());
        assert_eq!((lo.kind, lo.peer, lo.master), (None, None, None));
    }

    #[test]
    fn a_vlan_is_of_802_1q_unless_it_says_otherwise() {
        let (id, service) = (InfoVlan::Id(9), InfoVlan::Protocol(VlanProtocol::Ieee8021Ad));
        assert_eq!(vlan_tag(slice::from_ref(&id)), Some(Tag::c(9)));
        assert_eq!(vlan_tag(&[service.clone(), id]), Some(Tag::s(9)));
        assert_eq!(vlan_tag(&[service]), None);
    }

    #[test]
    fn a_vlan_tells_its_tag_and_the_device_below() {
        let vlan = link("vlan");
        assert_eq!(
            (vlan.kind.as_deref(), vlan.vlan, vlan.peer),
            (Some("vlan"), Some(Tag::c(100)), Some(3))
        );
    }

    fn message(flags: LinkFlags, attributes: &[LinkAttribute]) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.flags = flags;
        message.attributes = vec![LinkAttribute::IfName("a".to_owned()), LinkAttribute::Mtu(1500)];
        message.attributes.extend_from_slice(attributes);
        message
    }

    #[test]
    fn carrier_needs_administratively_up_and_falls_back_to_the_lower_up_flag() {
        let signal = LinkAttribute::Carrier(1);
        let carrier = |flags, attributes: &[_]| parse(&message(flags, attributes)).unwrap().report.carrier.is_on();
        assert!(!carrier(LinkFlags::empty(), slice::from_ref(&signal)));
        assert!(carrier(LinkFlags::Up, &[signal]));
        assert!(!carrier(
            LinkFlags::Up | LinkFlags::LowerUp,
            &[LinkAttribute::Carrier(0)]
        ));
        assert!(carrier(LinkFlags::Up | LinkFlags::LowerUp, &[]));
        assert!(!carrier(LinkFlags::Up, &[]));
    }

    #[test]
    fn a_peer_in_another_namespace_is_no_index_of_ours() {
        let parsed = parse(&message(
            LinkFlags::Up,
            &[LinkAttribute::Link(3), LinkAttribute::LinkNetNsId(0)],
        ))
        .unwrap();
        assert_eq!(parsed.peer, None);
    }

    #[test]
    fn partial_messages_describe_no_link() {
        let mut bridge = message(LinkFlags::Up, &[]);
        bridge.header.interface_family = AddressFamily::Bridge;
        assert_eq!(parse(&bridge), None);
        let mut wireless = message(LinkFlags::Up, &[]);
        wireless.attributes.truncate(1);
        assert_eq!(parse(&wireless), None, "no MTU");
    }

    #[test]
    fn one_unreadable_attribute_does_not_cost_the_message() {
        let mut bytes = fixture("vlan");
        // IFLA_GROUP is a u32; here is one byte, padded.
        bytes.extend_from_slice(&[5, 0, 27, 0, 1, 0, 0, 0]);
        assert_eq!(parse(&decode(&bytes[NLMSG_HEADER..]).unwrap()), Some(link("vlan")));
    }

    #[test]
    fn only_addresses_that_may_be_used_count_and_the_local_end_is_meant() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let parsed = |attributes: &[AddressAttribute]| {
            let mut message = AddressMessage::default();
            message.header.index = 7;
            message.attributes = attributes.to_vec();
            parse_address(&message).map(|(ifindex, address)| (ifindex, address.ip.to_string()))
        };
        let (own, peer) = (
            AddressAttribute::Local(ip("10.0.0.1")),
            AddressAttribute::Address(ip("10.0.0.2")),
        );
        assert_eq!(parsed(&[peer, own]), Some((7, "10.0.0.1".to_owned())));
        let v6 = AddressAttribute::Address(ip("fe80::1"));
        assert_eq!(parsed(slice::from_ref(&v6)), Some((7, "fe80::1".to_owned())));
        for flag in [AddressFlags::Tentative, AddressFlags::Dadfailed] {
            assert_eq!(
                parsed(&[v6.clone(), AddressAttribute::Flags(flag | AddressFlags::Permanent)]),
                None
            );
        }
        assert!(parsed(&[v6, AddressAttribute::Flags(AddressFlags::Permanent)]).is_some());
    }

    /// Size of `struct nlmsghdr`.
    const NLMSG_HEADER: usize = 16;
}

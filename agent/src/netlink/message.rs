//! From link and address messages to the agent's words. Pure: bytes in, values out.

use std::net::IpAddr;

use bond_monitors::{Carrier, Duplex, LinkReport, MacAddr, Speed};
use rtnetlink::packet_core::{NlaBuffer, NlasIterator, ParseableParametrized};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkLayerType, LinkMessage,
};

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// State; speed and duplex are unknown, [`Links::speed_duplex`](super::Links::speed_duplex) asks for them. `promisc` and
    /// `allmulti` are what the device does, whoever asked for it: an operator, a bridge, a packet capture.
    pub report: LinkReport,
    /// IFF_PROMISC as an operator set it; not later than, and the only part that [`Links::set_promisc`](super::Links::set_promisc) changes.
    pub promisc_flag: bool,
    /// IFF_ALLMULTI as an operator set it.
    pub allmulti_flag: bool,
    /// Kind of a virtual device: `veth`, `bridge`, `vlan`, `team`; `None` for hardware.
    pub kind: Option<String>,
    /// The other end of a veth pair or the device below a VLAN; `None` if there is none or it is in another namespace.
    pub peer: Option<u32>,
    /// The bridge, team or other upper device that owns it.
    pub master: Option<u32>,
    /// Whether it is a loopback device.
    pub loopback: bool,
    /// Whether it carries Ethernet frames (ARPHRD_ETHER).
    pub ethernet: bool,
    /// Alias text; empty for none.
    pub alias: String,
    /// VLAN id if `kind` is `vlan`.
    pub vlan: Option<u16>,
}

/// What a link message says; `None` for the partial messages that some subsystems send under the same type (bridge ports,
/// wireless scans): they name a device without describing it.
pub(super) fn parse(message: &LinkMessage) -> Option<Link> {
    let header = &message.header;
    if header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let seen = Seen::read(&message.attributes);
    let admin_up = header.flags.contains(LinkFlags::Up);
    let promisc_flag = header.flags.contains(LinkFlags::Promisc);
    let allmulti_flag = header.flags.contains(LinkFlags::Allmulti);
    let signal = seen.carrier.unwrap_or(header.flags.contains(LinkFlags::LowerUp));
    Some(Link {
        ifindex: header.index,
        report: LinkReport {
            name: seen.name?,
            admin_up,
            carrier: Carrier::from_bool(admin_up && signal),
            mac: seen.mac,
            mtu: seen.mtu?,
            promisc: promisc_flag || seen.promiscuity > 0,
            allmulti: allmulti_flag || seen.allmulti > 0,
            speed: Speed::default(),
            duplex: Duplex::default(),
        },
        promisc_flag,
        allmulti_flag,
        kind: seen.kind,
        peer: if seen.peer_elsewhere { None } else { seen.peer },
        master: seen.master,
        loopback: header.flags.contains(LinkFlags::Loopback),
        ethernet: header.link_layer_type == LinkLayerType::Ether,
        alias: seen.alias,
        vlan: seen.vlan,
    })
}

/// The attributes that matter, as found.
#[derive(Default)]
struct Seen {
    name: Option<String>,
    mac: MacAddr,
    mtu: Option<u32>,
    carrier: Option<bool>,
    promiscuity: u32,
    allmulti: u32,
    peer: Option<u32>,
    peer_elsewhere: bool,
    master: Option<u32>,
    alias: String,
    kind: Option<String>,
    vlan: Option<u16>,
}

impl Seen {
    fn read(attributes: &[LinkAttribute]) -> Seen {
        let mut seen = Seen::default();
        for attribute in attributes {
            match attribute {
                LinkAttribute::IfName(name) => seen.name = Some(name.clone()),
                // Other lengths belong to devices that are not Ethernet: no port can be one of them.
                LinkAttribute::Address(bytes) => {
                    seen.mac = bytes.as_slice().try_into().map(MacAddr).unwrap_or_default()
                }
                LinkAttribute::Mtu(mtu) => seen.mtu = Some(*mtu),
                LinkAttribute::Carrier(on) => seen.carrier = Some(*on != 0),
                LinkAttribute::Promiscuity(users) => seen.promiscuity = *users,
                LinkAttribute::AllMulticast(users) => seen.allmulti = *users,
                LinkAttribute::Link(0) => {}
                LinkAttribute::Link(index) => seen.peer = Some(*index),
                LinkAttribute::LinkNetNsId(_) => seen.peer_elsewhere = true,
                LinkAttribute::Controller(index) => seen.master = Some(*index),
                LinkAttribute::IfAlias(alias) => seen.alias.clone_from(alias),
                LinkAttribute::LinkInfo(infos) => seen.read_infos(infos),
                _ => {}
            }
        }
        seen
    }

    fn read_infos(&mut self, infos: &[LinkInfo]) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                LinkInfo::Data(InfoData::Vlan(data)) => {
                    self.vlan = data.iter().find_map(|item| match item {
                        InfoVlan::Id(id) => Some(*id),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
    }
}

/// Reads the payload of a link message. One attribute that cannot be read (a newer kernel may send it in another form) is
/// left out, so that it does not cost the whole event; a broken frame around the attributes gives `None`.
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

/// The interface's own address in an address message; `None` while it may not be used (duplicate address detection runs or
/// has failed).
pub(super) fn parse_address(message: &AddressMessage) -> Option<(u32, IpAddr)> {
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
    if flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed) {
        return None;
    }
    // On a point-to-point device IFA_ADDRESS is the peer's. [if_addr.h]
    local.or(address).map(|ip| (message.header.index, ip))
}

/// Size of `struct ifinfomsg`.
const LINK_HEADER_LEN: usize = 16;

/// Large attributes that nothing here looks at: IFLA_STATS, IFLA_MAP, IFLA_STATS64, IFLA_AF_SPEC.
const UNREAD: [u16; 4] = [7, 14, 23, 26];

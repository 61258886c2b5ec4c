//! What a hash was computed from, for people and programs.

use std::fmt;
use std::net::IpAddr;

use bond_monitors::MacAddr;
use serde::Serialize;

use super::dissect::{AH, DCCP, ESP, SCTP, TCP, UDP, UDP_LITE};
use crate::options::XmitHashPolicy;

/// A hash with everything that went into it.
///
/// `hash` is `first_word ^ address_word`, folded unless `folded` is none, and without its lowest bit where ports count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The policy asked for.
    pub policy: XmitHashPolicy,
    /// Source MAC address of the frame.
    pub source_mac: MacAddr,
    /// Destination MAC address of the frame.
    pub destination_mac: MacAddr,
    /// EtherType behind the tag that was lifted out, if one was.
    pub ethertype: u16,
    /// VLAN tag outside the bytes: priority, drop eligible bit and VLAN id.
    pub tci: Option<u16>,
    /// What the policy could use of this frame.
    pub uses: Source,
    /// IP addresses that count; of the quoted packet for an ICMP error, of the innermost header for the encap policies.
    pub addresses: Option<Addresses>,
    /// Layer-4 facts that count; nothing for policies that do not look at them.
    pub layer4: Layer4,
    /// The word that the addresses are mixed into, or the whole hash for `ethernet` and `vlan_srcmac`.
    pub first_word: u32,
    /// Both addresses; 0 without.
    pub address_word: u32,
    /// The mixed words after folding; none where there is no folding.
    pub folded: Option<u32>,
    /// The result; the port is `ports[hash % ports.len()]`.
    pub hash: u32,
}

impl Explanation {
    /// Nothing can be read, and the driver takes 0 for everything. [bond_main.c: bond_eth_hash]
    pub(super) fn too_short(policy: XmitHashPolicy, tci: Option<u16>) -> Self {
        Explanation {
            policy,
            source_mac: MacAddr::default(),
            destination_mac: MacAddr::default(),
            ethertype: 0,
            tci,
            uses: Source::Nothing,
            addresses: None,
            layer4: Layer4::Nothing,
            first_word: 0,
            address_word: 0,
            folded: None,
            hash: 0,
        }
    }
}

/// What a hash is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Nothing: the frame has no complete Ethernet header.
    Nothing,
    /// MAC addresses and EtherType: policy layer2, or nothing better was found.
    Ethernet,
    /// MAC addresses, EtherType and IP addresses.
    Layer23,
    /// IP addresses and ports, SPI or ICMP id.
    Layer34,
    /// VLAN tag and source MAC address.
    VlanSrcmac,
}

/// The two addresses of an IP header, both of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
}

impl Addresses {
    /// All their 32-bit words mixed; the same for both directions. [flow_dissector.c: flow_get_u32_src, flow_get_u32_dst]
    pub(super) fn word(self) -> u32 {
        address_word(self.source) ^ address_word(self.destination)
    }
}

fn address_word(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => u32::from_le_bytes(v4.octets()),
        // The words are mixed bytewise, so mixing first and reading little-endian last is the same.
        IpAddr::V6(v6) => {
            let all = u128::from_be_bytes(v6.octets());
            let mixed = (all >> 96) ^ (all >> 64) ^ (all >> 32) ^ all;
            (mixed as u32).swap_bytes()
        }
    }
}

/// What tells flows between two addresses apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer4 {
    /// Nothing that a hash looks at; counts as 0.
    #[default]
    Nothing,
    /// Ports.
    Ports {
        /// IP protocol number.
        protocol: u8,
        /// Of the sender.
        source: u16,
        /// Of the receiver.
        destination: u16,
    },
    /// Security parameters index of IPsec.
    Spi {
        /// IP protocol number.
        protocol: u8,
        /// As in the header.
        spi: u32,
    },
    /// A query, which has an id.
    Icmp {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
        /// As in the header, but 1 for 0.
        id: u16,
    },
}

impl Layer4 {
    /// Not symmetric: the two directions of a flow differ. [bond_main.c: __bond_xmit_hash]
    pub(super) fn word(self) -> u32 {
        match self {
            Layer4::Nothing => 0,
            Layer4::Ports {
                source, destination, ..
            } => u32::from(source.swap_bytes()) | u32::from(destination.swap_bytes()) << 16,
            Layer4::Spi { spi, .. } => spi.swap_bytes(),
            Layer4::Icmp { kind, code, id } => u32::from(kind) | u32::from(code) << 8 | u32::from(id) << 16,
        }
    }
}

impl fmt::Display for Layer4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Layer4::Nothing => f.write_str("none"),
            Layer4::Ports {
                protocol,
                source,
                destination,
            } => write!(f, "{} {source} > {destination}", protocol_name(protocol)),
            Layer4::Spi { protocol, spi } => write!(f, "{} SPI {spi:#010x}", protocol_name(protocol)),
            Layer4::Icmp { kind, code, id } => write!(f, "ICMP type {kind} code {code} id {id}"),
        }
    }
}

fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        TCP => "TCP",
        UDP => "UDP",
        DCCP => "DCCP",
        ESP => "ESP",
        AH => "AH",
        SCTP => "SCTP",
        UDP_LITE => "UDP-Lite",
        _ => "IP",
    }
}

/// Two lines of facts and the sum, without a line end.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, addresses) = (self.first_word, self.address_word);
        match self.uses {
            Source::Nothing => return f.write_str("fields   none: no complete Ethernet header\nhash     0x00000000"),
            Source::Ethernet => write!(
                f,
                "fields   MAC {} > {}, EtherType {:#06x}{}\nhash     ",
                self.source_mac,
                self.destination_mac,
                self.ethertype,
                if self.policy == XmitHashPolicy::Layer2 {
                    ""
                } else {
                    " (no IP header that the policy reads)"
                }
            )?,
            Source::VlanSrcmac => write!(
                f,
                "fields   source MAC {}, VLAN tag {}\nhash     ",
                self.source_mac,
                match self.tci {
                    Some(tci) => format!("{tci:#06x} (id {}, priority {})", tci & 0x0fff, tci >> 13),
                    None => "none".to_owned(),
                }
            )?,
            Source::Layer23 => write!(
                f,
                "fields   MAC {} > {}, EtherType {:#06x}, IP {}\nhash     fold({first:#010x} of Ethernet ^ {addresses:#010x} of IP) = ",
                self.source_mac,
                self.destination_mac,
                self.ethertype,
                Between(self.addresses)
            )?,
            Source::Layer34 => write!(
                f,
                "fields   IP {}, layer 4 {}\nhash     fold({first:#010x} of layer 4 ^ {addresses:#010x} of IP) >> 1 = ",
                Between(self.addresses),
                self.layer4
            )?,
        }
        write!(f, "{:#010x}", self.hash)
    }
}

/// Addresses of a flow, or that there are none.
struct Between(Option<Addresses>);

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Addresses { source, destination }) => write!(f, "{source} > {destination}"),
            None => f.write_str("none"),
        }
    }
}

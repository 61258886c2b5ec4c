//! Numbers and lengths of headers, and the fields that a hash uses.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

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

/// Fields that distinguish flows between two addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer4 {
    /// No field that a hash uses; counts as 0.
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

/// `N` bytes at an offset, if they are all there.
pub(super) fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Two bytes at an offset as a number, if they are there.
pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    part(bytes, at).map(u16::from_be_bytes)
}

/// Length of an Ethernet header without tags, in bytes.
pub const ETHERNET_HEADER: usize = 14;

pub(super) const VLAN_HEADER: usize = 4;
pub(super) const IPV4_HEADER: usize = 20;
pub(super) const IPV6_HEADER: usize = 40;
pub(super) const ICMP_HEADER: usize = 8;

pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
pub(super) const BATMAN: u16 = 0x4305;
pub(super) const RARP: u16 = 0x8035;
pub(super) const VLAN: u16 = 0x8100;
pub(super) const IPV6: u16 = 0x86dd;
pub(super) const MPLS: u16 = 0x8847;
pub(super) const MPLS_MULTICAST: u16 = 0x8848;
pub(super) const PPPOE_SESSION: u16 = 0x8864;
pub(super) const SERVICE_VLAN: u16 = 0x88a8;
pub(super) const PTP: u16 = 0x88f7;
pub(super) const PRP: u16 = 0x88fb;
pub(super) const CFM: u16 = 0x8902;
pub(super) const FCOE: u16 = 0x8906;
pub(super) const HSR: u16 = 0x892f;

pub(super) const HOP_BY_HOP: u8 = 0;
pub(super) const ICMP: u8 = 1;
pub(super) const IP_IN_IP: u8 = 4;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const DCCP: u8 = 33;
pub(super) const IPV6_IN_IP: u8 = 41;
pub(super) const ROUTING: u8 = 43;
pub(super) const FRAGMENT: u8 = 44;
pub(super) const GRE: u8 = 47;
pub(super) const ESP: u8 = 50;
pub(super) const AH: u8 = 51;
pub(super) const ICMP6: u8 = 58;
pub(super) const DESTINATION: u8 = 60;
pub(super) const SCTP: u8 = 132;
pub(super) const UDP_LITE: u8 = 136;
pub(super) const MPLS_IN_IP: u8 = 137;

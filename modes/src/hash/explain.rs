//! Explanation of a hash, for people and programs.

use std::fmt;

use bond_monitors::MacAddr;
use serde::Serialize;

use super::layers::{Addresses, Layer4};
use super::policy::XmitHashPolicy;

/// A hash with all its inputs.
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
    /// The fields of this frame that the policy used.
    pub uses: Source,
    /// IP addresses that count; of the quoted packet for an ICMP error, of the innermost header for the encap policies.
    pub addresses: Option<Addresses>,
    /// Layer-4 fields that count; empty for policies that do not use them.
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
    /// The frame is too short, and the driver hashes it to 0. [bond_main.c: bond_eth_hash]
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

/// Inputs of a hash.
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

//! IPv6 neighbour discovery. [RFC 4861]

use std::net::Ipv6Addr;

use super::ethernet::Tag;
use super::icmpv6::{self, Envelope};
use super::mac::MacAddr;

/// An unsolicited neighbour advertisement: announces to all nodes of the link the new place of an address. [RFC 4861 7.2.6]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsolicitedAdvertisement {
    /// The address advertised; also the sender.
    pub target: Ipv6Addr,
    /// Its link-layer address.
    pub mac: MacAddr,
    /// The sender forwards IPv6.
    pub router: bool,
}

impl UnsolicitedAdvertisement {
    /// The frame to all nodes, 86 bytes and 4 for each tag: override set, solicited clear, with the target's link-layer
    /// address. [ndisc.c: ndisc_send_unsol_na]
    pub fn frame(&self, tags: &[Tag]) -> Vec<u8> {
        let flags = if self.router { ROUTER | OVERRIDE } else { OVERRIDE };
        let envelope = Envelope {
            mac: self.mac,
            source: self.target,
            group: ALL_NODES,
            tags,
        };
        let option = Some((TARGET_LINK_LAYER, self.mac));
        envelope.frame(HOP_LIMIT, &[], message(ADVERTISEMENT, flags, self.target, option))
    }
}

/// A neighbour solicitation: asks where an address is. [RFC 4861 4.3]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// The asking address; `None` asks as `::`, like a host that looks for a duplicate of its address.
    pub source: Option<Ipv6Addr>,
    /// The asking hardware address.
    pub mac: MacAddr,
    /// The address asked about.
    pub target: Ipv6Addr,
}

impl Solicitation {
    /// The frame to the target's solicited-node group, 86 bytes and 4 for each tag. Without a source it has no link-layer
    /// address option and 8 bytes less. [ndisc.c: ndisc_ns_create, bond_main.c: bond_ns_send]
    pub fn frame(&self, tags: &[Tag]) -> Vec<u8> {
        let envelope = Envelope {
            mac: self.mac,
            source: self.source.unwrap_or(Ipv6Addr::UNSPECIFIED),
            group: solicited_node(self.target),
            tags,
        };
        let option = self.source.map(|_| (SOURCE_LINK_LAYER, self.mac));
        envelope.frame(HOP_LIMIT, &[], message(SOLICITATION, 0, self.target, option))
    }
}

/// Kind of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A question.
    Solicitation,
    /// An answer, or an unsolicited advertisement.
    Advertisement,
}

/// A neighbour solicitation or advertisement as it was heard. [bond_main.c: bond_na_rcv]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Its kind.
    pub kind: Kind,
    /// Receiver of the frame.
    pub destination: MacAddr,
    /// Sender of the frame.
    pub source: MacAddr,
    /// Sender of the packet; `::` in a solicitation that looks for a duplicate.
    pub source_ip: Ipv6Addr,
    /// Receiver of the packet.
    pub destination_ip: Ipv6Addr,
    /// The address asked about or advertised.
    pub target: Ipv6Addr,
}

impl Discovery {
    /// Parses a frame with any tags and padding. `None` if it is another frame, has crossed a router, or has a wrong checksum.
    /// [RFC 4861 7.1]
    ///
    /// differs: the driver checks neither hop limit nor checksum, so it accepts forged answers from other networks.
    pub fn parse(frame: &[u8]) -> Option<Discovery> {
        let heard = icmpv6::parse(frame).filter(|heard| heard.hop_limit == HOP_LIMIT)?;
        let ([kind, code, ..], rest) = heard.message.split_first_chunk::<8>()?;
        let kind = match (*kind, *code) {
            (SOLICITATION, 0) => Kind::Solicitation,
            (ADVERTISEMENT, 0) => Kind::Advertisement,
            _ => return None,
        };
        let target = rest.first_chunk::<16>()?;
        Some(Discovery {
            kind,
            destination: heard.destination,
            source: heard.source,
            source_ip: heard.source_ip,
            destination_ip: heard.destination_ip,
            target: (*target).into(),
        })
    }
}

/// The group in which every node with this address listens: ff02::1:ff00:0 and the lowest 24 bits. [RFC 4291 2.7.1]
/// Its link-layer address is [`MacAddr::ipv6_group`] of it.
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = target.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

/// A message without its checksum. [RFC 4861 4.3, 4.4]
fn message(kind: u8, flags: u8, target: Ipv6Addr, link_layer: Option<(u8, MacAddr)>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend_from_slice(&target.octets());
    if let Some((option, mac)) = link_layer {
        // Lengths count in units of 8 bytes.
        message.extend_from_slice(&[option, 1]);
        message.extend_from_slice(&mac.0);
    }
    message
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// Proves that no router has forwarded the packet.
const HOP_LIMIT: u8 = 255;

#[cfg(test)]
mod tests {
    use super::super::tests::{MAC, fixture};
    use super::*;

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    /// Sent by Linux 6.18 to find fe80::99.
    const SOLICITED: &str = "3333ff000099 020000000001 86dd 60000000 0020 3a ff fe80000000000000000000fffe000001 \
        ff0200000000000000000001ff000099 8700 7a69 00000000 fe800000000000000000000000000099 0101 020000000001";

    #[test]
    fn an_advertisement_goes_to_all_nodes_with_the_override_flag() {
        let mut na = UnsolicitedAdvertisement {
            target: ip("fe80::ff:fe00:1"),
            mac: MAC,
            router: false,
        };
        // Sent by Linux 6.18 with ndisc_notify=1 when the interface came up.
        let expected = fixture(
            "333300000001 020000000001 86dd 60000000 0020 3a ff fe80000000000000000000fffe000001 \
             ff020000000000000000000000000001 8800 599b 20000000 fe80000000000000000000fffe000001 0201 020000000001",
        );
        assert_eq!(na.frame(&[]), expected);
        na.router = true;
        assert_eq!(na.frame(&[])[58], 0xa0);
    }

    #[test]
    fn a_solicitation_has_the_bytes_of_the_kernels() {
        let ns = Solicitation {
            source: Some(ip("fe80::ff:fe00:1")),
            mac: MAC,
            target: ip("fe80::99"),
        };
        assert_eq!(ns.frame(&[]), fixture(SOLICITED));
    }

    #[test]
    fn a_solicitation_without_a_source_has_no_link_layer_option() {
        let ns = Solicitation {
            source: None,
            mac: MAC,
            target: ip("fe80::99"),
        };
        let frame = ns.frame(&[]);
        assert_eq!((frame.len(), frame[19]), (78, 24));
        let heard = Discovery::parse(&frame).unwrap();
        assert_eq!((heard.source_ip, heard.target), (Ipv6Addr::UNSPECIFIED, ip("fe80::99")));
    }

    #[test]
    fn what_the_kernel_sends_is_read() {
        let expected = Discovery {
            kind: Kind::Solicitation,
            destination: MacAddr([0x33, 0x33, 0xff, 0, 0, 0x99]),
            source: MAC,
            source_ip: ip("fe80::ff:fe00:1"),
            destination_ip: ip("ff02::1:ff00:99"),
            target: ip("fe80::99"),
        };
        assert_eq!(Discovery::parse(&fixture(SOLICITED)), Some(expected));
    }

    #[test]
    fn what_may_come_from_beyond_a_router_or_is_damaged_does_not_count() {
        let whole = fixture(SOLICITED);
        let parse_with = |at: usize, byte: u8| {
            let mut frame = whole.clone();
            frame[at] = byte;
            Discovery::parse(&frame)
        };
        assert!(parse_with(21, 255).is_some());
        assert_eq!(parse_with(21, 254), None, "hop limit");
        assert_eq!(parse_with(20, 0), None, "hop-by-hop header");
        assert_eq!(parse_with(14, 0x40), None, "version");
        assert_eq!(parse_with(12, 0x08), None, "EtherType");
        for at in (22..86).chain([18, 19]) {
            assert_eq!(parse_with(at, whole[at] ^ 1), None, "one bit of byte {at}");
        }
    }

    #[test]
    fn other_messages_are_no_discovery() {
        let envelope = Envelope {
            mac: MAC,
            source: ip("fe80::1"),
            group: ALL_NODES,
            tags: &[],
        };
        let parse = |message| Discovery::parse(&envelope.frame(HOP_LIMIT, &[], message));
        let good = message(ADVERTISEMENT, 0, ip("fe80::1"), None);
        assert!(parse(good.clone()).is_some());
        assert_eq!(
            parse(message(134, 0, ip("fe80::1"), None)),
            None,
            "router advertisement"
        );
        assert_eq!(parse(good[..23].to_vec()), None, "target cut");
        let mut coded = good;
        coded[1] = 1;
        assert_eq!(parse(coded), None, "code");
    }

    #[test]
    fn the_solicited_node_group_keeps_the_lowest_24_bits() {
        let group = solicited_node(ip("2001:db8::1234:5678"));
        assert_eq!(group, ip("ff02::1:ff34:5678"));
        assert_eq!(MacAddr::ipv6_group(group).to_string(), "33:33:ff:34:56:78");
    }
}

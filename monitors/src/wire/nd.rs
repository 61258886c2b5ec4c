//! IPv6 neighbour discovery. [RFC 4861]

use std::net::Ipv6Addr;

use super::ethernet;
use super::mac::MacAddr;

/// A neighbour advertisement that nobody asked for: tells all nodes of the link where an address now is. [RFC 4861 7.2.6]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsolicitedAdvertisement {
    /// The address advertised; also the sender.
    pub target: Ipv6Addr,
    /// Where it is.
    pub mac: MacAddr,
    /// The sender forwards IPv6.
    pub router: bool,
}

impl UnsolicitedAdvertisement {
    /// The frame to all nodes, 86 bytes, or 90 with a tag: override set, solicited clear, with the target's link-layer
    /// address. [ndisc.c: ndisc_send_unsol_na]
    pub fn frame(&self, vlan: Option<u16>) -> Vec<u8> {
        let mut frame = Vec::with_capacity(90);
        let header = ethernet::Header {
            destination: MacAddr([0x33, 0x33, 0, 0, 0, 1]),
            source: self.mac,
            vlan,
            ethertype: ethernet::IPV6,
        };
        header.emit(&mut frame);
        let icmp = self.icmp();
        let length = icmp.len() as u16;
        frame.extend_from_slice(&[0x60, 0, 0, 0]);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&[ICMPV6, HOP_LIMIT]);
        frame.extend_from_slice(&self.target.octets());
        frame.extend_from_slice(&ALL_NODES.octets());
        frame.extend_from_slice(&icmp);
        frame
    }

    fn icmp(&self) -> [u8; 32] {
        let mut icmp = [0; 32];
        icmp[0] = ADVERTISEMENT;
        icmp[4] = if self.router { 0xa0 } else { 0x20 };
        icmp[8..24].copy_from_slice(&self.target.octets());
        icmp[24..26].copy_from_slice(&[2, 1]); // target link-layer address, 8 bytes
        icmp[26..32].copy_from_slice(&self.mac.0);
        let sum = checksum(self.target, ALL_NODES, &icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        icmp
    }
}

/// ICMPv6 checksum over the pseudo header and a message of even length whose checksum field is zero. [RFC 8200 8.1]
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let mut sum = message.len() as u32 + u32::from(ICMPV6);
    let words = source.octets().into_iter().chain(destination.octets()).chain(message.iter().copied());
    let mut high = None;
    for byte in words {
        match high.take() {
            None => high = Some(byte),
            Some(first) => sum += u32::from(u16::from_be_bytes([first, byte])),
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMPV6: u8 = 58;
const ADVERTISEMENT: u8 = 136;
const HOP_LIMIT: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_has_the_bytes_of_the_kernels() {
        let na = UnsolicitedAdvertisement {
            target: "fe80::ff:fe00:1".parse().unwrap(),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            router: false,
        };
        let frame = na.frame(None);
        assert_eq!(frame.len(), 86);
        assert_eq!(frame[..14], [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd]);
        assert_eq!(frame[14..22], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(frame[54..56], [136, 0]);
        assert_eq!(frame[58], 0x20);
        assert_eq!(frame[78..], [2, 1, 2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn the_checksum_makes_the_whole_sum_vanish() {
        let na = UnsolicitedAdvertisement {
            target: "2001:db8::abcd".parse().unwrap(),
            mac: MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]),
            router: true,
        };
        assert_eq!(checksum(na.target, ALL_NODES, &na.icmp()), 0);
    }
}

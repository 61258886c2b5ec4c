//! ICMPv6 in its frame, shared by neighbour discovery and multicast listener reports. [RFC 4443, RFC 8200]

use std::net::Ipv6Addr;

use super::checksum::internet;
use super::ethernet::{self, Tag};
use super::mac::MacAddr;

/// Protocol number of ICMPv6.
pub(super) const PROTOCOL: u8 = 58;
/// Length of an IPv6 header.
pub(super) const IPV6_HEADER: usize = 40;

/// Sender and group of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope<'a> {
    /// Sender of the frame.
    pub mac: MacAddr,
    /// Sender of the packet; may be `::`.
    pub source: Ipv6Addr,
    /// Receivers.
    pub group: Ipv6Addr,
    /// Tags, the outermost first.
    pub tags: &'a [Tag],
}

impl Envelope<'_> {
    /// The frame with this message, whose checksum is filled in, behind a hop-by-hop header or none.
    pub(super) fn frame(&self, hop_limit: u8, hop_by_hop: &[u8], mut message: Vec<u8>) -> Vec<u8> {
        let sum = checksum(self.source, self.group, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let length = (hop_by_hop.len() + message.len()) as u16;
        let next_header = if hop_by_hop.is_empty() { PROTOCOL } else { HOP_BY_HOP };
        let mut packet = Vec::with_capacity(IPV6_HEADER + usize::from(length));
        packet.extend_from_slice(&[0x60, 0, 0, 0]);
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(&[next_header, hop_limit]);
        packet.extend_from_slice(&self.source.octets());
        packet.extend_from_slice(&self.group.octets());
        packet.extend_from_slice(hop_by_hop);
        packet.extend_from_slice(&message);
        let header = ethernet::Header {
            destination: MacAddr::ipv6_group(self.group),
            source: self.mac,
            tags: self.tags,
            ethertype: ethernet::IPV6,
        };
        header.frame(&packet)
    }
}

/// A received message.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivedMessage<'a> {
    /// Receiver of the frame.
    pub destination: MacAddr,
    /// Sender of the frame.
    pub source: MacAddr,
    /// Sender of the packet.
    pub source_ip: Ipv6Addr,
    /// Receiver of the packet.
    pub destination_ip: Ipv6Addr,
    /// Hops the packet had left.
    pub hop_limit: u8,
    /// Type, code, checksum and what follows.
    pub message: &'a [u8],
}

/// A whole ICMPv6 message directly behind the IPv6 header, its checksum right.
pub(super) fn parse(frame: &[u8]) -> Option<ReceivedMessage<'_>> {
    let outer = ethernet::strip(frame).filter(|outer| outer.ethertype == ethernet::IPV6)?;
    let (start, rest) = outer.bytes.split_first_chunk()?;
    let (source, rest) = rest.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    let [version, _, _, _, high, low, next_header, hop_limit] = *start;
    let heard = ReceivedMessage {
        destination: outer.destination,
        source: outer.source,
        source_ip: (*source).into(),
        destination_ip: (*destination).into(),
        hop_limit,
        message: rest.get(..u16::from_be_bytes([high, low]).into())?,
    };
    let valid = version >> 4 == 6
        && next_header == PROTOCOL
        && checksum(heard.source_ip, heard.destination_ip, heard.message) == 0;
    valid.then_some(heard)
}

/// Checksum of an ICMPv6 message and its pseudo header. [RFC 8200 8.1]
pub(super) fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = message.len() as u32;
    let ends = source.octets().into_iter().chain(destination.octets());
    let pseudo = ends.chain(length.to_be_bytes()).chain([0, 0, 0, PROTOCOL]);
    internet(pseudo.chain(message.iter().copied()))
}

/// Header number of hop-by-hop options.
const HOP_BY_HOP: u8 = 0;

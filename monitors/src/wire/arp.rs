//! ARP for IPv4 over Ethernet. [RFC 826]

use std::net::Ipv4Addr;

use super::ethernet::{self, Tag};
use super::mac::MacAddr;

/// A request that every node of the link hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The asking hardware address.
    pub sender_mac: MacAddr,
    /// The asking address; 0.0.0.0 asks without one and changes no neighbour's table. [RFC 5227 1.1]
    pub sender_ip: Ipv4Addr,
    /// The address asked about.
    pub target_ip: Ipv4Addr,
}

impl Request {
    /// A gratuitous request: sender and target are the same address, so every neighbour refreshes its entry and every
    /// switch learns where the address now is. [RFC 5944 4.6]
    pub fn gratuitous(mac: MacAddr, ip: Ipv4Addr) -> Self {
        Request::probe(mac, ip, ip)
    }

    /// Asks whether a target is there. [bond_main.c: bond_arp_send]
    pub fn probe(mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Request {
            sender_mac: mac,
            sender_ip: sender,
            target_ip: target,
        }
    }

    /// The broadcast frame, 42 bytes and 4 for each tag; the target's MAC is zero. [arp.c: arp_create]
    pub fn frame(&self, tags: &[Tag]) -> Vec<u8> {
        let request = Arp {
            destination: MacAddr::BROADCAST,
            source: self.sender_mac,
            operation: Operation::Request,
            sender_mac: self.sender_mac,
            sender_ip: self.sender_ip,
            target_mac: MacAddr::default(),
            target_ip: self.target_ip,
        };
        request.frame(tags)
    }
}

/// Kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A question.
    Request,
    /// An answer.
    Reply,
}

/// A message and the addresses of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Receiver of the frame.
    pub destination: MacAddr,
    /// Sender of the frame.
    pub source: MacAddr,
    /// Request or reply.
    pub operation: Operation,
    /// The sender.
    pub sender_mac: MacAddr,
    /// The speaker's address; may be 0.0.0.0 in a request.
    pub sender_ip: Ipv4Addr,
    /// Whom a reply is for; nothing to go by in a request.
    pub target_mac: MacAddr,
    /// The address asked about, or the asker's in a reply.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// The frame, 42 bytes and 4 for each tag.
    pub fn frame(&self, tags: &[Tag]) -> Vec<u8> {
        let operation = match self.operation {
            Operation::Request => REQUEST,
            Operation::Reply => REPLY,
        };
        let header = ethernet::Header {
            destination: self.destination,
            source: self.source,
            tags,
            ethertype: ethernet::ARP,
        };
        header.frame(&message(
            operation,
            (self.sender_mac, self.sender_ip),
            (self.target_mac, self.target_ip),
        ))
    }

    /// Reads a frame with any tags and padding; none if it is not a whole request or reply for IPv4 over Ethernet.
    /// [bond_main.c: bond_arp_rcv]
    pub fn parse(frame: &[u8]) -> Option<Arp> {
        let outer = ethernet::strip(frame).filter(|outer| outer.ethertype == ethernet::ARP)?;
        let rest = outer.bytes.strip_prefix(&FORMAT)?;
        let (operation, rest) = rest.split_first_chunk()?;
        let (sender_mac, rest) = rest.split_first_chunk()?;
        let (sender_ip, rest) = rest.split_first_chunk::<4>()?;
        let (target_mac, rest) = rest.split_first_chunk()?;
        let target_ip = rest.first_chunk::<4>()?;
        Some(Arp {
            destination: outer.destination,
            source: outer.source,
            operation: match u16::from_be_bytes(*operation) {
                REQUEST => Operation::Request,
                REPLY => Operation::Reply,
                _ => return None,
            },
            sender_mac: MacAddr(*sender_mac),
            sender_ip: (*sender_ip).into(),
            target_mac: MacAddr(*target_mac),
            target_ip: (*target_ip).into(),
        })
    }
}

/// The layout that ARP and RARP share.
pub(super) fn message(operation: u16, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> [u8; 28] {
    let mut message = [0; 28];
    message[..6].copy_from_slice(&FORMAT);
    message[6..8].copy_from_slice(&operation.to_be_bytes());
    message[8..14].copy_from_slice(&sender.0.0);
    message[14..18].copy_from_slice(&sender.1.octets());
    message[18..24].copy_from_slice(&target.0.0);
    message[24..].copy_from_slice(&target.1.octets());
    message
}

/// Ethernet, IPv4, 6 and 4 byte addresses.
const FORMAT: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

#[cfg(test)]
mod tests {
    use super::super::tests::{MAC, fixture};
    use super::*;

    /// Sent by Linux 6.18 to find 10.0.0.77.
    const REQUESTED: &str =
        "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 0a000001 000000000000 0a00004d";

    #[test]
    fn a_gratuitous_request_names_one_address_twice() {
        let frame = Request::gratuitous(MAC, Ipv4Addr::new(10, 0, 0, 7)).frame(&[]);
        assert_eq!(
            frame,
            [
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, // Ethernet
                0, 1, 8, 0, 6, 4, 0, 1, // request
                2, 0, 0, 0, 0, 1, 10, 0, 0, 7, // sender
                0, 0, 0, 0, 0, 0, 10, 0, 0, 7, // target
            ]
        );
    }

    #[test]
    fn a_probe_has_the_bytes_of_the_kernels_request() {
        let (own, target) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 77));
        assert_eq!(Request::probe(MAC, own, target).frame(&[]), fixture(REQUESTED));
        let nameless = Request::probe(MAC, Ipv4Addr::UNSPECIFIED, target).frame(&[]);
        assert_eq!(nameless[28..32], [0; 4]);
    }

    #[test]
    fn what_the_kernel_sends_is_read() {
        let expected = Arp {
            destination: MacAddr::BROADCAST,
            source: MAC,
            operation: Operation::Request,
            sender_mac: MAC,
            sender_ip: Ipv4Addr::new(10, 0, 0, 1),
            target_mac: MacAddr::default(),
            target_ip: Ipv4Addr::new(10, 0, 0, 77),
        };
        assert_eq!(Arp::parse(&fixture(REQUESTED)), Some(expected));
    }

    #[test]
    fn only_requests_and_replies_for_ipv4_over_ethernet_are_read() {
        let whole = fixture(REQUESTED);
        let parse_with = |at: usize, byte: u8| {
            let mut frame = whole.clone();
            frame[at] = byte;
            Arp::parse(&frame).map(|arp| arp.operation)
        };
        assert_eq!(parse_with(21, 2), Some(Operation::Reply));
        for (at, byte) in [
            (13, 0x35),
            (15, 6),
            (16, 0x86),
            (18, 8),
            (19, 16),
            (20, 1),
            (21, 0),
            (21, 3),
        ] {
            assert_eq!(parse_with(at, byte), None, "byte {at} = {byte}");
        }
    }
}

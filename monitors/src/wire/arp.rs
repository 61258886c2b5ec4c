//! ARP for IPv4 over Ethernet. [RFC 826]

use std::net::Ipv4Addr;

use super::ethernet;
use super::mac::MacAddr;

/// An ARP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub sender_mac: MacAddr,
    /// The asking address.
    pub sender_ip: Ipv4Addr,
    /// The address asked about.
    pub target_ip: Ipv4Addr,
}

impl Request {
    /// A gratuitous request: sender and target are the same address, so every neighbour refreshes its entry and every
    /// switch learns where the address now is. [RFC 5944 4.6]
    pub fn gratuitous(mac: MacAddr, ip: Ipv4Addr) -> Self {
        Request { sender_mac: mac, sender_ip: ip, target_ip: ip }
    }

    /// The broadcast frame, 42 bytes, or 46 with a tag. [arp.c: arp_create]
    pub fn frame(&self, vlan: Option<u16>) -> Vec<u8> {
        let mut frame = Vec::with_capacity(46);
        let header = ethernet::Header {
            destination: MacAddr::BROADCAST,
            source: self.sender_mac,
            vlan,
            ethertype: ethernet::ARP,
        };
        header.emit(&mut frame);
        // Ethernet, IPv4, 6 and 4 byte addresses, request.
        frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend_from_slice(&self.sender_mac.0);
        frame.extend_from_slice(&self.sender_ip.octets());
        frame.extend_from_slice(&[0; 6]);
        frame.extend_from_slice(&self.target_ip.octets());
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gratuitous_request_names_one_address_twice() {
        let frame = Request::gratuitous(MacAddr([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 7)).frame(None);
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
}

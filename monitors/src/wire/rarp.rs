//! RARP, used as by virtualisation hosts after a migration: it shows a switch the port of an address whose owner does not send.
//! [RFC 903]

use std::net::Ipv4Addr;

use super::arp;
use super::ethernet::{self, Tag};
use super::mac::MacAddr;

/// The frame by which switches learn that `mac` is here: a broadcast from it that asks for its own protocol address, which
/// changes no neighbour's ARP entry. 60 bytes, the least that Ethernet carries, and 4 for each tag.
pub fn learning_frame(mac: MacAddr, tags: &[Tag]) -> Vec<u8> {
    let header = ethernet::Header {
        destination: MacAddr::BROADCAST,
        source: mac,
        tags,
        ethertype: ethernet::RARP,
    };
    let itself = (mac, Ipv4Addr::UNSPECIFIED);
    let mut payload = [0; 46];
    payload[..28].copy_from_slice(&arp::message(REQUEST_REVERSE, itself, itself));
    header.frame(&payload)
}

const REQUEST_REVERSE: u16 = 3;

#[cfg(test)]
mod tests {
    use super::super::tests::{MAC, fixture};
    use super::*;

    #[test]
    fn a_learning_frame_names_one_hardware_address_and_no_protocol_address() {
        let bare =
            fixture("ffffffffffff 020000000001 8035 0001 0800 06 04 0003 020000000001 00000000 020000000001 00000000");
        let frame = learning_frame(MAC, &[]);
        assert_eq!(frame[..42], bare);
        assert_eq!(frame[42..], [0; 18], "padding");
    }

    #[test]
    fn tags_come_on_top_of_the_least_length() {
        let tagged = learning_frame(MAC, &[Tag::s(9), Tag::c(7)]);
        assert_eq!(tagged.len(), 68);
        assert_eq!(tagged[12..22], [0x88, 0xa8, 0, 9, 0x81, 0, 0, 7, 0x80, 0x35]);
    }
}

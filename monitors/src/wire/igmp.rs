//! IGMP membership reports, which show switches a listening host behind this port. [RFC 2236, RFC 3376]

use std::net::Ipv4Addr;

use super::ethernet::{self, Tag};
use super::mac::MacAddr;
use super::{checksum, membership};

/// A host's membership in one IPv4 group.
pub type Record = membership::Record<Ipv4Addr>;

/// A version 2 report, sent to the group itself. [RFC 2236 2, igmp.c: igmp_send_report]
pub fn v2(mac: MacAddr, source: Ipv4Addr, group: Ipv4Addr, tags: &[Tag]) -> Vec<u8> {
    let mut message = vec![V2_REPORT, 0, 0, 0];
    message.extend_from_slice(&group.octets());
    frame(mac, source, group, tags, message)
}

/// Version 3 reports, sent to all IGMPv3 routers, split so that no packet exceeds the MTU.
/// [RFC 3376 4.2, igmp.c: igmpv3_send_report]
pub fn v3(mac: MacAddr, source: Ipv4Addr, records: &[Record], mtu: u32, tags: &[Tag]) -> Vec<Vec<u8>> {
    membership::reports(V3_REPORT, records, membership::room(mtu, IPV4_HEADER))
        .into_iter()
        .map(|message| frame(mac, source, V3_ROUTERS, tags, message))
        .collect()
}

/// The frame with this message, whose checksum is filled in, with a TTL of 1 and the router alert.
fn frame(mac: MacAddr, source: Ipv4Addr, group: Ipv4Addr, tags: &[Tag], mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum::internet(message.iter().copied());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let [high, low] = ((IPV4_HEADER + message.len()) as u16).to_be_bytes();
    // Version and header length, TOS, length, id, do not fragment, TTL, protocol, checksum.
    let mut packet = vec![0x46, TOS, high, low, 0, 0, 0x40, 0, 1, PROTOCOL, 0, 0];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&group.octets());
    packet.extend_from_slice(&ROUTER_ALERT);
    let sum = checksum::internet(packet.iter().copied());
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(&message);
    let header = ethernet::Header {
        destination: MacAddr::ipv4_group(group),
        source: mac,
        tags,
        ethertype: ethernet::IPV4,
    };
    header.frame(&packet)
}

const V2_REPORT: u8 = 0x16;
const V3_REPORT: u8 = 0x22;
const V3_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const PROTOCOL: u8 = 2;
/// Internetwork control, as every router's own traffic.
const TOS: u8 = 0xc0;
/// [RFC 2113]
const ROUTER_ALERT: [u8; 4] = [148, 4, 0, 0];
/// With the router alert.
const IPV4_HEADER: usize = 24;

#[cfg(test)]
mod tests {
    use super::super::membership::Kind;
    use super::super::tests::{MAC, fixture};
    use super::*;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    #[test]
    fn a_version_2_report_has_the_bytes_of_the_kernels() {
        // Sent by Linux 6.18 with force_igmp_version=2 when a socket joined 239.4.5.6.
        let sent = fixture(
            "01005e040506 020000000001 0800 46c0 0020 0000 4000 01 02 e60c 0a000001 ef040506 94040000 \
             1600 f5f4 ef040506",
        );
        assert_eq!(v2(MAC, SOURCE, Ipv4Addr::new(239, 4, 5, 6), &[]), sent);
    }

    #[test]
    fn a_version_3_report_has_the_bytes_of_the_kernels() {
        // The answer of Linux 6.18 to a general query: 232.1.1.1 from 10.0.0.9 only, 239.1.2.3 from everybody.
        let sent = fixture(
            "01005e000016 020000000001 0800 46c0 0034 0000 4000 01 02 f9ec 0a000001 e0000016 94040000 \
             2200 f6eb 0000 0002 01000001 e8010101 0a000009 02000000 ef010203",
        );
        let records = [
            Record {
                kind: Kind::Include,
                group: Ipv4Addr::new(232, 1, 1, 1),
                sources: vec![Ipv4Addr::new(10, 0, 0, 9)],
            },
            Record {
                kind: Kind::Exclude,
                group: Ipv4Addr::new(239, 1, 2, 3),
                sources: vec![],
            },
        ];
        assert_eq!(v3(MAC, SOURCE, &records, 1500, &[]), [sent]);
        assert_eq!(v3(MAC, SOURCE, &records, 51, &[]).len(), 2);
    }

    #[test]
    fn no_report_exceeds_the_mtu_whatever_its_tags() {
        let record = |low| Record {
            kind: Kind::Exclude,
            group: Ipv4Addr::new(239, 0, 0, low),
            sources: vec![SOURCE; 30],
        };
        let records: Vec<_> = (0..100).map(record).collect();
        for (mtu, frames) in [(1500, 10), (9000, 2), (65535, 1), (u32::MAX, 1)] {
            let sent = v3(MAC, SOURCE, &records, mtu, &[Tag::c(7)]);
            assert_eq!(sent.len(), frames, "MTU {mtu}");
            assert!(sent.iter().all(|frame| frame.len() as u64 <= 18 + u64::from(mtu)));
        }
    }
}

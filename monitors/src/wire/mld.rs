//! MLD reports, which show switches a listening host behind this port. [RFC 2710, RFC 3810]

use std::net::Ipv6Addr;

use super::ethernet::Tag;
use super::icmpv6::{Envelope, IPV6_HEADER};
use super::mac::MacAddr;
use super::membership;

/// A host's membership in one IPv6 group.
pub type Record = membership::Record<Ipv6Addr>;

/// A version 1 report, sent to the group itself; the source is link-local, or `::` while there is none.
/// [RFC 2710 3, mcast.c: igmp6_send]
pub fn v1(mac: MacAddr, source: Ipv6Addr, group: Ipv6Addr, tags: &[Tag]) -> Vec<u8> {
    let mut message = vec![V1_REPORT, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&group.octets());
    let envelope = Envelope {
        mac,
        source,
        group,
        tags,
    };
    envelope.frame(HOP_LIMIT, &ROUTER_ALERT, message)
}

/// Version 2 reports, sent to all MLDv2 routers, split so that no packet exceeds the MTU. The source is as in
/// [`v1`]. [RFC 3810 5.2, mcast.c: mld_send_report]
pub fn v2(mac: MacAddr, source: Ipv6Addr, records: &[Record], mtu: u32, tags: &[Tag]) -> Vec<Vec<u8>> {
    let envelope = Envelope {
        mac,
        source,
        group: V2_ROUTERS,
        tags,
    };
    let room = membership::room(mtu, IPV6_HEADER + ROUTER_ALERT.len());
    membership::reports(V2_REPORT, records, room)
        .into_iter()
        .map(|message| envelope.frame(HOP_LIMIT, &ROUTER_ALERT, message))
        .collect()
}

const V1_REPORT: u8 = 131;
const V2_REPORT: u8 = 143;
const V2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const HOP_LIMIT: u8 = 1;
/// Hop-by-hop header: ICMPv6 follows, 8 bytes; router alert for MLD, padding. [RFC 2711]
const ROUTER_ALERT: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];

#[cfg(test)]
mod tests {
    use super::super::membership::Kind;
    use super::super::tests::{MAC, fixture};
    use super::*;

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn record(kind: Kind, group: &str, sources: &[&str]) -> Record {
        Record {
            kind,
            group: ip(group),
            sources: sources.iter().map(|source| ip(source)).collect(),
        }
    }

    #[test]
    fn a_version_1_report_has_the_bytes_of_the_kernels() {
        // Sent by Linux 6.18 with force_mld_version=1 when a socket joined ff15::5678.
        let sent = fixture(
            "333300005678 020000000001 86dd 60000000 0020 00 01 fe80000000000000000000fffe000001 \
             ff150000000000000000000000005678 3a00 0502 0000 0100 8300 d40e 0000 0000 ff150000000000000000000000005678",
        );
        assert_eq!(v1(MAC, ip("fe80::ff:fe00:1"), ip("ff15::5678"), &[]), sent);
    }

    #[test]
    fn a_version_2_report_has_the_bytes_of_the_kernels() {
        // The answer of Linux 6.18 to a general query: ff35::4321 from 2001:db8::9 only, two groups from everybody.
        let sent = fixture(
            "333300000016 020000000001 86dd 60000000 005c 00 01 fe80000000000000000000fffe000001 \
             ff020000000000000000000000000016 3a00 0502 0000 0100 8f00 ef68 0000 0003 \
             01000001 ff350000000000000000000000004321 20010db8000000000000000000000009 \
             02000000 ff150000000000000000000000001234 02000000 ff0200000000000000000001ff000001",
        );
        let records = [
            record(Kind::Include, "ff35::4321", &["2001:db8::9"]),
            record(Kind::Exclude, "ff15::1234", &[]),
            record(Kind::Exclude, "ff02::1:ff00:1", &[]),
        ];
        assert_eq!(v2(MAC, ip("fe80::ff:fe00:1"), &records, 1500, &[]), [sent]);
    }

    #[test]
    fn no_report_exceeds_the_mtu_whatever_its_tags() {
        let records = vec![record(Kind::Include, "ff35::1", &["2001:db8::9"; 100]); 3];
        for (mtu, frames) in [(1280, 6), (1500, 6), (9000, 1), (u32::MAX, 1)] {
            let sent = v2(MAC, Ipv6Addr::UNSPECIFIED, &records, mtu, &[Tag::c(7)]);
            assert_eq!(sent.len(), frames, "MTU {mtu}");
            assert!(sent.iter().all(|frame| frame.len() as u64 <= 18 + u64::from(mtu)));
        }
    }
}

//! The hash against vectors that were checked through the real driver, and against rules the vectors do not reach.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::dissect::{Flow, deep, shallow};
use super::*;

#[derive(Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    frame: String,
    tci: Option<u16>,
    nhoff: usize,
    results: BTreeMap<String, Wanted>,
}

#[derive(Deserialize)]
struct Wanted {
    hash: u32,
    slave: BTreeMap<String, u32>,
}

fn vectors() -> Vec<Vector> {
    let text = include_str!("../../testdata/hash_vectors.json");
    serde_json::from_str::<Vectors>(text).unwrap().vectors
}

fn bytes(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    (0..hex.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
        .collect()
}

fn frame(name: &str) -> Vec<u8> {
    let found = vectors().into_iter().find(|v| v.name == name);
    bytes(&found.unwrap_or_else(|| panic!("no vector {name}")).frame)
}

/// A frame between two fixed stations with this EtherType and payload.
fn ethernet_frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = bytes("02005e100007 52540 0abcdef");
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet 10.0.0.1 > 10.0.0.2 without options.
fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet.extend(payload);
    packet
}

/// Every EtherType and IP protocol that some rule names, and a few that none does.
const ETHERTYPES: [u16; 20] = [
    0x0800, 0x0806, 0x4305, 0x6558, 0x8035, 0x8100, 0x86dd, 0x8847, 0x8848, 0x8864, 0x88a8, 0x88ca, 0x88cc, 0x88f7,
    0x88fb, 0x8902, 0x8906, 0x892f, 0x880b, 0,
];
const PROTOCOLS: [u8; 18] = [0, 1, 2, 4, 6, 17, 33, 41, 43, 44, 47, 50, 51, 58, 60, 132, 136, 137];

#[test]
fn every_vector_has_the_hash_and_the_port_of_the_driver() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 39);
    for vector in &vectors {
        let frame = bytes(&vector.frame);
        assert_eq!(vector.results.len(), XmitHashPolicy::VALUES.len(), "{}", vector.name);
        for &(policy, policy_name, _) in XmitHashPolicy::VALUES {
            let wanted = &vector.results[policy_name];
            let hash = hash_at(policy, &frame, vector.tci, vector.nhoff);
            assert_eq!(hash, wanted.hash, "{} {policy_name}", vector.name);
            for (count, &port) in &wanted.slave {
                assert_eq!(
                    hash % count.parse::<u32>().unwrap(),
                    port,
                    "{} {policy_name}",
                    vector.name
                );
            }
            if vector.nhoff == ETHERNET_HEADER {
                assert_eq!(
                    super::hash(policy, &frame, vector.tci),
                    wanted.hash,
                    "{} {policy_name}",
                    vector.name
                );
            }
        }
    }
}

#[test]
fn a_tag_inside_a_whole_frame_counts_like_one_outside() {
    for &(policy, name, _) in XmitHashPolicy::VALUES {
        let outside = hash(policy, &frame("vlan100-tcp"), Some(100));
        assert_eq!(hash(policy, &frame("inband-vlan-tcp"), None), outside, "{name}");
        let inner = hash_at(policy, &frame("bridged-qinq-tcp"), Some(100), ETHERNET_HEADER);
        assert_eq!(
            hash(policy, &frame("bridged-qinq-tcp"), Some(100)),
            inner,
            "{name}: the second tag stays"
        );
    }
}

#[test]
fn both_directions_of_a_flow_agree_modulo_powers_of_two() {
    let (there, back) = (frame("ip4-tcp"), frame("ip4-tcp-reverse"));
    for policy in [XmitHashPolicy::Layer34, XmitHashPolicy::Encap34] {
        let (there, back) = (hash(policy, &there, None), hash(policy, &back, None));
        assert_eq!(there % 128, back % 128);
        assert_ne!(there, back);
    }
}

#[test]
fn an_error_without_its_quoted_packet_counts_as_no_ip() {
    let mut error = frame("ip4-icmp-unreach");
    let quoted = hash(XmitHashPolicy::Layer34, &error, None);
    error.truncate(14 + 20 + 8 + 19);
    let cut = explain(XmitHashPolicy::Layer34, &error, None);
    assert_eq!(
        (cut.uses, cut.hash),
        (Source::Ethernet, hash(XmitHashPolicy::Layer2, &error, None))
    );
    assert_ne!(cut.hash, quoted);
    error.truncate(14 + 20 + 7);
    assert_eq!(
        explain(XmitHashPolicy::Layer34, &error, None).uses,
        Source::Layer34,
        "not seen to be an error"
    );
}

#[test]
fn a_header_length_below_five_words_stops_only_the_generic_dissector() {
    let mut packet = ipv4(6, &[0; 20]);
    packet[0] = 0x44;
    assert!(shallow(&packet, 0x0800, 0).is_some());
    assert_eq!(deep(&packet, 0x0800, 0), None);
}

#[test]
fn gre_is_opened_in_the_forms_that_the_kernel_opens() {
    let inner = ipv4(17, &bytes("0457 08ae 0008 0000"));
    let udp = Layer4::Ports {
        protocol: 17,
        source: 1111,
        destination: 2222,
    };
    let through = |header: &str| {
        let payload = [bytes(header), inner.clone()].concat();
        deep(&ipv4(47, &payload), 0x0800, 0).map(|flow| flow.layer4)
    };
    assert_eq!(through("0000 0800"), Some(udp), "plain");
    assert_eq!(
        through("b000 0800 00000000 00000001 00000002"),
        Some(udp),
        "checksum, key, sequence"
    );
    assert_eq!(
        through("3081 880b 00000001 00000002 00000003 ff030021"),
        Some(udp),
        "PPTP with IPv4"
    );
    assert_eq!(through("4000 0800"), Some(Layer4::Nothing), "routing");
    assert_eq!(through("0002 0800"), Some(Layer4::Nothing), "version 2");
    assert_eq!(through("0001 880b"), Some(Layer4::Nothing), "PPTP without key");
    assert_eq!(through("0000 88cc"), None, "an unknown protocol inside");
    assert_eq!(
        deep(&ipv4(47, &bytes("2000 0806 0000")), 0x0800, 0),
        None,
        "key cut off"
    );
}

#[test]
fn other_encapsulations_are_opened() {
    let inner = ipv4(17, &bytes("0457 08ae 0008 0000"));
    let plain = deep(&inner, 0x0800, 0);
    let through = |ethertype: u16, header: &str| deep(&[bytes(header), inner.clone()].concat(), ethertype, 0);
    assert!(plain.is_some_and(|flow| flow.layer4 != Layer4::Nothing));
    assert_eq!(through(0x892f, "0000 0000 0800"), plain, "HSR");
    assert_eq!(through(0x88fb, "0000 0000 0800"), plain, "PRP");
    assert_eq!(through(0x8864, "1100 0001 0000 0021"), plain, "PPPoE");
    assert_eq!(
        through(0x8864, "1100 0001 0000 21"),
        plain,
        "PPPoE, compressed protocol"
    );
    assert_eq!(through(0x8864, "1109 0001 0000 0021"), None, "PPPoE that is no session");
    let batman = "400f 0000 000000000000 02005e100007 525400abcdef 0800";
    assert_eq!(through(0x4305, batman), plain, "B.A.T.M.A.N. unicast");
    assert_eq!(
        through(0x4305, &batman.replace("400f", "400e")),
        None,
        "another version"
    );
    assert_eq!(through(0x8847, "003e8140"), Some(Flow::default()), "MPLS is not opened");
}

#[test]
fn at_most_fifteen_headers_are_gone_through() {
    let inner = ipv4(17, &bytes("0457 08ae 0008 0000"));
    let tagged = |tags: usize| {
        let mut payload = bytes("0001 8100").repeat(tags - 1);
        payload.extend(bytes("0001 0800"));
        payload.extend(&inner);
        deep(&payload, 0x8100, 0)
    };
    assert_eq!(tagged(15), deep(&inner, 0x0800, 0));
    assert_eq!(tagged(16), Some(Flow::default()), "it ends well, with nothing found");
}

#[test]
fn every_truncation_and_any_garbage_has_a_hash() {
    for vector in vectors() {
        let frame = bytes(&vector.frame);
        for length in 0..=frame.len() {
            for &(policy, ..) in XmitHashPolicy::VALUES {
                let cut = &frame[..length];
                let hash = hash(policy, cut, vector.tci);
                assert!(length >= ETHERNET_HEADER || hash == 0);
                hash_at(policy, cut, vector.tci, vector.nhoff);
                hash_at(policy, cut, None, usize::MAX);
                explain(policy, cut, None).to_string();
            }
        }
    }
    let mut random = Random(0x5eed);
    for _ in 0..20_000 {
        let length = random.below(160) as usize;
        let mut payload: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        // Plausible headers go deeper than noise.
        for at in (0..length).step_by(4) {
            match random.below(8) {
                0 if at + 1 < length => {
                    let ethertype = ETHERTYPES[random.below(20) as usize].to_be_bytes();
                    payload[at..at + 2].copy_from_slice(&ethertype);
                }
                1 => payload[at] = PROTOCOLS[random.below(18) as usize],
                2 => payload[at] = 0x45,
                3 => payload[at] = 0,
                _ => {}
            }
        }
        let frame = ethernet_frame(ETHERTYPES[random.below(20) as usize], &payload);
        for &(policy, ..) in XmitHashPolicy::VALUES {
            let explained = explain(policy, &frame, None);
            let mixed = explained.first_word ^ explained.address_word;
            assert_eq!(
                explained.folded.unwrap_or(mixed),
                if explained.folded.is_some() { fold(mixed) } else { mixed }
            );
            assert_eq!(explained.hash, hash(policy, &frame, None));
        }
    }
}

#[test]
fn an_explanation_names_the_fields_and_the_sum() {
    let text = |policy, name, tci| explain(policy, &frame(name), tci).to_string();
    use XmitHashPolicy::*;
    assert_eq!(
        text(Layer34, "ip4-tcp", None),
        "fields   IP 192.168.1.10 > 192.168.1.20, layer 4 TCP 40000 > 80\n\
         hash     fold(0x5000409c of layer 4 ^ 0x1e000000 of IP) >> 1 = 0x27270749"
    );
    assert_eq!(
        text(Layer23, "ip4-tcp", None),
        "fields   MAC 52:54:00:ab:cd:ef > 02:00:5e:10:00:07, EtherType 0x0800, IP 192.168.1.10 > 192.168.1.20\n\
         hash     fold(0x000008e8 of Ethernet ^ 0x1e000000 of IP) = 0x1e1e16fe"
    );
    assert!(
        text(Layer34, "arp", None)
            .contains("EtherType 0x0806 (no IP header that the policy reads)\nhash     0x00000816")
    );
    assert!(text(Encap34, "arp", None).contains("IP none, layer 4 none\n"));
    assert!(text(VlanSrcmac, "vlan100p5-tcp", Some(0xa064)).contains("VLAN tag 0xa064 (id 100, priority 5)"));
    assert!(text(Encap34, "ip4-icmp-echo-id0", None).contains("layer 4 ICMP type 8 code 0 id 1"));
}

#[test]
fn an_explanation_in_json_has_names_for_everything() {
    let json = serde_json::to_value(explain(XmitHashPolicy::Layer34, &frame("ip4-esp"), None)).unwrap();
    assert_eq!(json["policy"], "layer3+4");
    assert_eq!(json["uses"], "layer34");
    assert_eq!(json["addresses"]["source"], "198.51.100.1");
    assert_eq!(json["layer4"]["spi"]["spi"], 0xdead_beef_u32);
    assert_eq!(json["hash"], hash(XmitHashPolicy::Layer34, &frame("ip4-esp"), None));
}

/// xorshift, so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

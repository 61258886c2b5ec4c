//! Properties of all formats, on random values and on every truncated frame.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::arp::{Arp, Operation};
use super::ethernet::{Tag, strip};
use super::mac::MacAddr;
use super::membership::{Kind, Record};
use super::nd::{Discovery, Solicitation, UnsolicitedAdvertisement, solicited_node};
use super::{checksum, icmpv6, igmp, mld, nd, rarp};

/// Sender of all fixtures.
pub(super) const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// Bytes written as hexadecimal digits with blanks between them.
pub(super) fn fixture(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// A repeatable source of values. [splitmix64]
struct Random(u64);

impl Random {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        [(); N].map(|()| self.next() as u8)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn flip(&mut self) -> bool {
        self.next() & 1 == 0
    }

    fn mac(&mut self) -> MacAddr {
        MacAddr(self.bytes())
    }

    fn ipv4(&mut self) -> Ipv4Addr {
        self.bytes::<4>().into()
    }

    fn ipv6(&mut self) -> Ipv6Addr {
        self.bytes::<16>().into()
    }

    fn tags(&mut self) -> Vec<Tag> {
        let count = self.next() % 5;
        let tag = |id| {
            if id & 0x1000 == 0 {
                Tag::c(id & 0xfff)
            } else {
                Tag::s(id & 0xfff)
            }
        };
        (0..count).map(|_| tag(self.next() as u16)).collect()
    }

    fn record<A>(&mut self, mut address: impl FnMut(&mut Self) -> A) -> Record<A> {
        let sources = self.next() % 4;
        Record {
            kind: if self.flip() { Kind::Include } else { Kind::Exclude },
            group: address(self),
            sources: (0..sources).map(|_| address(self)).collect(),
        }
    }
}

const ROUNDS: u64 = 500;

/// A frame of every format.
fn frames(random: &mut Random) -> Vec<Vec<u8>> {
    let tags = random.tags();
    let mut frames = vec![
        arp(random).frame(&tags),
        rarp::learning_frame(random.mac(), &tags),
        solicitation(random).frame(&tags),
        advertisement(random).frame(&tags),
        igmp::v2(random.mac(), random.ipv4(), random.ipv4(), &tags),
        mld::v1(random.mac(), random.ipv6(), random.ipv6(), &tags),
    ];
    let records = [random.record(Random::ipv4), random.record(Random::ipv4)];
    frames.extend(igmp::v3(random.mac(), random.ipv4(), &records, 1500, &tags));
    let records = [random.record(Random::ipv6), random.record(Random::ipv6)];
    frames.extend(mld::v2(random.mac(), random.ipv6(), &records, 1500, &tags));
    frames
}

fn arp(random: &mut Random) -> Arp {
    Arp {
        destination: random.mac(),
        source: random.mac(),
        operation: if random.flip() {
            Operation::Request
        } else {
            Operation::Reply
        },
        sender_mac: random.mac(),
        sender_ip: random.ipv4(),
        target_mac: random.mac(),
        target_ip: random.ipv4(),
    }
}

fn solicitation(random: &mut Random) -> Solicitation {
    Solicitation {
        source: random.flip().then(|| random.ipv6()),
        mac: random.mac(),
        target: random.ipv6(),
    }
}

fn advertisement(random: &mut Random) -> UnsolicitedAdvertisement {
    UnsolicitedAdvertisement {
        target: random.ipv6(),
        mac: random.mac(),
        router: random.flip(),
    }
}

/// The least length at which the start of a frame is read.
fn shortest<T>(frame: &[u8], parse: fn(&[u8]) -> Option<T>) -> usize {
    let read = |length: &usize| parse(&frame[..*length]).is_some();
    let shortest = (0..=frame.len()).find(read).expect("the whole frame is read");
    assert!((shortest..=frame.len()).all(|length| read(&length)));
    shortest
}

#[test]
fn an_arp_message_survives_the_wire_with_any_tags_and_padding() {
    let mut random = Random(1);
    for _ in 0..ROUNDS {
        let (sent, tags) = (arp(&mut random), random.tags());
        let mut frame = sent.frame(&tags);
        assert_eq!(shortest(&frame, Arp::parse), frame.len());
        frame.extend(random.bytes::<18>());
        assert_eq!(Arp::parse(&frame), Some(sent), "{tags:?}");
    }
}

#[test]
fn a_solicitation_survives_the_wire_with_any_tags_and_padding() {
    let mut random = Random(2);
    for _ in 0..ROUNDS {
        let (sent, tags) = (solicitation(&mut random), random.tags());
        let mut frame = sent.frame(&tags);
        assert_eq!(shortest(&frame, Discovery::parse), frame.len());
        frame.extend(random.bytes::<18>());
        let group = solicited_node(sent.target);
        let expected = Discovery {
            kind: nd::Kind::Solicitation,
            destination: MacAddr::ipv6_group(group),
            source: sent.mac,
            source_ip: sent.source.unwrap_or(Ipv6Addr::UNSPECIFIED),
            destination_ip: group,
            target: sent.target,
        };
        assert_eq!(Discovery::parse(&frame), Some(expected), "{tags:?}");
    }
}

#[test]
fn an_advertisement_survives_the_wire_with_any_tags_and_padding() {
    let mut random = Random(3);
    for _ in 0..ROUNDS {
        let (sent, tags) = (advertisement(&mut random), random.tags());
        let mut frame = sent.frame(&tags);
        assert_eq!(shortest(&frame, Discovery::parse), frame.len());
        frame.extend(random.bytes::<18>());
        let heard = Discovery::parse(&frame).expect("whole and right");
        assert_eq!(heard.kind, nd::Kind::Advertisement);
        assert_eq!((heard.source, heard.target), (sent.mac, sent.target), "{tags:?}");
    }
}

#[test]
fn no_frame_is_taken_for_one_of_another_format() {
    let mut random = Random(4);
    for _ in 0..ROUNDS {
        for (at, frame) in frames(&mut random).into_iter().enumerate() {
            assert_eq!(Arp::parse(&frame).is_some(), at == 0, "{frame:02x?}");
            assert_eq!(Discovery::parse(&frame).is_some(), at == 2 || at == 3, "{frame:02x?}");
        }
    }
}

#[test]
fn cut_and_damaged_frames_are_read_or_refused_but_never_trip_a_parser() {
    let mut random = Random(5);
    for _ in 0..ROUNDS {
        for mut frame in frames(&mut random) {
            let at = random.next() as usize % frame.len();
            frame[at] = random.next() as u8;
            for length in 0..=frame.len() {
                let cut = &frame[..length];
                let _ = (strip(cut), Arp::parse(cut), Discovery::parse(cut));
            }
        }
    }
}

#[test]
fn every_checksum_sent_makes_its_sum_vanish() {
    let mut random = Random(6);
    for _ in 0..ROUNDS {
        for frame in frames(&mut random) {
            let outer = strip(&frame).expect("at most four tags");
            let bytes = outer.bytes;
            match outer.ethertype {
                0x0800 => {
                    let (header, message) = bytes.split_at(24);
                    assert_eq!(checksum::internet(header.iter().copied()), 0, "{frame:02x?}");
                    assert_eq!(checksum::internet(message.iter().copied()), 0, "{frame:02x?}");
                }
                0x86dd => {
                    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap());
                    let message = if bytes[6] == 0 { &bytes[48..] } else { &bytes[40..] };
                    assert_eq!(icmpv6::checksum(address(8), address(24), message), 0, "{frame:02x?}");
                }
                _ => {}
            }
        }
    }
}

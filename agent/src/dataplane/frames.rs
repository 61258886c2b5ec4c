//! Frames for tests of the hash: those of the driver's test vectors, and random ones with a structure: what a hash policy may
//! have to walk through, whole, cut short or damaged.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A frame with its hashes, read off the bonding driver.
#[derive(Deserialize)]
pub(super) struct Vector {
    pub(super) name: String,
    /// In hexadecimal.
    frame: String,
    /// VLAN tag outside the bytes.
    pub(super) tci: Option<u16>,
    /// Where the driver believed the network header to start.
    pub(super) nhoff: usize,
    /// By name of the policy.
    pub(super) results: BTreeMap<String, HashResult>,
}

/// The hash of a frame under a policy.
#[derive(Deserialize)]
pub(super) struct HashResult {
    pub(super) hash: u32,
    /// Index of the port, by number of ports.
    pub(super) slave: BTreeMap<String, u32>,
}

impl Vector {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&self.frame[at..at + 2], 16).unwrap();
        (0..self.frame.len()).step_by(2).map(byte).collect()
    }
}

pub(super) fn vectors() -> Vec<Vector> {
    #[derive(Deserialize)]
    struct Vectors {
        vectors: Vec<Vector>,
    }
    serde_json::from_str::<Vectors>(VECTORS).unwrap().vectors
}

const VECTORS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../modes/testdata/hash_vectors.json"
));

/// A reproducible source of numbers. [Marsaglia 2003: xorshift]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// A frame from its destination address on, of 14 bytes at least.
pub(super) fn frame(random: &mut Random) -> Vec<u8> {
    let mut frame = random.bytes(12);
    let depth = if random.one_in(20) { 20 } else { 4 };
    let (kind, payload) = layer(random, depth);
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    if random.one_in(4) {
        frame.truncate(14 + random.below(frame.len() - 13));
    }
    if random.one_in(8) {
        let at = random.below(frame.len());
        frame[at] = random.next() as u8;
    }
    frame
}

/// An EtherType and what it announces.
fn layer(random: &mut Random, depth: usize) -> (u16, Vec<u8>) {
    if depth == 0 {
        return (random.pick(&[0x0800, 0x86dd, 0x0806]), some_bytes(random));
    }
    // Deep ones consist of what can be stacked.
    let choice = if depth > 4 {
        6 + random.below(6)
    } else {
        random.below(24)
    };
    match choice {
        12..=17 => (0x0800, ipv4(random, depth)),
        18..=23 => (0x86dd, ipv6(random, depth)),
        8..=10 => {
            let mut tag = random.bytes(2);
            let (kind, inner) = layer(random, depth - 1);
            tag.extend(kind.to_be_bytes());
            tag.extend(inner);
            (random.pick(&[0x8100, 0x88a8]), tag)
        }
        11 => (0x86dd, ipv6(random, depth)),
        6 => {
            let mut tag = random.bytes(4);
            let (kind, inner) = layer(random, depth - 1);
            tag.extend(kind.to_be_bytes());
            tag.extend(inner);
            (random.pick(&[0x88fb, 0x892f]), tag)
        }
        7 => (0x4305, batman(random, depth)),
        5 => (0x8864, pppoe(random, depth)),
        0..=3 => {
            let known = [
                0x0806, 0x8035, 0x8847, 0x8848, 0x8902, 0x8906, 0x88f7, 0x88cc, 0x6558, 0x880b,
            ];
            (random.pick(&known), some_bytes(random))
        }
        _ => (random.next() as u16, some_bytes(random)),
    }
}

fn some_bytes(random: &mut Random) -> Vec<u8> {
    let count = random.below(64);
    random.bytes(count)
}

fn batman(random: &mut Random, depth: usize) -> Vec<u8> {
    let version = if random.one_in(8) { 14 } else { 15 };
    let mut packet = vec![random.pick(&[0x40, 0x40, 0x40, 0x41]), version];
    packet.extend(random.bytes(8 + 12));
    let (kind, inner) = layer(random, depth - 1);
    packet.extend(kind.to_be_bytes());
    packet.extend(inner);
    packet
}

fn pppoe(random: &mut Random, depth: usize) -> Vec<u8> {
    let mut packet = vec![
        random.pick(&[0x11, 0x11, 0x11, 0x11, 0x12]),
        random.pick(&[0, 0, 0, 0, 9]),
    ];
    packet.extend(random.bytes(4));
    match random.below(8) {
        0..=2 => packet.extend([0x00, 0x21]),
        3..=4 => packet.extend([0x00, 0x57]),
        // Compressed to one byte.
        5 => packet.push(random.pick(&[0x21, 0x57])),
        6 => packet.extend(random.pick(&[[0x02, 0x81], [0x02, 0x83], [0xc0, 0x21]])),
        _ => packet.extend(random.bytes(2)),
    }
    let inner = if random.one_in(2) {
        ipv4(random, depth - 1)
    } else {
        ipv6(random, depth - 1)
    };
    packet.extend(inner);
    packet
}

fn ipv4(random: &mut Random, depth: usize) -> Vec<u8> {
    let (proto, payload) = announced(random, depth, false);
    let words = if random.one_in(16) {
        random.below(16)
    } else {
        random.pick(&[5, 5, 5, 6, 7, 15])
    };
    let mut packet = vec![0x40 | words as u8];
    packet.extend(random.bytes(5));
    let fragment: u16 = match random.below(12) {
        0 => 0x2000,
        1 => random.next() as u16,
        2..=6 => 0x4000,
        _ => 0,
    };
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, proto]);
    packet.extend(random.bytes(2 + 8 + words.saturating_sub(5) * 4));
    packet.extend(payload);
    packet
}

fn ipv6(random: &mut Random, depth: usize) -> Vec<u8> {
    let (next, payload) = announced(random, depth, true);
    let mut packet = vec![0x60];
    packet.extend(random.bytes(5));
    packet.extend([next, 64]);
    packet.extend(random.bytes(32));
    packet.extend(payload);
    packet
}

/// An IP protocol and what it announces.
fn announced(random: &mut Random, depth: usize, v6: bool) -> (u8, Vec<u8>) {
    if depth == 0 {
        return (random.pick(&[6, 17, 58]), some_bytes(random));
    }
    let choice = if depth > 4 {
        5 + random.below(5)
    } else {
        random.below(16)
    };
    match choice {
        0..=2 => (random.pick(&[6, 17, 33, 50, 51, 132, 136]), random.bytes(24)),
        3..=4 => icmp(random, depth, v6),
        5 => (4, ipv4(random, depth - 1)),
        6 => (41, ipv6(random, depth - 1)),
        7..=9 => extension(random, depth, v6),
        10..=12 => (47, gre(random, depth)),
        13 => (137, random.bytes(8)),
        _ => (random.next() as u8, some_bytes(random)),
    }
}

/// An extension header of IPv6, at times where it does not belong.
fn extension(random: &mut Random, depth: usize, v6: bool) -> (u8, Vec<u8>) {
    let (next, payload) = announced(random, depth - 1, v6);
    let kind = random.pick(&[0, 0, 43, 43, 60, 60, 44]);
    let length = random.pick(&[0, 0, 0, 1, 2]);
    let mut header = vec![next, length];
    header.extend(random.bytes(6 + usize::from(length) * 8));
    header.extend(payload);
    (kind, header)
}

fn icmp(random: &mut Random, depth: usize, v6: bool) -> (u8, Vec<u8>) {
    let kinds = [0, 8, 13, 14, 128, 129, 3, 4, 5, 11, 12, 1, 2, 135, 255];
    let mut message = vec![random.pick(&kinds), random.next() as u8];
    message.extend(random.bytes(2));
    message.extend(random.pick(&[[0, 0], [0, 1], [0xab, 0xcd]]));
    message.extend(random.bytes(2));
    let quoted = if v6 {
        ipv6(random, depth - 1)
    } else {
        ipv4(random, depth - 1)
    };
    message.extend(quoted);
    let proto = if v6 != random.one_in(8) { 58 } else { 1 };
    (proto, message)
}

fn gre(random: &mut Random, depth: usize) -> Vec<u8> {
    let mut flags: u16 = random.pick(&[
        0, 0x8000, 0x2000, 0x1000, 0xb000, 0x4000, 0x2001, 0x2081, 0x3081, 0x0001, 2,
    ]);
    if random.one_in(16) {
        flags = random.next() as u16;
    }
    let fields = [0x8000, 0x2000, 0x1000, 0x0080].iter().filter(|bit| flags & **bit != 0);
    let fields = random.bytes(fields.count() * 4);
    let mut header = flags.to_be_bytes().to_vec();
    let (kind, inner) = layer(random, depth - 1);
    if flags & 7 == 1 && !random.one_in(4) {
        header.extend([0x88, 0x0b]);
        header.extend(fields);
        header.extend([0xff, 0x03]);
        header.extend(random.pick(&[[0x00, 0x21], [0x00, 0x57], [0x80, 0x21]]));
    } else if random.one_in(3) {
        header.extend([0x65, 0x58]);
        header.extend(fields);
        header.extend(random.bytes(12));
        header.extend(kind.to_be_bytes());
    } else {
        header.extend(kind.to_be_bytes());
        header.extend(fields);
    }
    header.extend(inner);
    header
}

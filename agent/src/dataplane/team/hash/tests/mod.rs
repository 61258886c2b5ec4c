//! The programs against the vectors of the driver, against [`bond_modes::hash`] and in the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;

use bond_modes::hash::{Layer4, explain, hash_at};

use self::machine::{Packet, run};
use super::*;
use crate::dataplane::frames::{self, Random};

mod kernel;
mod machine;

/// The policies that have programs, with their names.
fn policies() -> impl Iterator<Item = (XmitHashPolicy, &'static str)> {
    let all = XmitHashPolicy::VALUES.iter().map(|(policy, name, _)| (*policy, *name));
    all.filter(|(policy, _)| program(*policy, 1).is_some())
}

/// A packet whose EtherType the kernel read in the bytes.
fn packet(bytes: &[u8], tci: Option<u16>) -> Packet<'_> {
    let protocol = match bytes {
        [_, _, _, _, _, _, _, _, _, _, _, _, high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    };
    Packet { bytes, protocol, tci }
}

#[test]
fn every_policy_but_the_encapsulated_ones_has_a_program_for_1_to_255_ports() {
    let names: Vec<_> = policies().map(|(_, name)| name).collect();
    assert_eq!(names, ["layer2", "layer3+4", "layer2+3", "vlan+srcmac"]);
    for (policy, name, _) in XmitHashPolicy::VALUES {
        assert_eq!(program(*policy, 255).is_some(), names.contains(name), "{name}");
        assert_eq!(program(*policy, 0), None);
        assert_eq!(program(*policy, 256), None);
    }
}

#[test]
fn a_program_is_short_enough_for_the_driver_to_report() {
    for (policy, name) in policies() {
        let length = program(policy, 255).unwrap().len();
        println!("{name}: {length} instructions");
        assert!(length <= MAX_INSTRUCTIONS, "{name}: {length}");
    }
}

#[test]
fn a_program_read_back_tells_its_policy_and_number_of_ports() {
    for (policy, _) in policies() {
        for ports in 1..=MAX_PORTS {
            let program = program(policy, ports).unwrap();
            let read_back: Vec<_> = program.iter().map(|one| SockFilter::from_bytes(one.bytes())).collect();
            assert_eq!(read_back, program);
            assert_eq!(recognise(&read_back), Some((policy, ports)));
        }
    }
}

#[test]
fn a_program_of_other_origin_is_not_recognised() {
    let ours = program(XmitHashPolicy::Layer34, 3).unwrap();
    for at in 0..ours.len() {
        let mut other = ours.clone();
        other[at].k ^= 0x100;
        assert_eq!(recognise(&other), None, "instruction {at}");
        assert_eq!(recognise(&ours[..at]), None);
    }
}

#[test]
fn every_vector_takes_the_port_that_the_driver_took() {
    let mut checked = 0;
    for vector in frames::vectors() {
        let bytes = vector.bytes();
        for (policy, name) in policies() {
            for (ports, slave) in &vector.results[name].slave {
                let program = program(policy, ports.parse().unwrap()).unwrap();
                let index = run(&program, &packet(&bytes, vector.tci));
                assert_eq!(index, *slave, "{} {name} of {ports}", vector.name);
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 39 * 4 * 6);
}

#[test]
fn every_truncation_of_a_vector_takes_the_port_of_the_oracle() {
    for vector in frames::vectors() {
        let bytes = vector.bytes();
        for (policy, name) in policies() {
            let program = program(policy, 255).unwrap();
            for length in 0..=bytes.len() {
                let cut = packet(&bytes[..length], vector.tci);
                let wanted = hash_at(policy, cut.bytes, cut.tci, vector.nhoff) % 255;
                assert_eq!(run(&program, &cut), wanted, "{} {name} {length} bytes", vector.name);
            }
        }
    }
}

#[test]
fn a_million_random_frames_take_the_port_of_the_oracle() {
    let workers: Vec<_> = (1..=WORKERS).map(|seed| thread::spawn(move || compare(seed))).collect();
    let mut kinds = Kinds::new();
    for worker in workers {
        for (kind, count) in worker.join().unwrap() {
            *kinds.entry(kind).or_default() += count;
        }
    }
    println!("{kinds:?}");
    for (kind, least) in [
        ("frame", 1_000_000),
        ("tag outside", 300_000),
        ("tag inside", 100_000),
        ("addresses", 300_000),
        ("ports", 50_000),
        ("SPI", 20_000),
        ("ICMP id", 20_000),
        ("quoted packet", 5_000),
        ("no quoted packet", 200),
        ("fragment", 30_000),
    ] {
        assert!(kinds[kind] >= least, "{kind} only {} times", kinds[kind]);
    }
}

/// How often what came up.
type Kinds = BTreeMap<&'static str, usize>;

/// Compares on random frames with and without a tag outside, for changing numbers of ports.
fn compare(seed: u64) -> Kinds {
    let every = |policy| (1..=MAX_PORTS).map(|ports| program(policy, ports).unwrap()).collect();
    let programs: Vec<(_, Vec<_>)> = policies().map(|(policy, _)| (policy, every(policy))).collect();
    let mut random = Random::new(seed);
    let mut kinds = Kinds::new();
    for number in 0..FRAMES_EACH {
        let frame = frames::frame(&mut random);
        let tci = (random.below(3) == 0).then(|| random.below(1 << 16) as u16);
        let ports = 1 + random.below(MAX_PORTS as usize);
        for (policy, programs) in &programs {
            let wanted = hash_at(*policy, &frame, tci, ETHERNET_HEADER) % ports as u32;
            let index = run(&programs[ports - 1], &packet(&frame, tci));
            assert_eq!(
                index, wanted,
                "seed {seed} frame {number} {policy} of {ports}: {frame:02x?}"
            );
        }
        for kind in kinds_of(&frame, tci) {
            *kinds.entry(kind).or_default() += 1;
        }
    }
    kinds
}

/// The kinds of fields in a frame, so that the test can tell that each kind occurred.
fn kinds_of(frame: &[u8], tci: Option<u16>) -> Vec<&'static str> {
    // A tag that is 0 keeps the bytes from being searched for one.
    let seen = explain(XmitHashPolicy::Layer34, frame, Some(tci.unwrap_or(0)));
    let mut kinds = vec!["frame"];
    kinds.extend(tci.map(|_| "tag outside"));
    match seen.layer4 {
        Layer4::Ports { .. } => kinds.push("ports"),
        Layer4::Spi { .. } => kinds.push("SPI"),
        Layer4::Icmp { .. } => kinds.push("ICMP id"),
        _ => {}
    }
    match (seen.ethertype, seen.addresses) {
        (0x8100 | 0x88a8, _) => kinds.push("tag inside"),
        (0x0800, Some(addresses)) => {
            kinds.push("addresses");
            let outer: [u8; 4] = frame[26..30].try_into().unwrap();
            if addresses.source != IpAddr::from(outer) {
                kinds.push("quoted packet");
            } else if frame[20] & 0x3f != 0 || frame[21] != 0 {
                kinds.push("fragment");
            }
        }
        (0x86dd, Some(_)) => kinds.push("addresses"),
        (0x0800, None) if frame.len() >= 34 => kinds.push("no quoted packet"),
        _ => {}
    }
    kinds
}

const WORKERS: u64 = 2;
const FRAMES_EACH: usize = 500_000;

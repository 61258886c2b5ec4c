//! The hash of the BPF program against that of [`bond_modes::hash`], frame by frame.

use std::collections::BTreeMap;
use std::thread;

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use bond_modes::XmitHashPolicy;
use bond_modes::hash::{ETHERNET_HEADER, hash_at};

use crate::dataplane::frames::{self, Random};

/// The test program `hash_all`.
struct Hasher(Ebpf);

impl Hasher {
    fn load() -> Hasher {
        let mut programs = EbpfLoader::new().btf(None).load(OBJECT).unwrap();
        let program: &mut SchedClassifier = programs.program_mut("hash_all").unwrap().try_into().unwrap();
        program.load().unwrap();
        Hasher(programs)
    }

    fn program(&mut self) -> &mut SchedClassifier {
        self.0.program_mut("hash_all").unwrap().try_into().unwrap()
    }

    /// The hashes under all policies, in the order of their numbers.
    fn hashes(&mut self, frame: &[u8]) -> [u32; POLICIES] {
        let mut context = [0u8; SK_BUFF_SIZE];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_out = Some(&mut context);
        let last = self.program().test_run(options).unwrap().return_value;
        let mut hashes = [last; POLICIES];
        for (hash, word) in hashes.iter_mut().zip(context[CB..CB_END].chunks_exact(4)) {
            *hash = u32::from_ne_bytes(word.try_into().unwrap());
        }
        hashes
    }
}

fn expected(frame: &[u8]) -> [u32; POLICIES] {
    let mut hashes = [0; POLICIES];
    for (policy, _, number) in XmitHashPolicy::VALUES {
        hashes[usize::from(*number)] = hash_at(*policy, frame, None, ETHERNET_HEADER);
    }
    hashes
}

#[test]
fn the_vectors_of_the_driver_hash_as_there() {
    let mut hasher = Hasher::load();
    let mut checked = 0;
    for vector in frames::vectors() {
        // Tags that a local socket left inside the bytes never reach the wire there; a tag outside cannot be passed to a test run.
        if vector.nhoff != ETHERNET_HEADER {
            continue;
        }
        let hashes = hasher.hashes(&vector.bytes());
        for (_, name, number) in XmitHashPolicy::VALUES {
            let tag = match *name {
                "vlan+srcmac" => vector.tci.unwrap_or(0).into(),
                _ => 0,
            };
            let wanted = vector.results[*name].hash ^ tag;
            assert_eq!(hashes[usize::from(*number)], wanted, "{} {name}", vector.name);
            checked += 1;
        }
    }
    assert!(checked >= 36 * POLICIES, "only {checked}");
}

#[test]
fn a_million_random_frames_hash_as_in_the_oracle() {
    let workers: Vec<_> = (1..=WORKERS).map(|seed| thread::spawn(move || compare(seed))).collect();
    let mut found = Tally::default();
    for worker in workers {
        let part = worker.join().unwrap();
        found.frames += part.frames;
        found.mismatches += part.mismatches;
        for (policy, count) in part.beyond_layer2 {
            *found.beyond_layer2.entry(policy).or_default() += count;
        }
    }
    println!("{} frames, {} mismatches", found.frames, found.mismatches);
    for (policy, count) in &found.beyond_layer2 {
        println!("{policy}: more than layer 2 counted in {count} frames");
        assert!(*count > found.frames / 5, "{policy} hardly ever looked into a frame");
    }
    assert!(found.frames >= 1_000_000);
    assert_eq!(found.mismatches, 0);
}

#[derive(Default)]
struct Tally {
    frames: usize,
    mismatches: usize,
    beyond_layer2: BTreeMap<&'static str, usize>,
}

fn compare(seed: u64) -> Tally {
    let mut random = Random::new(seed);
    let mut hasher = Hasher::load();
    let mut tally = Tally::default();
    while tally.frames < FRAMES_EACH {
        let frame = frames::frame(&mut random);
        if !runs(&frame) {
            continue;
        }
        let (got, wanted) = (hasher.hashes(&frame), expected(&frame));
        tally.frames += 1;
        if got != wanted {
            tally.mismatches += 1;
            if tally.mismatches < 5 {
                println!(
                    "seed {seed} frame {}: {got:x?}, expected {wanted:x?}: {frame:02x?}",
                    tally.frames
                );
            }
        }
        for (_, name, number) in XmitHashPolicy::VALUES {
            if wanted[usize::from(*number)] != wanted[0] {
                *tally.beyond_layer2.entry(name).or_default() += 1;
            }
        }
    }
    tally
}

/// The kernel refuses test runs on IP frames without a whole header. [net/bpf/test_run.c: bpf_prog_test_run_skb]
fn runs(frame: &[u8]) -> bool {
    let header = match frame[12..14] {
        [0x08, 0x00] => 20,
        [0x86, 0xdd] => 40,
        _ => 0,
    };
    frame.len() >= ETHERNET_HEADER + header
}

pub(super) static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/hash_test.bpf.o"));
const POLICIES: usize = 6;
/// Where `cb` is in `struct __sk_buff`, and how large that is. [linux/bpf.h]
const CB: usize = 48;
const CB_END: usize = CB + 5 * 4;
const SK_BUFF_SIZE: usize = 192;
const WORKERS: u64 = 2;
const FRAMES_EACH: usize = 500_000;

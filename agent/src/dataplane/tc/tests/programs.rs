//! What the programs and maps of a bond cost: steps of the kernel's verifier, time to load, memory.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use aya::maps::MapData;
use aya::programs::SchedClassifier;
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use bond_modes::PortId;
use bond_modes::plan::Tx;

use super::Hook;
use super::upgrade::FIRST_LAYOUT;
use super::world::*;
use crate::dataplane::tc::layout::MAPS;
use crate::dataplane::tc::object::{FEW, FEW_AGAIN, Kind, Loader, Way};
use crate::dataplane::tc::pins::unpin;

#[test]
fn each_program_takes_the_verifier_a_bounded_number_of_steps() {
    let mut loader = Loader::default();
    // The first one reads the kernel's types.
    loader.load(Kind::Rx, None).unwrap();
    println!("program                steps   ms to load (median of {ROUNDS})");
    for (kind, name, most) in BOUNDS {
        let mut times = Vec::new();
        let mut steps = None;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let mut loaded = loader.load(kind, None).unwrap();
            times.push(start.elapsed());
            steps = loaded.program().info().unwrap().verified_instruction_count();
        }
        let steps = steps.expect("a kernel from 5.16 on counts them");
        println!("{name:20} {steps:>7}   {:.1}", median(times));
        assert!(steps <= most, "{name}: {steps} steps");
    }
    for name in ["bond_tx", "port_rx"] {
        let (mut times, mut steps) = (Vec::new(), None);
        for _ in 0..ROUNDS {
            let mut before = loader_of_old().load(FIRST_LAYOUT).unwrap();
            let start = Instant::now();
            let program = program(&mut before, name);
            program.load().unwrap();
            times.push(start.elapsed());
            steps = program.info().unwrap().verified_instruction_count();
        }
        println!("before: {name:12} {:>7}   {:.1}", steps.unwrap(), median(times));
    }
}

#[test]
fn the_maps_of_a_bond_cost_little_more_on_many_processors() {
    in_world(Hook::Auto, |w| {
        w.bond_with_two_ports();
        let pins = w.kept().pins.clone();
        let paths = MAPS.map(|(name, _)| (name, pins.map(name)));
        let now: Vec<_> = paths.into_iter().map(|(name, path)| memory(name, &path)).collect();
        report("maps of a bond with two ports", &now);

        // The maps of the first layout, which were as large with two ports as with all.
        let folder = pins.map("old");
        fs::create_dir(&folder).unwrap();
        let mut loader = loader_of_old();
        for name in OLD_MAPS {
            loader.map_pin_path(name, folder.join(name));
        }
        let old = loader.load(FIRST_LAYOUT).unwrap();
        let before: Vec<_> = OLD_MAPS.map(|name| memory(name, &folder.join(name))).into();
        report("before", &before);
        for name in OLD_MAPS {
            unpin(&folder.join(name)).unwrap();
        }
        fs::remove_dir(&folder).unwrap();
        drop(old);

        let on_64 = |maps: &[Memory]| maps.iter().map(|map| map.on(64)).sum::<u64>();
        assert!(on_64(&now) < 200_000, "{} bytes", on_64(&now));
        assert!(on_64(&before) > 5 * on_64(&now));
    });
}

#[test]
fn the_programs_of_an_active_backup_bond_are_the_smallest() {
    in_world(Hook::Auto, |w| {
        let (p0, p1) = w.bond_with_two_ports();
        assert_eq!(w.in_force(|now| now.bpf.way()), Way::One);
        w.send_by(all(vec![p0, p1]), &[p0, p1]);
        assert_eq!(w.in_force(|now| now.bpf.way()), Way::All);
        w.send_by(Tx::one(Some(p0)), &[p0]);
        assert_eq!(w.in_force(|now| now.bpf.way()), Way::One);
    });
}

#[test]
fn the_program_for_many_copies_goes_when_there_are_clearly_fewer_ports() {
    in_world(Hook::Auto, |w| {
        for number in 4..=FEW {
            w.links.add_veth(&format!("p{number}"), &format!("q{number}")).unwrap();
        }
        w.create();
        let ports: Vec<PortId> = (0..=FEW)
            .map(|number| {
                let name = format!("p{number}");
                w.attach(&name, None);
                w.port(&name)
            })
            .collect();
        let ways: Vec<Way> = [FEW, FEW + 1, FEW, FEW_AGAIN + 1, FEW_AGAIN, FEW_AGAIN + 1, FEW]
            .into_iter()
            .map(|count| {
                w.send_by(all(ports[..count].to_vec()), &ports[..count]);
                w.in_force(|now| now.bpf.way())
            })
            .collect();
        use Way::{All, AllMany};
        assert_eq!(ways, [All, AllMany, AllMany, AllMany, All, All, All]);
    });
}

/// Bytes of a map.
struct Memory {
    name: &'static str,
    fixed: u64,
    per_cpu: u64,
}

impl Memory {
    fn on(&self, cpus: u64) -> u64 {
        self.fixed + self.per_cpu * cpus
    }
}

/// As the kernel counts it, split by what it holds on each processor.
fn memory(name: &'static str, path: &std::path::Path) -> Memory {
    let map = MapData::from_pin(path).unwrap();
    let info = map.info().unwrap();
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:")).unwrap();
    let all: u64 = line.trim().parse().unwrap();
    let value = u64::from(info.value_size().next_multiple_of(8));
    let entries = match name {
        "turns" => 1,
        "near" => 8,
        "counters" | "heard" => 256,
        _ => 0,
    };
    let per_cpu = value * entries;
    let fixed = all - per_cpu * nr_cpus().unwrap() as u64;
    Memory { name, fixed, per_cpu }
}

fn report(title: &str, maps: &[Memory]) {
    let cpus = nr_cpus().unwrap() as u64;
    println!("{title}: bytes on {cpus} processors, computed for 64");
    for map in maps {
        println!("  {:10} {:>8} {:>8}", map.name, map.on(cpus), map.on(64));
    }
    let all = |cpus| maps.iter().map(|map| map.on(cpus)).sum::<u64>();
    println!("  {:10} {:>8} {:>8}", "all", all(cpus), all(64));
}

fn loader_of_old() -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    loader
}

fn program<'a>(programs: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    programs.program_mut(name).unwrap().try_into().unwrap()
}

/// The middle one, in milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

const ROUNDS: usize = 5;

/// About a quarter above what kernel 6.18 counts; it differs a little between kernels.
const BOUNDS: [(Kind, &str, u32); 8] = [
    (Kind::Rx, "port_rx", 750),
    (Kind::Tx(Way::One), "tx_one", 330),
    (Kind::Tx(Way::Turns), "tx_turns", 490),
    (Kind::Tx(Way::All), "tx_all", 3_800),
    (Kind::Tx(Way::AllMany), "tx_all_many", 46_000),
    (Kind::Tx(Way::Ether), "tx_ether", 575),
    (Kind::Tx(Way::Ip), "tx_ip", 1_900),
    (Kind::Tx(Way::Encap), "tx_encap", 47_000),
];

const OLD_MAPS: [&str; 9] = [
    "state", "accept", "counters", "lists", "turns", "heard", "own", "sent", "queues",
];

//! A bond of the last release whose maps had no version is taken over while it forwards. `first-layout.bpf.o` is that release's
//! own object file (revision 723f633), and what is pinned here is what it pinned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuHashMap};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use bond_modes::plan::{Accept, Spread, Tx};
use bond_modes::{ForwardingPlan, PortId, XmitHashPolicy};
use bond_monitors::MacAddr;

use super::Hook;
use super::heard::of_type;
use super::world::*;
use crate::dataplane::step::fault;
use crate::dataplane::tc::DeviceChoice;
use crate::dataplane::tc::device::{tx_place, wire_name};
use crate::dataplane::tc::hook::{self, Attached, Place};
use crate::dataplane::tc::layout::{Counters, MAPS, Stamps};
use crate::dataplane::tc::lists::List;
use crate::dataplane::tc::maps::on_all_cpus;
use crate::dataplane::tc::pins::unpin;
use crate::dataplane::tc::port_hook::place;
use crate::dataplane::tc::queues::queues_of;
use crate::packet::PacketSocket;

#[test]
fn a_bond_of_the_first_layout_is_taken_over_under_traffic_and_loses_nothing() {
    for hook in [Hook::Auto, Hook::Clsact] {
        for kind in 0..4 {
            in_world_of(hook, DeviceChoice::Veth, move |w| take_over_under_load(w, kind));
        }
    }
}

fn take_over_under_load(w: &mut World, kind: usize) {
    let ports = w.bond_with_four_ports();
    let tx = [
        Tx::one(Some(ports[0])),
        all(vec![ports[0]]),
        round_robin(&ports[..1], 1),
        hashed(vec![ports[0]], XmitHashPolicy::Encap34),
    ];
    let mut plan = w.list_plan(tx[kind].clone(), &ports[..1]);
    accept(&mut plan, ports[1], Accept::Unicast);
    plan.steer = queues(&[(3, ports[2])]);
    w.program(&plan);
    let old = downgrade(w, &plan);
    let mut counters_before = Counters::default();
    let counted = w.frames_in_both_directions(|w| {
        counters_before = first_counters(w, ports[0]);
        w.reopen();
        let observed = w.adopt().unwrap().unwrap();
        assert_eq!(observed.plan, plan);
    });
    drop(old);
    let counters = w.counters(ports[0]);
    println!(
        "{:?}, {:?}: {} frames sent and {} received, {} and {} lost; counted {} and {}",
        w.hook,
        plan.tx,
        counted.sent,
        counted.received,
        counted.sent_lost,
        counted.received_lost,
        counters.tx_frames,
        counters.rx_frames
    );
    assert_eq!((counted.sent_lost, counted.received_lost), (0, 0));
    // The counters go on from those of the old programs; only what these counted during the exchange may be missing.
    assert!(counters_before.tx_frames.min(counters_before.rx_frames) >= 1000);
    let all = |before: u64, now: u64, real: u32| before <= now && now <= real.into();
    assert!(
        all(counters_before.tx_frames, counters.tx_frames, counted.sent),
        "{counters:?}"
    );
    assert!(
        all(counters_before.rx_frames, counters.rx_frames, counted.received),
        "{counters:?}"
    );
    // Nothing of the old maps is left, the next agent has nothing to take over, and all goes on.
    let pins = w.kept().pins.clone();
    for gone in ["accept", "counters", "heard", "state-next"] {
        assert!(!pins.map(gone).exists(), "{gone}");
    }
    let programs = w.programs();
    w.reopen();
    assert_eq!(w.adopt().unwrap().unwrap().plan, plan);
    assert_eq!(w.programs(), programs);
    let far = w.far_ends();
    w.send_frame(&numbered(frame(OTHER), 7));
    assert_eq!(w.gather(&far, 1)[0], [7]);
    assert!(w.heard(ports[0]).any.is_some());
}

#[test]
fn a_sender_that_the_first_layout_remembers_is_refused_again_from_its_next_frame_on() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let mut plan = w.plan(Some(p0), &[p0, p1]);
        accept(&mut plan, p1, Accept::Unicast);
        w.program(&plan);
        let old = downgrade(w, &plan);
        let guest = MacAddr([2, 0, 0, 0, 9, 1]);
        let mut group = of_type(guest, &[ETHERTYPE]);
        let unicast = group.clone();
        group[..6].fill(0xff);
        let q0 = w.tap("q0");
        w.eventually(|w| {
            w.send_frame(&group);
            q0.waiting() > 0
        });
        assert_eq!(w.sent(guest), 1);
        w.reopen();
        assert_eq!(w.adopt().unwrap().unwrap().plan, plan);
        drop(old);
        assert!(w.comes_in(p1, &unicast));
        w.send_frame(&group);
        w.eventually(|w| w.sent(guest) > 1);
        w.set_sent(guest, Duration::ZERO);
        assert!(!w.comes_in(p1, &unicast));
    });
}

#[test]
fn a_take_over_that_fails_at_any_step_is_completed_by_the_next_agent() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let plan = w.plan(Some(p1), &[p0, p1]);
        w.program(&plan);
        let q1 = w.tap("q1");
        for step in 0.. {
            let old = downgrade(w, &plan);
            w.reopen();
            // Two failures in a row, because a port that fails is tried once more.
            let (_, reached) = fault::several(step, 2, || w.adopt());
            assert_eq!(w.bond.is_none(), reached, "step {step}");
            // Until the next agent the bond forwards, by the old programs or the new ones.
            let bond = w.link("bond0").ifindex;
            w.socket.send(bond, &frame(OTHER)).unwrap();
            q1.expect(1);
            w.reopen();
            assert_eq!(w.adopt().unwrap().unwrap().plan, plan, "step {step}");
            w.send("bond0", OTHER, 1);
            q1.expect(1);
            drop(old);
            if !reached {
                assert!(step > 5, "only {step} steps");
                break;
            }
        }
    });
}

#[test]
fn a_program_that_somebody_took_off_comes_back_and_the_next_agent_of_this_build_keeps_all() {
    in_world(Hook::Auto, |w| {
        let (p0, p1) = w.bond_with_two_ports();
        let plan = w.plan(Some(p1), &[p0, p1]);
        w.program(&plan);
        unpin(&w.kept().pins.tx()).unwrap();
        w.reopen();
        w.adopt().unwrap().unwrap();
        let q1 = w.tap("q1");
        w.send("bond0", OTHER, 1);
        q1.expect(1);
        let programs = w.programs();
        w.reopen();
        w.adopt().unwrap().unwrap();
        assert_eq!(w.programs(), programs);
    });
}

#[test]
fn a_bond_below_a_bridge_remembers_all_who_send_as_soon_as_it_is_taken_over() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let mut plan = w.plan(Some(p1), &[p0, p1]);
        for port in plan.ports.values_mut() {
            port.promisc = true;
        }
        w.program(&plan);
        let old = downgrade(w, &plan);
        w.reopen();
        w.adopt().unwrap().unwrap();
        assert!(w.in_force(|now| now.bpf.reads_remember_all()));
        drop(old);
    });
}

#[test]
fn maps_of_an_unknown_layout_are_refused() {
    in_world(Hook::Auto, |w| {
        w.bond_with_two_ports();
        let pins = w.kept().pins.clone();
        let state = MapData::from_pin(pins.map("state")).unwrap();
        let mut state: Array<MapData, [u8; 16]> = Map::from_map_data(state).unwrap().try_into().unwrap();
        let ours = state.get(&0, 0).unwrap();
        let mut theirs = ours;
        theirs[0] = 77;
        state.set(0, theirs, 0).unwrap();
        w.reopen();
        let refused = crate::text::chain(&w.adopt().unwrap_err());
        assert!(refused.contains("was pinned by another version of bondd"), "{refused}");
        state.set(0, ours, 0).unwrap();
        w.reopen();
        w.adopt().unwrap().unwrap();
    });
}

/// Puts the release's own programs and pins in place of ours, for a bond with this plan.
fn downgrade(w: &mut World, plan: &ForwardingPlan) -> Ebpf {
    let bond = w.kept();
    let (pins, wire, ifindex) = (bond.pins.clone(), bond.wire, bond.ifindex);
    let (device, hook) = (bond.kind, bond.hook);
    let wire_name = wire_name(bond.ifindex);
    let names: BTreeMap<PortId, String> = plan
        .ports
        .keys()
        .map(|port| (*port, w.links.by_index(port.0).unwrap().unwrap().report.name))
        .collect();
    for (name, _) in MAPS {
        unpin(&pins.map(name)).unwrap();
    }
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    for name in [
        "state", "accept", "counters", "lists", "turns", "heard", "own", "sent", "queues",
    ] {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut old = loader.load(FIRST_LAYOUT).unwrap();
    fill(&mut old, plan, wire);
    let tx_pin = pins.tx();
    let place_of_tx = tx_place(device, ("bond0", ifindex), (&wire_name, wire), &tx_pin);
    put_on(&mut old, place_of_tx, device.tx_hook(hook));
    for (port, name) in &names {
        let pin = pins.rx(*port);
        put_on(&mut old, place(name, *port, &pin), hook);
    }
    old
}

/// Writes the maps of the first layout as its agent did for this plan.
fn fill(old: &mut Ebpf, plan: &ForwardingPlan, wire: u32) {
    // Borrowed, not taken: the programs are loaded later, on maps that must be open.
    let mut lists: Array<_, List> = old.map_mut("lists").unwrap().try_into().unwrap();
    let selector = match plan.tx.kind {
        Spread::One => plan.tx.ports[0].0,
        _ => {
            lists.set(5, List::encode(&plan.tx).unwrap(), 0).unwrap();
            0x8000_0000 | 5 << 24
        }
    };
    let mut state: Array<_, u32> = old.map_mut("state").unwrap().try_into().unwrap();
    state.set(0, selector, 0).unwrap();
    state.set(1, wire, 0).unwrap();
    let mut queues: Array<_, u32> = old.map_mut("queues").unwrap().try_into().unwrap();
    for (queue, port) in queues_of(&plan.steer) {
        queues.set(queue.into(), port.0, 0).unwrap();
    }
    let mut accept: HashMap<_, u32, u32> = old.map_mut("accept").unwrap().try_into().unwrap();
    for (port, wanted) in &plan.ports {
        match wanted.accept {
            Accept::Nothing => {}
            Accept::Unicast => accept.insert(port.0, 1, 0).unwrap(),
            Accept::All => accept.insert(port.0, 2, 0).unwrap(),
        }
    }
    let mut counters: PerCpuHashMap<_, u32, Counters> = old.map_mut("counters").unwrap().try_into().unwrap();
    for port in plan.ports.keys() {
        let none = on_all_cpus(Counters::default()).unwrap();
        counters.insert(port.0, none, 0).unwrap();
    }
    let mut heard: PerCpuHashMap<_, u32, Stamps> = old.map_mut("heard").unwrap().try_into().unwrap();
    for port in plan.ports.keys() {
        let never = on_all_cpus(Stamps::default()).unwrap();
        heard.insert(port.0, never, 0).unwrap();
    }
    let mut own: HashMap<_, [u8; 6], u32> = old.map_mut("own").unwrap().try_into().unwrap();
    own.insert(plan.mac.0, 1, 0).unwrap();
}

/// What the old programs have counted, over all CPUs.
fn first_counters(w: &World, port: PortId) -> Counters {
    let pin = w.kept().pins.map("counters");
    let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    let map: PerCpuHashMap<_, u32, Counters> = map.try_into().unwrap();
    let per_cpu = map.get(&port.0, 0).unwrap();
    Counters {
        tx_frames: per_cpu.iter().map(|cpu| cpu.tx_frames).sum(),
        rx_frames: per_cpu.iter().map(|cpu| cpu.rx_frames).sum(),
        ..Counters::default()
    }
}

pub(super) fn put_on(old: &mut Ebpf, place: Place<'_>, kind: Attached) {
    let program: &mut SchedClassifier = old.program_mut(place.program).unwrap().try_into().unwrap();
    if program.fd().is_err() {
        program.load().unwrap();
    }
    assert!(hook::replace(program, place, kind).unwrap().is_some());
}

/// What became of the frames.
pub(super) struct Tally {
    pub(super) sent: u32,
    pub(super) sent_lost: usize,
    pub(super) received: u32,
    pub(super) received_lost: usize,
}

impl World {
    /// Sends numbered frames through the bond and to it by `p0`'s cable while something happens.
    pub(super) fn frames_in_both_directions(&mut self, body: impl FnOnce(&mut World)) -> Tally {
        let ends = ["q0", "bond0"].map(|name| (Tap::on(self.link(name).ifindex), self.link(name).ifindex));
        let stop = AtomicBool::new(false);
        let sent = [AtomicU32::new(0), AtomicU32::new(0)];
        let [(q0, q0_index), (bond, bond_index)] = &ends;
        let (q0_index, bond_index) = (*q0_index, *bond_index);
        let flow = |from: u32, place: usize, end: &Tap| {
            let socket = PacketSocket::open().unwrap();
            let mut seen = BTreeSet::new();
            let mut number = 0;
            let mut quiet = Instant::now();
            loop {
                let before = seen.len();
                seen.extend(end.numbers());
                if seen.len() > before {
                    quiet = Instant::now();
                }
                let ended = stop.load(Ordering::Relaxed);
                if ended && (seen.len() == number as usize || quiet.elapsed() > PATIENCE) {
                    return (number as usize) - seen.len();
                }
                if !ended && number - (seen.len() as u32) < 64 {
                    socket.send(from, &numbered(frame(OTHER), number)).unwrap();
                    number += 1;
                    sent[place].store(number, Ordering::Relaxed);
                } else {
                    thread::yield_now();
                }
            }
        };
        let lost = thread::scope(|scope| {
            let flow = &flow;
            let out = scope.spawn(move || flow(bond_index, 0, q0));
            let back = scope.spawn(move || flow(q0_index, 1, bond));
            let wait = |count: u32| {
                let marks = [0, 1].map(|place: usize| sent[place].load(Ordering::Relaxed));
                while [0, 1]
                    .iter()
                    .any(|&place: &usize| sent[place].load(Ordering::Relaxed) < marks[place] + count)
                {
                    thread::yield_now();
                }
            };
            wait(2000);
            body(self);
            wait(2000);
            stop.store(true, Ordering::Relaxed);
            [out.join().unwrap(), back.join().unwrap()]
        });
        let [sent, received] = sent.map(AtomicU32::into_inner);
        Tally {
            sent,
            sent_lost: lost[0],
            received,
            received_lost: lost[1],
        }
    }
}

pub(super) static FIRST_LAYOUT: &[u8] = include_bytes_aligned!("../../../../testdata/tc/first-layout.bpf.o");

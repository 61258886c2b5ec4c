//! Ports with and without a slot in the map `near`, and bonds of the layout that had no such map. `without-near-*.bpf.o` are the
//! programs of its last revision, cef4018.

use std::collections::BTreeSet;
use std::path::PathBuf;

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuHashMap};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use bond_modes::plan::Tx;
use bond_modes::{ForwardingPlan, PortId, XmitHashPolicy};

use super::upgrade::put_on;
use super::world::*;
use crate::dataplane::PlaneBond;
use crate::dataplane::step::fault;
use crate::dataplane::tc::DeviceChoice;
use crate::dataplane::tc::device::{tx_place, wire_name};
use crate::dataplane::tc::layout::{MAPS, NEAR, NEAR_SLOTS, Near, PORTS, Port, STATE, State, WITHOUT_NEAR};
use crate::dataplane::tc::object::Way;
use crate::dataplane::tc::pins::unpin;
use crate::dataplane::tc::port_hook::place;

#[test]
fn ports_that_ask_for_one_slot_all_send_receive_and_count() {
    for_both_hooks(|w| {
        let mut ports = w.bond_with_four_ports();
        let mut ends = vec!["q0".to_owned(), "q1".into(), "q2".into(), "q3".into()];
        for number in 4..20 {
            let (port, far) = (format!("p{number}"), format!("q{number}"));
            w.links.add_veth(&port, &far).unwrap();
            let far_end = w.link(&far).ifindex;
            w.links.set_up(far_end, true).unwrap();
            w.attach(&port, None);
            ports.push(w.port(&port));
            ends.push(far);
        }
        assert!(near(w).len() <= NEAR_SLOTS && !far(w).is_empty());
        both_maps_hold(w, &ports);
        for restart in [false, true] {
            if restart {
                w.reopen();
                w.adopt().unwrap().unwrap();
            }
            all_forward(w, &ports, &ends);
        }
        // A slot that was given up goes to the next port that asks for it.
        let (slot_of, free) = (|port: &PortId| port.0 % NEAR_SLOTS as u32, *near(w).first().unwrap());
        let heir = *far(w).iter().find(|port| slot_of(port) == slot_of(&free)).unwrap();
        for port in [free, heir] {
            let original = w.originals.remove(&port).unwrap();
            w.bond().detach(port, &original).unwrap();
        }
        let name = w.links.by_index(heir.0).unwrap().unwrap().report.name;
        w.attach(&name, None);
        assert!(near(w).contains(&heir) && !near(w).contains(&free));
        let rest: Vec<_> = ports.iter().zip(&ends).filter(|(port, _)| **port != free).collect();
        let (ports, ends): (Vec<_>, Vec<_>) = rest.into_iter().map(|(port, end)| (*port, end.clone())).unzip();
        both_maps_hold(w, &ports);
        all_forward(w, &ports, &ends);
    });
}

#[test]
fn a_bond_of_the_layout_without_near_is_taken_over_under_traffic_and_loses_nothing() {
    for kind in 0..KINDS {
        for_both_hooks(move |w| {
            let device = w.device;
            take_over_under_load(w, kind, device);
        });
    }
}

/// With each program that can be on the wire, but for the two that load slowly.
pub(super) const KINDS: usize = 5;

/// Has an agent that makes bonds of this device take over a bond of the layout without `near`.
pub(super) fn take_over_under_load(w: &mut World, kind: usize, device: DeviceChoice) {
    let ports = w.bond_with_four_ports();
    let tx: [Tx; KINDS] = [
        Tx::one(Some(ports[0])),
        all(vec![ports[0]]),
        round_robin(&ports[..1], 1),
        hashed(vec![ports[0]], XmitHashPolicy::Layer2),
        hashed(vec![ports[0]], XmitHashPolicy::Layer34),
    ];
    let plan = w.list_plan(tx[kind].clone(), &ports[..1]);
    w.program(&plan);
    let old = downgrade(w, &plan);
    let mut before = 0;
    let seen = w.frames_in_both_directions(|w| {
        assert_eq!((near(w).len(), far(w).len()), (0, ports.len()));
        before = w.counters_in_ports(ports[0]);
        w.reopen_with(device);
        assert_eq!(w.adopt().unwrap().unwrap().plan, plan);
    });
    drop(old);
    assert_eq!((seen.sent_lost, seen.received_lost), (0, 0));
    println!(
        "{:?}: {} frames sent and {} received, none lost",
        plan.tx, seen.sent, seen.received
    );
    let counted = w.counters(ports[0]).tx_frames;
    assert!(
        before >= 1000 && (before..=before + u64::from(seen.sent)).contains(&counted),
        "{before}, {counted}"
    );
    assert!(!near(w).is_empty());
    both_maps_hold(w, &ports);
    // The next agent has nothing to take over.
    let programs = w.programs();
    w.reopen();
    assert_eq!(w.adopt().unwrap().unwrap().plan, plan);
    assert_eq!(w.programs(), programs);
}

#[test]
fn such_a_take_over_that_fails_at_any_step_is_completed_by_the_next_agent() {
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
            let bond = w.link("bond0").ifindex;
            w.socket.send(bond, &frame(OTHER)).unwrap();
            q1.expect(1);
            w.reopen();
            assert_eq!(w.adopt().unwrap().unwrap().plan, plan, "step {step}");
            w.send("bond0", OTHER, 1);
            q1.expect(1);
            both_maps_hold(w, &[p0, p1]);
            assert!(!near(w).is_empty());
            drop(old);
            if !reached {
                assert!(step > 4, "only {step} steps");
                break;
            }
        }
    });
}

#[test]
fn a_port_that_an_agent_left_in_both_maps_is_counted_once() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        w.send("bond0", OTHER, 3);
        let counted = w.counters(p0);
        let values = w
            .pinned::<PerCpuArray<_, Near>>(NEAR)
            .get(&(p0.0 % NEAR_SLOTS as u32), 0);
        let values: Vec<Port> = values.unwrap().iter().map(|cpu| cpu.port).collect();
        let mut ports = w.pinned::<PerCpuHashMap<_, u32, Port>>(PORTS);
        ports.insert(p0.0, values.try_into().unwrap(), 0).unwrap();
        w.reopen();
        w.adopt().unwrap().unwrap();
        both_maps_hold(w, &[p0, p1]);
        assert_eq!(w.counters(p0), counted);
    });
}

/// Each port sends what the bond sends through it, and lets in what comes; it counts that and nothing else.
fn all_forward(w: &mut World, ports: &[PortId], ends: &[String]) {
    let bond = w.tap("bond0");
    for (port, end) in ports.iter().zip(ends) {
        w.send_by(Tx::one(Some(*port)), &[*port]);
        let before: Vec<_> = ports.iter().map(|port| w.counters(*port)).collect();
        let far = w.tap(end);
        w.eventually(|w| {
            w.send_frame(&frame(OTHER));
            far.waiting() > 0
        });
        w.send(end, OTHER, 1);
        bond.expect(1);
        for (other, before) in ports.iter().zip(before) {
            let now = w.counters(*other);
            let moved = (now.tx_frames > before.tx_frames, now.rx_frames - before.rx_frames);
            assert_eq!(moved, (other == port, u64::from(other == port)), "{other}, {port}");
        }
    }
}

/// The attached ports are these, each in one of the maps, and each in a slot of its own if it has one.
fn both_maps_hold(w: &World, ports: &[PortId]) {
    let (near, far) = (near(w), far(w));
    assert!(near.is_disjoint(&far), "{near:?}, {far:?}");
    let all: BTreeSet<PortId> = near.union(&far).copied().collect();
    assert_eq!(all, ports.iter().copied().collect());
    let slots: BTreeSet<u32> = near.iter().map(|port| port.0 % NEAR_SLOTS as u32).collect();
    assert_eq!(slots.len(), near.len());
}

/// The ports that have slots.
fn near(w: &World) -> BTreeSet<PortId> {
    match w.pin(NEAR).exists() {
        true => {
            let map = w.pinned::<PerCpuArray<_, Near>>(NEAR);
            let slots = map.iter().map(|values| values.unwrap()[0].ifindex);
            slots.filter(|ifindex| *ifindex != 0).map(PortId).collect()
        }
        false => BTreeSet::new(),
    }
}

/// The ports without slots.
fn far(w: &World) -> BTreeSet<PortId> {
    let map = w.pinned::<PerCpuHashMap<_, u32, Port>>(PORTS);
    map.keys().map(|key| PortId(key.unwrap())).collect()
}

/// Puts the programs and pins of the layout without `near` in place of ours, for a bond with this plan.
fn downgrade(w: &mut World, plan: &ForwardingPlan) -> [Ebpf; 2] {
    let mut ports = w.pinned::<PerCpuHashMap<_, u32, Port>>(PORTS);
    for values in w.pinned::<PerCpuArray<_, Near>>(NEAR).iter() {
        let values = values.unwrap();
        if values[0].ifindex != 0 {
            let counted: Vec<Port> = values.iter().map(|cpu| cpu.port).collect();
            ports.insert(values[0].ifindex, counted.try_into().unwrap(), 0).unwrap();
        }
    }
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    for (name, _) in MAPS.iter().filter(|(name, _)| *name != NEAR) {
        loader.map_pin_path(name, w.pin(name));
    }
    let of_wire = match Way::of(&plan.tx) {
        Some(Way::One) => TX_ONE,
        Some(Way::Turns) => TX_TURNS,
        Some(Way::All) => TX_ALL,
        Some(Way::Ether) => TX_ETHER,
        Some(Way::Ip) => TX_IP,
        other => panic!("no program for {other:?}"),
    };
    let [mut tx, mut rx] = [of_wire, PORT_RX].map(|object| loader.load(object).unwrap());
    let (pins, ifindex, wire) = (w.kept().pins.clone(), w.kept().ifindex, w.kept().wire);
    let (device, hook) = (w.kept().kind, w.kept().hook);
    let (wire_name, tx_pin) = (wire_name(ifindex), pins.tx());
    let of_tx = tx_place(device, ("bond0", ifindex), (&wire_name, wire), &tx_pin);
    put_on(&mut tx, of_tx, device.tx_hook(hook));
    for port in plan.ports.keys() {
        let name = w.links.by_index(port.0).unwrap().unwrap().report.name;
        put_on(&mut rx, place(&name, *port, &pins.rx(*port)), hook);
    }
    unpin(&w.pin(NEAR)).unwrap();
    let mut state = w.pinned::<Array<_, State>>(STATE);
    let older = State {
        layout: WITHOUT_NEAR,
        build: 1,
        ..state.get(&0, 0).unwrap()
    };
    state.set(0, older, 0).unwrap();
    [tx, rx]
}

impl World {
    fn pin(&self, name: &str) -> PathBuf {
        self.kept().pins.map(name)
    }

    fn pinned<T: TryFrom<Map, Error = MapError>>(&self, name: &str) -> T {
        let data = MapData::from_pin(self.pin(name)).unwrap();
        Map::from_map_data(data).unwrap().try_into().unwrap()
    }

    /// Frames that `ports` counts as sent.
    fn counters_in_ports(&self, port: PortId) -> u64 {
        let values = self.pinned::<PerCpuHashMap<_, u32, Port>>(PORTS).get(&port.0, 0);
        values.unwrap().iter().map(|cpu| cpu.counters.tx_frames).sum()
    }
}

static PORT_RX: &[u8] = include_bytes_aligned!("../../../../testdata/tc/without-near-port_rx.bpf.o");
static TX_ONE: &[u8] = include_bytes_aligned!("../../../../testdata/tc/without-near-tx_one.bpf.o");
static TX_TURNS: &[u8] = include_bytes_aligned!("../../../../testdata/tc/without-near-tx_turns.bpf.o");
static TX_ALL: &[u8] = include_bytes_aligned!("../../../../testdata/tc/without-near-tx_all.bpf.o");
static TX_ETHER: &[u8] = include_bytes_aligned!("../../../../testdata/tc/without-near-tx_ether.bpf.o");
static TX_IP: &[u8] = include_bytes_aligned!("../../../../testdata/tc/without-near-tx_ip.bpf.o");

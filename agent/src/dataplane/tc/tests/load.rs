//! Lists change under load: every frame leaves through exactly the ports of one list, and none is lost or doubled.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use bond_modes::hash::hash;
use bond_modes::plan::{ForwardingPlan, Spread, Tx};
use bond_modes::{PortId, XmitHashPolicy};

use super::Hook;
use super::world::*;
use crate::dataplane::PlaneBond;
use crate::packet::PacketSocket;

#[test]
fn no_frame_is_lost_or_doubled_while_round_robin_changes_its_list() {
    for hook in [Hook::Auto, Hook::Clsact] {
        in_world(hook, |w| under_load(w, "round robin", &[turns]));
    }
}

#[test]
fn no_frame_is_lost_doubled_or_misdirected_while_a_hash_changes_its_list() {
    for hook in [Hook::Auto, Hook::Clsact] {
        in_world(hook, |w| {
            under_load(w, "hash", &[|ports| hashed(ports, XmitHashPolicy::Layer34)]);
        });
    }
}

#[test]
fn no_copy_is_lost_or_doubled_while_a_broadcast_changes_its_list() {
    for hook in [Hook::Auto, Hook::Clsact] {
        in_world(hook, |w| under_load(w, "broadcast", &[all]));
    }
}

#[test]
fn no_frame_is_lost_doubled_or_misdirected_while_the_hash_policy_changes() {
    // Neighbours have different programs. Those for what is inside of tunnels take long to load, so they are seldom.
    let shallow: [Policy; 4] = [
        |ports| hashed(ports, XmitHashPolicy::Layer2),
        |ports| hashed(ports, XmitHashPolicy::Layer34),
        |ports| hashed(ports, XmitHashPolicy::VlanSrcmac),
        |ports| hashed(ports, XmitHashPolicy::Layer23),
    ];
    let deep: [Policy; 2] = [
        |ports| hashed(ports, XmitHashPolicy::Encap23),
        |ports| hashed(ports, XmitHashPolicy::Encap34),
    ];
    let policies: Vec<Policy> = deep
        .iter()
        .flat_map(|deep| shallow.iter().cycle().take(25).chain([deep]))
        .copied()
        .collect();
    for hook in [Hook::Auto, Hook::Clsact] {
        let policies = policies.clone();
        in_world(hook, move |w| under_load(w, "hash policies", &policies));
    }
}

#[test]
fn no_frame_is_lost_doubled_or_misdirected_while_the_way_of_spreading_changes() {
    let policies: [Policy; 5] = [
        |ports| Tx::one(Some(ports[0])),
        turns,
        all,
        |ports| Tx::one(Some(ports[1])),
        |ports| hashed(ports, XmitHashPolicy::Layer34),
    ];
    for hook in [Hook::Auto, Hook::Clsact] {
        in_world(hook, move |w| under_load(w, "all ways", &policies));
    }
}

#[test]
fn a_mode_that_changes_while_the_bond_is_empty_has_its_program_when_a_port_comes() {
    for_both_hooks(|w| {
        w.create();
        let far = w.far_ends();
        let policies: [Policy; 5] = [
            |ports| Tx::one(Some(ports[0])),
            turns,
            all,
            |ports| hashed(ports, XmitHashPolicy::Encap34),
            |ports| hashed(ports, XmitHashPolicy::Layer2),
        ];
        for (number, policy) in (0..).zip(policies.iter().cycle().take(10)) {
            w.attach("p0", None);
            w.attach("p1", None);
            let ports = [w.port("p0"), w.port("p1")];
            let tx = policy(ports.to_vec());
            w.send_by(tx.clone(), &ports);
            // An interface whose carrier has only just come drops what it is given for a moment.
            w.eventually(|w| {
                w.send_frame(&numbered(frame(OTHER), u32::MAX));
                far.iter().any(|end| end.waiting() > 0)
            });
            // Each frame is there as often as the policy says.
            let copies = if tx.kind == Spread::All { 2 } else { 1 };
            (0..20).for_each(|frame| w.send_frame(&flow(number * 20 + frame)));
            let arrived = w.gather(&far, 20 * copies);
            for frame in number * 20..number * 20 + 20 {
                let places = arrived.each_ref().map(|numbers| {
                    let same = numbers.iter().filter(|number| **number == frame);
                    same.count() as u8
                });
                assert!(fits(&tx, &ports, &flow(frame), places), "{tx:?}: {places:?}");
            }
            for port in ports {
                let original = w.originals.remove(&port).unwrap();
                w.bond().detach(port, &original).unwrap();
            }
            w.program(&w.plan(None, &[]));
        }
    });
}

/// Makes a policy for a list of ports.
type Policy = fn(Vec<PortId>) -> Tx;

fn turns(ports: Vec<PortId>) -> Tx {
    round_robin(&ports, 1)
}

/// Whether a frame can have arrived so under a policy; `ports` are those of the far ends.
fn fits(tx: &Tx, ports: &[PortId], frame: &[u8], arrived: [u8; 4]) -> bool {
    let only = |port: PortId| {
        let mut wanted = [0; 4];
        wanted[ports.iter().position(|other| *other == port).unwrap()] = 1;
        arrived == wanted
    };
    match tx.kind {
        _ if tx.is_nowhere() => false,
        Spread::One | Spread::RoundRobin { .. } => tx.ports.iter().any(|port| only(*port)),
        Spread::Hash(policy) => only(tx.ports[hash(policy, frame, None) as usize % tx.ports.len()]),
        Spread::All => (0..4).all(|place| {
            let named = ports.get(place).is_some_and(|port| tx.ports.contains(port));
            arrived[place] == u8::from(named)
        }),
        Spread::Buckets { .. } => panic!("no plane can do this"),
    }
}

/// Sends without a pause while lists, and policies if there are several, change.
fn under_load(w: &mut World, name: &str, policies: &[Policy]) {
    let ports = w.bond_with_four_ports();
    let plans = plans(w, &ports, policies);
    w.program(&plans[0]);
    let far = w.far_ends();
    let bond = w.link("bond0").ifindex;
    let traffic = Traffic::default();
    let start = Instant::now();
    let (times, arrived, took) = thread::scope(|scope| {
        scope.spawn(|| traffic.send(bond));
        let reader = scope.spawn(|| traffic.receive(&far));
        let _end = EndOfTraffic(&traffic);
        let times = traffic.change(w, &plans[1..]);
        traffic.enough.store(true, Ordering::Relaxed);
        let took = start.elapsed();
        (times, reader.join().unwrap(), took)
    });
    let sent = arrived.len();
    let count = |is: &dyn Fn(&[u8; 4]) -> bool| arrived.iter().filter(|places| is(places)).count();
    let lost = count(&|places| *places == [0; 4]);
    let doubled = count(&|places| places.iter().any(|count| *count > 1));
    let misdirected = |&(number, places): &(u32, [u8; 4])| {
        let frame = flow(number);
        let mut candidates = (0..plans.len()).filter(|place| times.in_force(number, *place));
        !candidates.any(|place| fits(&plans[place].tx, &ports, &frame, places))
    };
    let wrong = (0..).zip(arrived.iter().copied()).filter(misdirected).count();
    println!(
        "{name} ({:?}): {sent} frames sent, {:.0} a second, {CHANGES} changes, {lost} lost, {doubled} doubled, {wrong} otherwise \
         than a plan in force says",
        w.hook,
        sent as f64 / took.as_secs_f64(),
    );
    let missed = far.each_ref().map(Tap::missed);
    assert_eq!(missed, [0; 4], "the test's own sockets lost frames");
    assert_eq!((lost, doubled, wrong), (0, 0, 0));
    assert!(sent > CHANGES * BETWEEN_CHANGES as usize, "only {sent} frames");
}

/// The plans that follow each other: lists in turn, policies in turn.
fn plans(w: &World, ports: &[PortId], policies: &[Policy]) -> Vec<ForwardingPlan> {
    (0..=CHANGES)
        .map(|change| {
            let list = LISTS[change % LISTS.len()].iter().map(|place| ports[*place]);
            let list: Vec<PortId> = list.collect();
            w.list_plan(policies[change % policies.len()](list.clone()), &list)
        })
        .collect()
}

/// How many frames were sent when the change to each plan began, and when it was done.
struct Times {
    begun: Vec<u32>,
    done: Vec<u32>,
}

impl Times {
    /// Whether a frame may have met the plan at this place. It may have been on its way for as long as the window is, and one more
    /// is about to be sent.
    fn in_force(&self, number: u32, place: usize) -> bool {
        let replaced = self.done.get(place + 1).copied().unwrap_or(u32::MAX - 1);
        self.begun[place] <= number + WINDOW && number <= replaced + 1
    }
}

/// What sender, receiver and the one who changes lists know of each other.
#[derive(Default)]
struct Traffic {
    sent: AtomicU32,
    seen: AtomicU32,
    enough: AtomicBool,
    ended: AtomicBool,
}

/// Sees to it that a failure ends the threads too.
struct EndOfTraffic<'a>(&'a Traffic);

impl Drop for EndOfTraffic<'_> {
    fn drop(&mut self) {
        self.0.enough.store(true, Ordering::Relaxed);
    }
}

impl Traffic {
    fn send(&self, bond: u32) {
        let socket = PacketSocket::open().unwrap();
        for number in 0.. {
            // Not further ahead than the kernel's queues are long.
            let deadline = Instant::now() + PATIENCE;
            while number - self.seen.load(Ordering::Relaxed) > WINDOW && Instant::now() < deadline {
                thread::yield_now();
            }
            if self.enough.load(Ordering::Relaxed) {
                break;
            }
            socket.send(bond, &flow(number)).unwrap();
            self.sent.store(number + 1, Ordering::Relaxed);
        }
        self.ended.store(true, Ordering::Release);
    }

    /// Programs the plans one after the other, with some frames between them.
    fn change(&self, w: &mut World, plans: &[ForwardingPlan]) -> Times {
        let sent = || self.sent.load(Ordering::Relaxed);
        let mut times = Times {
            begun: vec![0],
            done: vec![0],
        };
        for next in plans {
            let mark = sent();
            times.begun.push(mark);
            w.program(next);
            times.done.push(sent());
            let deadline = Instant::now() + PATIENCE;
            while sent() < mark + BETWEEN_CHANGES && Instant::now() < deadline {
                thread::yield_now();
            }
        }
        times
    }

    /// How often each frame that was sent came out of each far end.
    fn receive(&self, far: &[Tap; 4]) -> Vec<[u8; 4]> {
        let mut arrived: Vec<[u8; 4]> = Vec::new();
        let mut last = Instant::now();
        loop {
            let ended = self.ended.load(Ordering::Acquire);
            for (place, end) in far.iter().enumerate() {
                while let Some(number) = end.number_waiting() {
                    arrived.resize(arrived.len().max(number as usize + 1), [0; 4]);
                    let counts = &mut arrived[number as usize];
                    if *counts == [0; 4] {
                        self.seen.fetch_add(1, Ordering::Relaxed);
                    }
                    counts[place] += 1;
                    last = Instant::now();
                }
            }
            let sent = self.sent.load(Ordering::Relaxed);
            // A moment longer than needed: what comes twice comes soon.
            let patience = match self.seen.load(Ordering::Relaxed) {
                all if all == sent => PATIENCE / 20,
                _ => PATIENCE,
            };
            if ended && last.elapsed() > patience {
                arrived.resize(sent as usize, [0; 4]);
                return arrived;
            }
            thread::yield_now();
        }
    }
}

/// An IPv4 UDP frame, the next one of another flow.
fn flow(number: u32) -> Vec<u8> {
    let mut bytes = frame(OTHER);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14..34].copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes[34..36].copy_from_slice(&(number as u16).wrapping_mul(257).to_be_bytes());
    numbered(bytes, number)
}

/// Places of ports: lists of two, three and four, with neither the first nor the last the same throughout.
const LISTS: [&[usize]; 4] = [&[0, 1], &[1, 2, 3], &[0, 1, 2, 3], &[3, 0]];
const CHANGES: usize = 400;
const BETWEEN_CHANGES: u32 = 60;
const WINDOW: u32 = 128;

//! Lists change under load: every frame leaves through exactly the ports of one list, and none is lost or doubled.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use crate::dataplane::wanted::TxPolicy;
use bond_modes::hash::hash;
use bond_modes::{PortId, XmitHashPolicy};

use super::Hook;
use super::world::*;
use crate::packet::PacketSocket;

#[test]
fn no_frame_is_lost_or_doubled_while_round_robin_changes_its_list() {
    let list = |ports: Vec<PortId>| TxPolicy::RoundRobin {
        igmp: ports[0],
        ports,
        packets_per_port: 1,
    };
    let one = |_: &[u8], ports: &[usize], arrived: [u8; 4]| ports.iter().any(|port| arrived == only(*port));
    for hook in [Hook::Auto, Hook::Clsact] {
        in_world(hook, move |w| under_load(w, "round robin", list, one));
    }
}

#[test]
fn no_frame_is_lost_doubled_or_misdirected_while_a_hash_changes_its_list() {
    const POLICY: XmitHashPolicy = XmitHashPolicy::Layer34;
    let list = |ports| TxPolicy::Hash { ports, policy: POLICY };
    let its_own = |frame: &[u8], ports: &[usize], arrived: [u8; 4]| {
        arrived == only(ports[hash(POLICY, frame, None) as usize % ports.len()])
    };
    for hook in [Hook::Auto, Hook::Clsact] {
        in_world(hook, move |w| under_load(w, "hash", list, its_own));
    }
}

#[test]
fn no_copy_is_lost_or_doubled_while_a_broadcast_changes_its_list() {
    let whole_list = |_: &[u8], ports: &[usize], arrived: [u8; 4]| {
        let mut wanted = [0; 4];
        ports.iter().for_each(|port| wanted[*port] = 1);
        arrived == wanted
    };
    for hook in [Hook::Auto, Hook::Clsact] {
        in_world(hook, move |w| under_load(w, "broadcast", TxPolicy::All, whole_list));
    }
}

/// Sends without a pause while lists change. `fits` says whether a frame can have arrived so under a list.
fn under_load(
    w: &mut World,
    name: &str,
    policy: impl Fn(Vec<PortId>) -> TxPolicy,
    fits: impl Fn(&[u8], &[usize], [u8; 4]) -> bool,
) {
    let ports = w.bond_with_four_ports();
    let plan = |w: &World, list: &[usize]| {
        let list: Vec<PortId> = list.iter().map(|place| ports[*place]).collect();
        w.list_plan(policy(list.clone()), &list)
    };
    let first = plan(w, LISTS[0]);
    w.program(&first);
    let far = w.far_ends();
    let bond = w.link("bond0").ifindex;
    let traffic = Traffic::default();
    let start = Instant::now();
    let (arrived, took) = thread::scope(|scope| {
        scope.spawn(|| traffic.send(bond));
        let reader = scope.spawn(|| traffic.receive(&far));
        for change in 1..=CHANGES {
            let mark = traffic.sent.load(Ordering::Relaxed);
            let next = plan(w, LISTS[change % LISTS.len()]);
            w.program(&next);
            let deadline = Instant::now() + PATIENCE;
            while traffic.sent.load(Ordering::Relaxed) < mark + BETWEEN_CHANGES && Instant::now() < deadline {
                thread::yield_now();
            }
        }
        traffic.enough.store(true, Ordering::Relaxed);
        let took = start.elapsed();
        (reader.join().unwrap(), took)
    });
    let sent = arrived.len();
    let lost = arrived.iter().filter(|ports| **ports == [0; 4]).count();
    let doubled = arrived
        .iter()
        .filter(|ports| ports.iter().any(|count| *count > 1))
        .count();
    let wrong = (0..)
        .zip(&arrived)
        .filter(|(number, ports)| !LISTS.iter().any(|list| fits(&flow(*number), list, **ports)))
        .count();
    println!(
        "{name} ({:?}): {sent} frames sent, {:.0} a second, {CHANGES} changes of the list, {lost} lost, {doubled} doubled, \
         {wrong} otherwise than any list says",
        w.hook,
        sent as f64 / took.as_secs_f64(),
    );
    assert_eq!(
        far.each_ref().map(Tap::missed),
        [0; 4],
        "the test's own sockets lost frames"
    );
    assert_eq!((lost, doubled, wrong), (0, 0, 0));
    assert!(sent > CHANGES * BETWEEN_CHANGES as usize, "only {sent} frames");
}

/// What sender, receiver and the one who changes lists know of each other.
#[derive(Default)]
struct Traffic {
    sent: AtomicU32,
    seen: AtomicU32,
    enough: AtomicBool,
    ended: AtomicBool,
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

fn only(port: usize) -> [u8; 4] {
    let mut arrived = [0; 4];
    arrived[port] = 1;
    arrived
}

/// Places of ports: lists of two, three and four, with neither the first nor the last the same throughout.
const LISTS: [&[usize]; 4] = [&[0, 1], &[1, 2, 3], &[0, 1, 2, 3], &[3, 0]];
const CHANGES: usize = 400;
const BETWEEN_CHANGES: u32 = 60;
const WINDOW: u32 = 128;

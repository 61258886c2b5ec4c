//! Lists change under load: every frame leaves through exactly the ports of one list, and none is lost or doubled.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use bond_modes::hash::hash;
use bond_modes::{PortId, TxPolicy, XmitHashPolicy};

use super::Hook;
use super::world::*;
use crate::dataplane::Dataplane;
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
    let (sent, seen) = (AtomicU32::new(0), AtomicU32::new(0));
    let start = Instant::now();
    let mut changes = 0;
    let (arrived, took) = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            send_all(bond, &sent, &seen);
            start.elapsed()
        });
        let reader = scope.spawn(|| receive_all(&far, &seen));
        while !sender.is_finished() {
            let mark = sent.load(Ordering::Relaxed);
            changes += 1;
            let next = plan(w, LISTS[changes % LISTS.len()]);
            w.program(&next);
            while sent.load(Ordering::Relaxed) < mark + BETWEEN_CHANGES && !sender.is_finished() {
                thread::yield_now();
            }
        }
        (reader.join().unwrap(), sender.join().unwrap())
    });
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
        "{name} ({:?}): {FRAMES} frames sent, {:.0} a second, {changes} changes of the list, {lost} lost, {doubled} doubled, \
         {wrong} through ports of no list",
        w.hook,
        f64::from(FRAMES) / took.as_secs_f64(),
    );
    assert_eq!(
        far.each_ref().map(Tap::missed),
        [0; 4],
        "the test's own sockets lost frames"
    );
    assert_eq!((lost, doubled, wrong), (0, 0, 0));
    assert!(changes > 200, "only {changes} changes");
}

fn send_all(bond: u32, sent: &AtomicU32, seen: &AtomicU32) {
    let socket = PacketSocket::open().unwrap();
    for number in 0..FRAMES {
        // Not further ahead than the kernel's queues are long.
        let deadline = Instant::now() + PATIENCE;
        while number - seen.load(Ordering::Relaxed) > WINDOW && Instant::now() < deadline {
            thread::yield_now();
        }
        socket.send(bond, &flow(number)).unwrap();
        sent.store(number + 1, Ordering::Relaxed);
    }
}

/// How often each frame came out of each far end.
fn receive_all(far: &[Tap; 4], seen: &AtomicU32) -> Vec<[u8; 4]> {
    let mut arrived = vec![[0u8; 4]; FRAMES as usize];
    let mut last = Instant::now();
    let mut found = 0;
    // A moment longer than needed: whatever comes twice comes soon.
    while last.elapsed() < if found < FRAMES { PATIENCE } else { PATIENCE / 20 } {
        for (place, end) in far.iter().enumerate() {
            while let Some(number) = end.number_waiting() {
                let counts = &mut arrived[number as usize];
                if *counts == [0; 4] {
                    found += 1;
                    seen.store(found, Ordering::Relaxed);
                }
                counts[place] += 1;
                last = Instant::now();
            }
        }
        thread::yield_now();
    }
    arrived
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
const FRAMES: u32 = 60_000;
const BETWEEN_CHANGES: u32 = 60;
const WINDOW: u32 = 128;

//! Lists of ports: who gets which frame, and how lists come, change and go.

use std::process::Command;

use bond_modes::hash::{hash, hash_at};
use bond_modes::plan::{Spread, Tx};
use bond_modes::{PortId, XmitHashPolicy};

use super::world::*;
use crate::dataplane::frames::{self, Random};
use crate::dataplane::step::fault;
use crate::dataplane::tc::lists::GRACE_PERIODS;
use crate::dataplane::tc::{DeviceChoice, Hook};
use crate::dataplane::{PlaneBond, PlaneError, PortBase};

#[test]
fn round_robin_goes_by_the_count_of_the_processor() {
    for_both_hooks(|w| {
        stay_on_one_cpu();
        let ports = w.bond_with_four_ports();
        let far = w.far_ends();
        let mut expected = [const { Vec::new() }; 4];
        let before = w.counters(ports[0]).tx_frames;
        let mut turn = 0;
        // The count goes on through changes of the list and restarts.
        for (count, packets_per_port) in [(3, 1), (3, 3), (2, 1), (4, 2), (1, 1), (4, 1)] {
            w.send_by(round_robin(&ports[..count], packets_per_port), &ports[..count]);
            for _ in 0..25 {
                turn += 1;
                w.send_frame(&numbered(frame(OTHER), turn));
                expected[(turn / packets_per_port) as usize % count].push(turn);
            }
            w.reopen();
            w.adopt().unwrap().unwrap();
        }
        assert_eq!(w.gather(&far, turn as usize), expected);
        assert_eq!(w.counters(ports[0]).tx_frames - before, expected[0].len() as u64);
    });
}

#[test]
fn round_robin_without_a_number_of_packets_is_random() {
    in_world(super::Hook::Auto, |w| {
        stay_on_one_cpu();
        let ports = w.bond_with_four_ports();
        let far = w.far_ends();
        w.send_by(round_robin(&ports[..2], 0), &ports);
        (0..400).for_each(|number| w.send_frame(&numbered(frame(OTHER), number)));
        let arrived = w.gather(&far, 400);
        assert!(arrived[0].len().min(arrived[1].len()) > 100, "{arrived:?}");
        let in_turn = arrived[0].windows(2).filter(|pair| pair[1] == pair[0] + 2).count();
        assert!(in_turn < 100, "{arrived:?}");
        // The random frames took no turn: the next list begins with its second port, as on a new bond.
        w.send_by(round_robin(&ports, 1), &ports);
        w.send_frame(&numbered(frame(OTHER), 400));
        assert_eq!(w.gather(&far, 1)[1], [400]);
    });
}

#[test]
fn igmp_stays_on_its_port_and_takes_no_turn() {
    in_world(super::Hook::Auto, |w| {
        stay_on_one_cpu();
        let ports = w.bond_with_four_ports();
        let far = w.far_ends();
        let kind = Spread::RoundRobin {
            packets_per_port: 1,
            igmp: Some(ports[3]),
        };
        w.send_by(Tx::new(kind, ports.clone()), &ports);
        let ip = |proto: u8, length: usize| {
            let mut bytes = frame(OTHER);
            bytes[12..14].copy_from_slice(&[0x08, 0x00]);
            bytes[14..34].copy_from_slice(&[0x45, 0, 0, 28, 0, 0, 0, 0, 1, proto, 0, 0, 10, 0, 0, 1, 224, 0, 0, 1]);
            bytes.truncate(length);
            bytes
        };
        let ipv6_with_a_2_there = {
            let mut bytes = ip(2, 60);
            bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
            bytes
        };
        let frames = [
            ip(2, 30),
            ip(17, 56),
            ip(2, 56),
            ipv6_with_a_2_there,
            ip(2, 29),
            ip(2, 30),
        ];
        for (number, frame) in (0..).zip(frames) {
            w.send_frame(&numbered(frame, number));
        }
        // 30 bytes and the number hold a whole IP header, 29 do not.
        assert_eq!(w.gather(&far, 6), [vec![], vec![1], vec![3], vec![0, 2, 4, 5]]);
    });
}

#[test]
fn a_hash_sends_every_frame_where_the_oracle_says() {
    for_both_hooks(|w| {
        let ports = w.bond_with_four_ports();
        let far = w.far_ends();
        let mut random = Random::new(7);
        for &(policy, name, _) in XmitHashPolicy::VALUES {
            for count in [2, 3, 4] {
                w.send_by(hashed(ports[..count].to_vec(), policy), &ports);
                let mut expected = [const { Vec::new() }; 4];
                for number in 0..FLOWS {
                    let mut bytes = frames::frame(&mut random);
                    // The kernel drops a tag without a whole EtherType and two bytes more behind it. [skbuff.c: skb_vlan_untag]
                    bytes.resize(bytes.len().max(16), 0);
                    let bytes = numbered(bytes, number);
                    w.send_frame(&bytes);
                    // A tag that a packet socket sent is still in the bytes on a netkit device, as it is in the driver.
                    let hash = match w.device {
                        DeviceChoice::Netkit => hash_at(policy, &bytes, None, 14),
                        _ => hash(policy, &bytes, None),
                    };
                    expected[hash as usize % count].push(number);
                }
                assert_eq!(w.gather(&far, FLOWS as usize), expected, "{name} over {count} ports");
            }
        }
    });
}

#[test]
fn every_port_gets_a_copy_whatever_the_size() {
    for_both_hooks(|w| {
        let ports = w.bond_with_four_ports();
        let far = w.far_ends();
        let counted = |w: &mut World| [0, 1, 2, 3].map(|place: usize| w.counters(ports[place]).tx_frames);
        let before = counted(w);
        w.send_by(all(ports.clone()), &ports);
        for (number, size) in (0..).zip([14, 16, 42, 60, 512, 1510]) {
            let mut bytes = frame(OTHER);
            bytes.resize(size, 0xcc);
            let bytes = numbered(bytes, number);
            w.send_frame(&bytes);
            for end in &far {
                assert_eq!(end.next().as_ref(), Some(&bytes), "{size} bytes");
            }
        }
        w.send_by(all(vec![ports[2]]), &ports);
        w.send_frame(&numbered(frame(OTHER), 99));
        assert_eq!(w.gather(&far, 1), [vec![], vec![], vec![99], vec![]]);
        let after = counted(w);
        assert_eq!([0, 1, 2, 3].map(|place| after[place] - before[place]), [6, 6, 7, 6]);
    });
}

#[test]
fn every_port_gets_a_copy_of_what_is_still_to_be_segmented() {
    for_both_hooks(|w| {
        let ports = w.bond_with_four_ports();
        let far = w.far_ends();
        // This one cannot take large frames, so the kernel cuts its copy; the last one gets the frame itself.
        for port in ["p1", "p3"] {
            let off = Command::new("ethtool")
                .args(["-K", port, "tso", "off", "gso", "off"])
                .output();
            let off = off.unwrap();
            assert!(off.status.success(), "{off:?}");
        }
        w.send_by(all(ports.clone()), &ports);
        const PAYLOAD: usize = 30_000;
        const SEGMENT: usize = 1448;
        for round in 0..20 {
            let bytes = tcp(PAYLOAD, round);
            send_unsegmented(w.link("bond0").ifindex, &bytes, SEGMENT as u16);
            for whole in [0, 2] {
                assert_eq!(far[whole].next().as_ref(), Some(&bytes));
            }
            for cut in [1, 3] {
                let mut payload = Vec::new();
                for _ in 0..PAYLOAD.div_ceil(SEGMENT) {
                    payload.extend_from_slice(&far[cut].next().expect("a segment was lost")[54..]);
                }
                assert_eq!(payload, bytes[54..]);
            }
        }
        assert!(far.iter().all(|end| end.waiting() == 0));
    });
}

#[test]
fn a_new_process_finds_the_list_in_force() {
    for_both_hooks(|w| {
        let ports = w.bond_with_four_ports();
        for tx in policies(&ports) {
            let plan = w.list_plan(tx, &ports);
            w.program(&plan);
            w.reopen();
            assert_eq!(w.adopt().unwrap().unwrap().plan, plan);
        }
    });
}

#[test]
fn a_bond_of_an_agent_without_lists_is_taken_over() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let plan = w.plan(Some(p1), &[p0, p1]);
        w.program(&plan);
        let pins = w.kept().pins.clone();
        for map in ["lists", "turns"] {
            crate::dataplane::tc::pins::unpin(&pins.map(map)).unwrap();
        }
        w.reopen();
        assert_eq!(w.adopt().unwrap().unwrap().plan, plan);
        let far = w.far_ends();
        w.send_by(all(vec![p0, p1]), &[p0, p1]);
        w.send_frame(&numbered(frame(OTHER), 1));
        assert_eq!(w.gather(&far, 2), [vec![1], vec![1], vec![], vec![]]);
        w.reopen();
        let observed = w.adopt().unwrap().unwrap();
        assert_eq!(observed.plan.tx, all(vec![p0, p1]));
    });
}

#[test]
fn a_list_with_a_vanished_port_is_programmed_without_it() {
    in_world(super::Hook::Auto, |w| {
        let ports = w.bond_with_four_ports();
        let gone = ports[1];
        let original = w.originals.remove(&gone).unwrap();
        w.bond().detach(gone, &original).unwrap();
        let left = [ports[0], ports[2], ports[3]];
        for (wanted, possible) in policies(&ports).into_iter().zip(policies(&left)) {
            let plan = w.list_plan(wanted, &left);
            let outcome = w.bond().program(&plan).result();
            assert!(
                matches!(outcome, Err(PlaneError::PortGone { port }) if port == gone),
                "{outcome:?}"
            );
            assert_eq!(w.in_force(|now| now.bpf.tx()).unwrap(), possible);
        }
        // A list without any attached port changes nothing.
        let before = w.in_force(|now| now.bpf.tx()).unwrap();
        let plan = w.list_plan(all(vec![gone]), &left);
        w.bond().program(&plan).result().unwrap_err();
        assert_eq!(w.in_force(|now| now.bpf.tx()).unwrap(), before);
    });
}

#[test]
fn a_port_that_is_detached_leaves_the_list_in_force() {
    for_both_hooks(|w| {
        let ports = w.bond_with_four_ports();
        let mut left = ports.clone();
        let kind = Spread::RoundRobin {
            packets_per_port: 1,
            igmp: Some(ports[1]),
        };
        w.send_by(Tx::new(kind, ports.clone()), &ports);
        for gone in [ports[1], ports[0], ports[3], ports[2]] {
            let original = w.originals.remove(&gone).unwrap();
            w.bond().detach(gone, &original).unwrap();
            left.retain(|port| *port != gone);
            let expected = if left.is_empty() {
                Tx::one(None)
            } else {
                round_robin(&left, 1)
            };
            w.reopen();
            assert_eq!(w.adopt().unwrap().unwrap().plan.tx, expected);
        }
    });
}

#[test]
fn a_list_that_fails_at_any_step_is_completed_by_the_next_plan() {
    for_both_hooks(|w| {
        let ports = w.bond_with_four_ports();
        for step in 0.. {
            w.send_by(round_robin(&ports[..2], 1), &ports[..2]);
            let to = w.list_plan(round_robin(&ports[1..], 4), &ports[1..]);
            let (outcome, reached) = fault::at(step, || w.bond().program(&to).result());
            assert_eq!(outcome.is_err(), reached);
            w.program(&to);
            w.reopen();
            assert_eq!(w.adopt().unwrap().unwrap().plan, to, "step {step}");
            if !reached {
                assert!(step > 3, "only {step} steps");
                break;
            }
        }
    });
}

/// One of each kind of list.
fn policies(ports: &[PortId]) -> Vec<Tx> {
    let values = XmitHashPolicy::VALUES.iter();
    let hashes = values.map(|(policy, _, _)| hashed(ports.to_vec(), *policy));
    [0, 1, 7]
        .map(|packets_per_port| round_robin(ports, packets_per_port))
        .into_iter()
        .chain(hashes)
        .chain([all(ports.to_vec())])
        .collect()
}

/// An IPv4 TCP frame with a payload of this size.
fn tcp(payload: usize, seed: u8) -> Vec<u8> {
    let mut bytes = frame(OTHER);
    bytes.truncate(12);
    bytes.extend([0x08, 0x00, 0x45, 0]);
    bytes.extend((payload as u16 + 40).to_be_bytes());
    bytes.extend([0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend([
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    bytes.extend((0..payload).map(|at| (at as u8).wrapping_mul(31) ^ seed));
    bytes
}

const FLOWS: u32 = 200;

#[test]
fn one_grace_period_serves_all_bonds_that_are_taken_over() {
    in_world(Hook::Auto, |w| {
        let (p0, p1) = w.bond_with_two_ports();
        w.send_by(round_robin(&[p0, p1], 1), &[p0, p1]);
        let ports = ["p2", "p3"].map(|name| w.port(name));
        let (mut other, _) = w.plane.make("bond1").unwrap();
        for port in ports {
            other.attach(port, &PortBase { mac: None, mtu: 1500 }).unwrap();
        }
        let mut plan = other.bond.forwarding.with(|now| now.applied.clone());
        plan.tx = round_robin(&ports, 1);
        other.program(&plan).result().unwrap();
        drop(other);
        w.reopen();
        let before = GRACE_PERIODS.get();
        w.adopt().unwrap().unwrap();
        let (other, observed) = w.plane.take_over("bond1").unwrap().unwrap();
        assert_eq!(GRACE_PERIODS.get() - before, 1);
        assert_eq!(observed.plan.tx, plan.tx);
        drop(other);
        // This agent may have left lists of it a moment ago.
        let (other, _) = w.plane.take_over("bond1").unwrap().unwrap();
        assert_eq!(GRACE_PERIODS.get() - before, 2);
        Box::new(other).destroy().unwrap();
    });
}

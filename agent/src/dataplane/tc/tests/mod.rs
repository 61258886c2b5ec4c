//! The plane against the kernel, each test in a network namespace of its own: `p0` to `p3` are ports, `q0` to `q3` the far
//! ends of their cables. Frames of a protocol of our own are put on a cable or on the bond and looked for elsewhere.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use bond_modes::PortId;
use bond_modes::plan::{Accept, PortPlan, Tx};
use bond_monitors::{Carrier, MacAddr};

use self::world::*;
use super::Hook;
use crate::dataplane::lock::lock;
use crate::dataplane::step::fault;
use crate::dataplane::{Plane, PlaneBond, PlaneError};
use crate::netlink::sysctl;
use crate::netlink::tests::asks;
use crate::packet::PacketSocket;

mod failover;
mod failover_checks;
mod failover_faults;
mod failover_later;
mod failover_leaving;
mod faults;
mod guard;
mod hash;
mod heard;
mod hooks;
mod lists;
mod load;
mod namespaces;
mod near;
mod netkit;
mod programs;
mod queues;
mod restock;
mod traffic;
mod upgrade;
mod world;

#[test]
fn frames_cross_the_bond_in_both_directions_and_are_counted() {
    for_both_hooks(|w| {
        let (p0, _) = w.bond_with_two_ports();
        let (bond, q0) = (w.tap("bond0"), w.tap("q0"));
        w.send("bond0", OTHER, 3);
        q0.expect(3);
        w.send("q0", OTHER, 2);
        bond.expect(2);
        let counted = w.counters(p0);
        assert_eq!((counted.tx_frames, counted.tx_bytes), (3, 3 * FRAME as u64));
        assert_eq!(
            (counted.rx_frames, counted.rx_bytes, counted.rx_dropped),
            (2, 2 * FRAME as u64, 0)
        );
        assert!(w.heard(p0).any.is_some());
        let bond0 = w.link("bond0");
        assert_eq!(bond0.report.carrier, Carrier::On);
    });
}

#[test]
fn an_accept_rule_lets_in_what_it_says() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let (bond, port) = (w.tap("bond0"), w.tap("p1"));
        let mut plan = w.plan(Some(p0), &[p0, p1]);

        // A backup port: only what is for the cable itself, and that goes up the port.
        w.send("q1", OTHER, 1);
        w.send("q1", MacAddr::BROADCAST, 1);
        w.send("q1", LLDP, 1);
        port.expect(1);
        assert_eq!((w.counters(p1).rx_frames, w.counters(p1).rx_dropped), (0, 2));

        accept(&mut plan, p1, Accept::Unicast);
        w.program(&plan);
        w.send("q1", MacAddr::BROADCAST, 1);
        w.send("q1", LLDP, 1);
        w.send("q1", OTHER, 1);
        bond.expect(1);
        port.expect(1);
        assert_eq!((w.counters(p1).rx_frames, w.counters(p1).rx_dropped), (1, 3));

        accept(&mut plan, p1, Accept::All);
        w.program(&plan);
        w.send("q1", MacAddr::BROADCAST, 1);
        w.send("q1", LLDP, 1);
        w.send("q1", OTHER, 1);
        bond.expect(3);
        assert_eq!((w.counters(p1).rx_frames, w.counters(p1).rx_dropped), (4, 3));
        assert_eq!((bond.waiting(), port.waiting()), (0, 0));
    });
}

#[test]
fn a_changed_plan_moves_the_traffic() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let (q0, q1) = (w.tap("q0"), w.tap("q1"));
        w.program(&w.plan(Some(p1), &[p0, p1]));
        w.send("bond0", OTHER, 5);
        q1.expect(5);
        w.send("q0", OTHER, 1);
        assert_eq!(
            (w.counters(p0).rx_dropped, w.counters(p0).tx_frames, q0.waiting()),
            (1, 0, 0)
        );

        w.program(&w.plan(None, &[p0, p1]));
        assert_eq!(w.link("bond0").report.carrier, Carrier::Off);
        w.program(&w.plan(Some(p0), &[p0, p1]));
        assert_eq!(w.link("bond0").report.carrier, Carrier::On);
        w.send("bond0", OTHER, 1);
        q0.expect(1);
    });
}

#[test]
fn a_plan_sets_addresses_mtu_and_promiscuity() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let mut plan = w.plan(Some(p0), &[p0, p1]);
        plan.mac = MacAddr([2, 0, 0, 0, 0, 0xb0]);
        plan.ports.insert(
            p1,
            PortPlan {
                mac: plan.mac,
                mtu: 9000,
                promisc: true,
                allmulti: true,
                ..plan.ports[&p1]
            },
        );
        w.program(&plan);
        assert_eq!(w.link("bond0").report.mac, plan.mac);
        let port = w.link("p1");
        assert_eq!(
            (port.report.mac, port.report.mtu, port.promisc_flag),
            (plan.mac, 9000, true)
        );

        // What an operator changes by hand stays until the plan itself changes there.
        w.links.set_mtu(p1.0, 4000).unwrap();
        w.program(&plan);
        assert_eq!(w.link("p1").report.mtu, 4000);
    });
}

#[test]
fn a_vanished_port_does_not_stop_the_rest_of_a_plan() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        w.links.delete(p0.0).unwrap();
        let mut plan = w.plan(Some(p1), &[p1]);
        plan.mac = MacAddr([2, 0, 0, 0, 0, 0xb1]);
        let gone = PortPlan {
            mac: plan.mac,
            ..plan.ports[&p1]
        };
        plan.ports.insert(p0, gone);
        let outcome = w.bond().program(&plan).result();
        assert!(
            matches!(outcome, Err(PlaneError::PortGone { port }) if port == p0),
            "{outcome:?}"
        );
        let q1 = w.tap("q1");
        w.send("bond0", OTHER, 1);
        q1.expect(1);
        assert_eq!(w.link("bond0").report.mac, plan.mac);
        let original = w.originals[&p0].clone();
        w.bond().detach(p0, &original).unwrap();
    });
}

#[test]
fn a_port_is_given_back_as_it_was() {
    for clsact_before in [false, true] {
        for_both_hooks(move |w| {
            let p0 = w.port("p0");
            w.links.set_mtu(p0.0, 1400).unwrap();
            w.links.set_alias(p0.0, "the operator's own").unwrap();
            w.links.set_promisc(p0.0, true).unwrap();
            w.links.set_up(p0.0, !clsact_before).unwrap();
            sysctl::set_disable_ipv6("p0", false).unwrap();
            if clsact_before {
                aya::programs::tc::qdisc_add_clsact("p0").unwrap();
            }
            // The kernel tells of a carrier a moment after it came or went.
            let settle = move |w: &mut World| {
                w.eventually(|w| {
                    ["p0", "q0"]
                        .iter()
                        .all(|end| w.link(end).report.carrier.is_on() != clsact_before)
                });
            };
            settle(w);
            let before = w.snapshot();
            w.create();
            w.attach("p0", Some(MacAddr([2, 0, 0, 0, 0, 0xb2])));
            let attached = w.link("p0");
            assert_eq!(attached.alias, "port of bond0");
            assert_eq!(attached.report.mac, MacAddr([2, 0, 0, 0, 0, 0xb2]));
            assert!(attached.report.admin_up && attached.allmulti_flag && attached.report.mtu == 1500);
            assert_eq!(sysctl::disable_ipv6("p0").unwrap(), Some(true));
            w.program(&w.plan(Some(p0), &[p0]));
            w.tear_down();
            settle(w);
            assert_eq!(w.snapshot(), before);
        });
    }
}

#[test]
fn a_port_is_given_back_when_somebody_deleted_the_bond() {
    for fails_first in [false, true] {
        for_both_hooks(move |w| {
            let before = w.snapshot();
            w.bond_with_two_ports();
            let bond = w.link("bond0").ifindex;
            w.links.delete(bond).unwrap();
            w.reopen();
            assert_eq!(w.adopt().unwrap(), None);
            if fails_first {
                asks::fail_at(0);
            }
            // Giving the first port back tries it again.
            assert_eq!(w.plane.forget(bond).is_err(), fails_first);
            w.tear_down();
            assert_eq!(w.snapshot(), before);
        });
    }
}

#[test]
fn what_stays_on_a_port_of_a_deleted_bond_is_for_its_alias_to_say() {
    for_both_hooks(|w| {
        let (p0, _) = w.bond_with_two_ports();
        w.attach("p2", None);
        w.attach("p3", None);
        let (p2, p3) = (w.port("p2"), w.port("p3"));
        let bond = w.link("bond0").ifindex;
        w.reopen();
        w.links.delete(bond).unwrap();
        w.links.add_veth("bond1", "far1").unwrap();
        w.plane.forget(bond).unwrap();
        // No interface is called bond2: that is what the bond was called before, and it was renamed.
        let aliases = ["uplink", "port of bond0", "port of bond1", "port of bond2"];
        for (name, alias) in ["p0", "p1", "p2", "p3"].into_iter().zip(aliases) {
            let port = w.port(name);
            w.links.set_alias(port.0, alias).unwrap();
            let original = w.originals.remove(&port).unwrap();
            let is_ours = ["p1", "p3"].contains(&name);
            let given_back = w.plane.give_back("bond0", port, &original).unwrap();
            assert_eq!(given_back, is_ours, "{alias}");
            let left = w.link(name);
            let expected = if is_ours { (false, "") } else { (true, alias) };
            assert_eq!((left.allmulti_flag, left.alias.as_str()), expected);
        }
        // Links went with their pins. A filter stays only where another bond may need it.
        let filters = [p0, p2, p3].map(|port| w.links.filters(port.0).unwrap().len());
        let needed = usize::from(w.hook == Hook::Clsact);
        assert_eq!(filters, [0, needed, 0]);
    });
}

#[test]
fn a_bond_whose_active_port_was_detached_sends_nowhere() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let original = w.originals.remove(&p0).unwrap();
        w.bond().detach(p0, &original).unwrap();
        w.reopen();
        let observed = w.adopt().unwrap().unwrap();
        let accepts = observed.plan.ports.values().map(|port| port.accept);
        assert_eq!(
            (observed.plan.tx, accepts.collect::<Vec<_>>()),
            (Tx::one(None), vec![Accept::Nothing])
        );
        w.program(&w.plan(Some(p1), &[p1]));
        let q1 = w.tap("q1");
        w.send("bond0", OTHER, 1);
        q1.expect(1);
    });
}

#[test]
fn a_new_process_takes_over_what_is_there() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let mut plan = w.plan(Some(p1), &[p0, p1]);
        accept(&mut plan, p0, Accept::Unicast);
        w.program(&plan);
        w.send("bond0", OTHER, 7);
        w.reopen();
        let observed = w.adopt().unwrap().unwrap();
        assert_eq!(observed.plan, plan);
        assert_eq!(observed.report.name, "bond0");
        let ports: Vec<_> = observed
            .ports
            .iter()
            .map(|(port, report)| (*port, report.name.as_str()))
            .collect();
        assert_eq!(ports, [(p0, "p0"), (p1, "p1")]);
        assert_eq!(w.counters(p1).tx_frames, 7);

        // The hooks are the new process' now, and it can take them off.
        w.program(&w.plan(Some(p0), &[p0, p1]));
        let q0 = w.tap("q0");
        w.send("bond0", OTHER, 1);
        q0.expect(1);
    });
}

#[test]
fn nothing_is_lost_while_the_process_is_replaced() {
    // By one of the same build, and by one of another, which exchanges the programs.
    for other_build in [false, true] {
        for_both_hooks(move |w| replace_under_load(w, other_build));
    }
}

fn replace_under_load(w: &mut World, other_build: bool) {
    let (p0, _) = w.bond_with_two_ports();
    let bond = w.link("bond0").ifindex;
    let stop = AtomicBool::new(false);
    let sent = AtomicU32::new(0);
    let failed = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let socket = PacketSocket::open().unwrap();
            while !stop.load(Ordering::Relaxed) {
                let outcome = socket.send(bond, &frame(OTHER));
                sent.fetch_add(1, Ordering::Relaxed);
                failed.fetch_add(outcome.is_err().into(), Ordering::Relaxed);
            }
        });
        for _ in 0..5 {
            let mark = sent.load(Ordering::Relaxed);
            let before = w.programs();
            if other_build {
                w.in_force(|now| now.bpf.forget_build());
            }
            w.reopen();
            w.adopt().unwrap().unwrap();
            // Filters have no links to ask for their programs.
            let same = !other_build || w.hook == Hook::Clsact;
            assert_eq!(w.programs() == before, same);
            while sent.load(Ordering::Relaxed) < mark + 1000 {
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let sent = u64::from(sent.into_inner());
    assert_eq!(failed.into_inner(), 0);
    w.eventually(|w| w.counters(p0).tx_frames == sent);
    // Every frame also arrived at the far end.
    let received = |w: &World| statistic("q0", "rx_packets") - w.far_end_before;
    w.eventually(|w| received(w) == sent);
}

#[test]
fn an_interface_of_another_program_is_left_alone() {
    in_world(Hook::Auto, |w| {
        w.links.add_veth("bond0", "wire99").unwrap();
        let taken = w.link("bond0").ifindex;
        w.links.set_up(taken, true).unwrap();
        let before = w.snapshot();
        assert_eq!(w.adopt().unwrap(), None);
        let refused = w.make();
        assert!(
            matches!(&refused, Err(PlaneError::NameTaken { name }) if name == "bond0"),
            "{refused:?}"
        );
        assert_eq!(w.snapshot(), before);
    });
}

#[test]
fn a_bond_that_a_crash_left_half_made_is_made_anew_or_completed() {
    for_both_hooks(|w| {
        // The crash came before the wire was marked as ours: the interface is not taken for a bond.
        w.links.add_veth("bond0", "wire%d").unwrap();
        assert_eq!(w.adopt().unwrap(), None);
        w.create();
        // The crash came after the mark and before the pins.
        let ifindex = w.link("bond0").ifindex;
        lock(&w.plane.shared).pins().unwrap().bond(ifindex).remove().unwrap();
        w.reopen();
        let observed = w.adopt().unwrap().unwrap();
        assert_eq!(
            (observed.ifindex, observed.plan.tx, observed.ports),
            (ifindex, Tx::one(None), vec![])
        );
        w.attach("p0", None);
        let p0 = w.port("p0");
        w.program(&w.plan(Some(p0), &[p0]));
        let q0 = w.tap("q0");
        w.send("bond0", OTHER, 1);
        q0.expect(1);
        w.tear_down();
    });
}

#[test]
fn a_port_that_is_gone_while_no_agent_ran_is_forgotten() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        w.links.delete(p0.0).unwrap();
        w.reopen();
        let observed = w.adopt().unwrap().unwrap();
        assert_eq!(observed.plan.ports.keys().copied().collect::<Vec<_>>(), [p1]);
        let counted = [p0, p1].map(|port| w.bond().counters(port).is_ok());
        assert_eq!(counted, [false, true]);
    });
}

/// Whatever fails: a port that forwards goes on, with its program taken over or not.
#[test]
fn a_port_whose_program_cannot_be_taken_over_goes_on_with_it() {
    for failures in [1, 2] {
        for other_build in [false, true] {
            for_both_hooks(move |w| adopt_with_faults(w, failures, other_build));
        }
    }
}

fn adopt_with_faults(w: &mut World, failures: usize, other_build: bool) {
    let (p0, p1) = w.bond_with_two_ports();
    let plan = w.plan(Some(p1), &[p0, p1]);
    w.program(&plan);
    let q1 = w.tap("q1");
    let forwards = |w: &mut World| {
        let bond = w.link("bond0");
        w.socket.send(bond.ifindex, &frame(OTHER)).unwrap();
        q1.expect(1);
        let (in_bond, far) = (w.tap("bond0"), w.link("q1").ifindex);
        w.socket.send(far, &frame(bond.report.mac)).unwrap();
        in_bond.expect(1);
    };
    let mut kept: Vec<PortId> = Vec::new();
    for step in 0.. {
        if other_build {
            w.in_force(|now| now.bpf.forget_build());
        }
        w.reopen();
        let (outcome, reached) = fault::several(step, failures, || w.adopt());
        forwards(w);
        match outcome {
            Ok(observed) => assert_eq!(observed.unwrap().plan, plan, "step {step}"),
            Err(_) => {
                assert!(reached, "step {step}");
                w.adopt().unwrap().unwrap();
            }
        }
        kept.extend([p0, p1].iter().filter(|port| !w.kept().port_holds.contains_key(port)));
        w.program(&plan);
        assert!(w.kept().port_holds.keys().eq([p0, p1].iter()) && !w.kept().programs.are_stale());
        forwards(w);
        if !reached {
            break;
        }
    }
    let expected: &[PortId] = if failures == 1 { &[] } else { &[p0, p1] };
    assert_eq!(kept, expected, "{:?} {other_build}", w.hook);
}

#[test]
fn the_probe_leaves_nothing() {
    for hook in [Hook::Auto, Hook::Clsact] {
        in_world(hook, |w| {
            let before = w.snapshot();
            w.plane.probe().unwrap();
            assert_eq!(w.snapshot(), before);
        });
    }
}

#[test]
fn what_the_kernel_has_is_found_out_once_and_what_it_lacks_is_tried_again() {
    in_world(Hook::Auto, |w| {
        let plane = &mut w.plane;
        // New threads inherit what this one may do.
        let denied = as_nobody(|| plane.probe());
        assert!(denied.is_err());
        plane.probe().unwrap();
        as_nobody(|| plane.probe()).unwrap();
    });
}

/// Without the rights of root, on this thread only.
fn as_nobody<T>(body: impl FnOnce() -> T) -> T {
    let become_user = |user: libc::uid_t| {
        // SAFETY: it reads no memory; made directly, the call acts on this thread alone.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, -1, user, -1) };
        assert_eq!(done, 0, "this test is to be run as root");
    };
    become_user(65534);
    let result = body();
    become_user(0);
    result
}

#[test]
fn a_port_of_another_bond_is_not_given_back() {
    for_both_hooks(|w| {
        w.bond_with_two_ports();
        let p0 = w.port("p0");
        let original = w.originals[&p0].clone();
        let (mut other, _) = w.plane.make("bond1").unwrap();
        let before = w.snapshot();
        assert!(
            !other.detach(p0, &original).unwrap(),
            "a state that is out of date names it"
        );
        assert_eq!(w.snapshot(), before);
        Box::new(other).destroy().unwrap();
    });
}

#[test]
fn pins_of_bonds_whose_interface_is_gone_are_swept() {
    for_both_hooks(|w| {
        let before = w.snapshot();
        w.create();
        let ifindex = w.link("bond0").ifindex;
        w.links.delete(ifindex).unwrap();
        w.reopen();
        w.plane.bonds().unwrap();
        assert_eq!(w.snapshot(), before);
    });
}

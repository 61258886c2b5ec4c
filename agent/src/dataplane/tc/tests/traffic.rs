//! The traffic moved apart from the rest of a plan, by another thread than the one that has the bond.

use std::sync::mpsc;
use std::thread;

use bond_modes::plan::{Accept, Tx};
use bond_modes::{ForwardingPlan, PortId, XmitHashPolicy};
use bond_monitors::{Carrier, MacAddr};

use super::Hook;
use super::world::*;
use crate::dataplane::tc::DeviceChoice;
use crate::dataplane::tc::traffic::other_way;
use crate::dataplane::{PlaneBond, Traffic};
use crate::netlink::tests::{asks, slow};

fn traffic(w: &mut World) -> Box<dyn Traffic> {
    w.bond().traffic().unwrap()
}

/// Follows a plan that takes no request to the kernel.
#[track_caller]
fn follow_alone(w: &mut World, plan: &ForwardingPlan) {
    let mut traffic = traffic(w);
    let asked = asks::made();
    let followed = traffic.follow(plan);
    assert!(!followed.rest && followed.applied.is_complete(), "{followed:?}");
    assert_eq!((asks::made(), w.applied()), (asked, plan.clone()));
    // Nothing is left to do.
    w.program(plan);
    assert_eq!(asks::made(), asked);
}

#[test]
fn a_failover_asks_nothing_of_rtnetlink() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let mut plan = w.plan(Some(p1), &[p0, p1]);
        follow_alone(w, &plan);
        let (bond, q0, q1) = (w.tap("bond0"), w.tap("q0"), w.tap("q1"));
        w.send("bond0", OTHER, 2);
        q1.expect(2);
        w.send("q1", OTHER, 1);
        bond.expect(1);
        w.send("q0", OTHER, 1);
        assert_eq!((w.counters(p0).rx_dropped, q0.waiting()), (1, 0));
        assert_eq!(traffic(w).counters(p0).unwrap(), w.counters(p0));
        assert_eq!(
            traffic(w).heard(p0).unwrap(),
            w.in_force(|now| now.bpf.heard(p0).unwrap())
        );
        for rule in [Accept::All, Accept::Unicast, Accept::Nothing] {
            accept(&mut plan, p0, rule);
            follow_alone(w, &plan);
        }
    });
}

#[test]
fn ports_that_share_the_load_come_and_go_without_a_request() {
    for_both_hooks(|w| {
        let ports = w.bond_with_four_ports();
        let shared = |ports: &[PortId]| hashed(ports.to_vec(), XmitHashPolicy::Layer34);
        w.send_by(shared(&ports), &ports);
        for left in [&ports[..3], &ports[1..3], &ports[..]] {
            let plan = w.list_plan(shared(left), left);
            follow_alone(w, &plan);
            assert_eq!(w.in_force(|now| now.bpf.tx().unwrap()), shared(left));
        }
    });
}

#[test]
fn a_plan_is_followed_at_once_and_what_is_left_is_told() {
    in_world(Hook::Auto, |w| {
        let (p0, p1) = w.bond_with_two_ports();
        let mut traffic = traffic(w);
        type Change = fn(&mut ForwardingPlan, PortId);
        let changes: [Change; 5] = [
            |plan, _| plan.mac = MacAddr([2, 0, 0, 0, 0, 0xc0]),
            |plan, _| plan.carrier = Carrier::Off,
            |plan, port| plan.ports.get_mut(&port).unwrap().mac = MacAddr([2, 0, 0, 0, 0, 0xc1]),
            |plan, port| plan.ports.get_mut(&port).unwrap().mtu = 1400,
            |plan, port| plan.ports.get_mut(&port).unwrap().promisc = true,
        ];
        let mut active = [p0, p1].into_iter().cycle();
        for (number, change) in changes.into_iter().enumerate() {
            let before = active.next().unwrap();
            let after = if before == p0 { p1 } else { p0 };
            let mut plan = w.plan(Some(after), &[p0, p1]);
            change(&mut plan, after);
            let asked = asks::made();
            let followed = traffic.follow(&plan);
            assert!(followed.rest && followed.applied.is_complete(), "{number}");
            assert_eq!(asks::made(), asked);
            assert_eq!(w.in_force(|now| now.bpf.tx().unwrap()), plan.tx, "{number}");
            w.program(&plan);
            assert!(!traffic.follow(&plan).rest, "{number}");
        }
        let mut plan = w.plan(Some(p0), &[p0, p1]);
        if w.device == DeviceChoice::Veth {
            plan.steer = queues(&[(2, p1)]);
            assert!(traffic.follow(&plan).rest, "ordinary traffic is not tied yet");
            w.program(&plan);
            plan.steer = queues(&[(3, p1)]);
            follow_alone(w, &plan);
        }
        w.links.set_allmulti(p1.0, false).unwrap();
        assert!(!traffic.follow(&plan).rest);
        w.bond().refresh().unwrap();
        assert!(traffic.follow(&plan).rest, "others changed something");
        w.program(&plan);
        // A port that has left is told and costs the others nothing.
        let original = w.originals[&p0].clone();
        w.bond().detach(p0, &original).unwrap();
        plan.tx = Tx::one(Some(p1));
        let followed = traffic.follow(&plan);
        assert!(!followed.rest && !followed.applied.is_complete(), "{followed:?}");
        assert_eq!(w.in_force(|now| now.bpf.tx().unwrap()), plan.tx);
    });
}

/// A request of the older plan takes as long as others hold the kernel's locks.
#[test]
fn a_slow_program_does_not_hold_the_traffic_up_nor_move_it_back() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let mut traffic = traffic(w);
        let newer = w.plan(Some(p0), &[p0, p1]);
        let mut older = w.plan(Some(p1), &[p0, p1]);
        older.ports.get_mut(&p1).unwrap().mtu = 1400;
        older.steer = queues(&[(2, p1)]);
        assert!(traffic.follow(&older).rest);

        let (reached, is_held) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let mut bond = w.bond.take().unwrap();
        let plan = older.clone();
        let slow = thread::spawn(move || {
            slow::hold(0, move || {
                reached.send(()).unwrap();
                released.recv().unwrap();
            });
            bond.program(&plan).result().unwrap();
            bond
        });
        is_held.recv_timeout(PATIENCE).unwrap();
        let followed = traffic.follow(&newer);
        assert!(followed.rest && followed.applied.is_complete(), "{followed:?}");
        let (bond0, q0) = (w.link("bond0").ifindex, w.tap("q0"));
        w.socket.send(bond0, &frame(OTHER)).unwrap();
        q0.expect(1);
        assert_eq!(traffic.counters(p0).unwrap().tx_frames, 1);
        release.send(()).unwrap();
        w.bond = Some(slow.join().unwrap());

        w.in_force(|now| {
            let accepted = [p0, p1].map(|port| now.bpf.accept(port).unwrap());
            assert_eq!(accepted, [Accept::All, Accept::Nothing]);
            assert_eq!(now.bpf.tx().unwrap(), newer.tx);
            assert_eq!(now.bpf.read_queues().unwrap(), [].into());
        });
        w.program(&newer);
        assert_eq!(w.link("p1").report.mtu, 1500);
    });
}

#[test]
fn a_port_that_is_lost_while_programs_are_exchanged_sends_under_neither() {
    in_world(Hook::Auto, |w| {
        let ports = w.bond_with_four_ports();
        let by = |ports: &[PortId], policy| hashed(ports.to_vec(), policy);
        let (old, new) = (XmitHashPolicy::Layer2, XmitHashPolicy::Layer34);
        w.send_by(by(&ports, old), &ports);
        let mut traffic = traffic(w);
        let plan = w.list_plan(by(&ports, new), &ports);
        assert!(traffic.follow(&plan).rest);
        w.in_force(|now| {
            let (way, tx) = other_way(now, &plan).unwrap();
            now.bpf.begin_way(way, &tx).unwrap();
        });
        // Its loading goes on. Then the policy is changed back, and last there is none of the ports that it was begun for.
        for (left, policy) in [(&ports[1..], new), (&ports[2..], old), (&ports[..1], old)] {
            let plan = w.list_plan(by(left, policy), left);
            assert!(traffic.follow(&plan).applied.is_complete());
            w.in_force(|now| {
                assert_eq!(now.bpf.tx().unwrap(), by(left, old));
                assert_eq!(now.bpf.coming().unwrap().1, by(left, new));
            });
        }
        w.in_force(|now| now.bpf.end_way(false));
        let plan = w.list_plan(by(&ports[1..], new), &ports);
        assert!(traffic.follow(&plan).rest);
        w.program(&plan);
        assert!(!traffic.follow(&plan).rest);
    });
}

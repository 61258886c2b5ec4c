//! More lists in a row than there is room for, which the loop puts in force without waiting for a grace period or anything else.

use std::sync::mpsc;
use std::thread;

use bond_modes::{ForwardingPlan, PortId, XmitHashPolicy};

use super::Hook;
use super::world::*;
use crate::dataplane::tc::restock::RESTOCKED_BELOW;
use crate::dataplane::{PlaneBond, Traffic};
use crate::netlink::tests::{asks, slow};

#[test]
fn twenty_ports_that_die_one_after_the_other_cost_the_loop_no_grace_period() {
    in_world(Hook::Auto, |w| {
        let ports = bond_with_twenty_ports(w);
        let traffic = w.bond().traffic().unwrap();
        follow_all(traffic, &deaths(w, &ports));
        last_one_sends(w, &ports);
        // Nothing is left to do, and there is room again.
        let plan = w.list_plan(shared(&ports[19..]), &ports[19..]);
        w.eventually(|w| !w.in_force(|now| now.bpf.is_short_of_lists(RESTOCKED_BELOW)));
        assert!(!w.bond().traffic().unwrap().follow(&plan).rest);
    });
}

/// The kernel thread waits as long as others hold RTNL.
#[test]
fn the_traffic_leaves_dead_ports_while_a_plan_waits_for_the_kernel() {
    in_world(Hook::Auto, |w| {
        let ports = bond_with_twenty_ports(w);
        let traffic = w.bond().traffic().unwrap();
        let mut slow_plan = w.list_plan(shared(&ports), &ports);
        slow_plan.ports.get_mut(&ports[0]).unwrap().mtu = 1400;
        let plans = deaths(w, &ports);
        let forwarding = w.kept().forwarding.clone();

        let (reached, is_held) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let mut bond = w.bond.take().unwrap();
        let slow = thread::spawn(move || {
            slow::hold(0, move || {
                reached.send(()).unwrap();
                released.recv().unwrap();
            });
            bond.program(&slow_plan).result().unwrap();
            bond
        });
        is_held.recv_timeout(PATIENCE).unwrap();
        follow_all(traffic, &plans);
        w.eventually(|_| forwarding.with(|now| now.bpf.tx().unwrap()) == plans[18].tx);
        release.send(()).unwrap();
        w.bond = Some(slow.join().unwrap());
        last_one_sends(w, &ports);
    });
}

#[test]
fn a_list_waits_for_room_and_then_the_newest_plan_counts() {
    in_world(Hook::Auto, |w| {
        let ports = w.bond_with_four_ports();
        w.send_by(shared(&ports), &ports);
        let plans = [2, 3].map(|left| w.list_plan(shared(&ports[..left]), &ports[..left]));
        let mut traffic = w.bond().traffic().unwrap();
        // Nobody makes room before the lock is given back.
        w.in_force(|now| {
            let (lists, mut slots) = now.bpf.lists();
            while lists.clean() > 0 {
                lists.prepare(&mut slots, &shared(&ports), &[]).unwrap();
            }
        });
        let told: Vec<_> = plans.iter().map(|plan| traffic.follow(plan)).collect();
        assert!(told.iter().all(|told| told.applied.is_complete()), "{told:?}");
        w.eventually(|w| w.in_force(|now| now.bpf.tx().unwrap()) == plans[1].tx);
        w.program(&plans[1]);
    });
}

/// One plan for each of them that dies, in turn; the last one stays.
fn deaths(w: &World, ports: &[PortId]) -> Vec<ForwardingPlan> {
    let left = (1..ports.len()).map(|dead| &ports[dead..]);
    left.map(|left| w.list_plan(shared(left), left)).collect()
}

/// As the loop does, which waits for nothing.
#[track_caller]
fn follow_all(mut traffic: Box<dyn Traffic>, plans: &[ForwardingPlan]) {
    let _forbidden = asks::forbid();
    for plan in plans {
        assert!(traffic.follow(plan).applied.is_complete());
    }
}

#[track_caller]
fn last_one_sends(w: &mut World, ports: &[PortId]) {
    let last = shared(&ports[ports.len() - 1..]);
    w.eventually(|w| w.in_force(|now| now.bpf.tx().unwrap()) == last);
    assert_eq!(w.applied().tx, last);
}

fn shared(ports: &[PortId]) -> bond_modes::plan::Tx {
    hashed(ports.to_vec(), XmitHashPolicy::Layer34)
}

fn bond_with_twenty_ports(w: &mut World) -> Vec<PortId> {
    w.create();
    let ports: Vec<PortId> = (0..20)
        .map(|number| {
            let [port, far] = ["p", "q"].map(|end| format!("{end}{number}"));
            if number >= 4 {
                w.links.add_veth(&port, &far).unwrap();
                let far = w.link(&far).ifindex;
                w.links.set_up(far, true).unwrap();
            }
            w.attach(&port, None);
            w.port(&port)
        })
        .collect();
    w.send_by(shared(&ports), &ports);
    ports
}

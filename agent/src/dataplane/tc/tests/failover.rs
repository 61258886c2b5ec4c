//! Failover by the kernel itself. The machine that others are tested on may not allow tracing programs; the lab's kernels do:
//! `tests/tests/vm/in_kernel.rs`.

use bond_modes::plan::{Accept, Failover, Spread, Tx};
use bond_modes::{ForwardingPlan, PortId};

use super::Hook;
use super::world::*;
use crate::dataplane::tc::DeviceChoice;
use crate::dataplane::tc::failover::Standing;
use crate::dataplane::tc::failover::layout::LOSSES_COUNTED;
use crate::dataplane::tc::layout::Transmit;
use crate::dataplane::{Plane, PlaneBond, Report, Traffic, lock};
use crate::netlink::Drained;

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn the_first_loss_moves_the_traffic_and_lets_in_what_comes_and_the_second_one_does_nothing() {
    in_one_world(|w| {
        let (p0, p1, plan) = two_prepared(w);
        assert_eq!(lost(w, "q0"), [(p0, true)]);
        assert_eq!(sends(w), Tx::one(Some(p1)));
        w.kept().forwarding.clone().overtaken().unwrap();
        assert_eq!(w.applied(), plan.failed_over(p0).unwrap());
        assert_eq!(lost(w, "q1"), []);
        assert_eq!(sends(w), Tx::one(Some(p1)));
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn the_loss_of_a_port_that_waits_ends_what_was_prepared_and_the_same_plan_prepares_it_again() {
    in_one_world(|w| {
        let (p0, p1, plan) = two_prepared(w);
        assert_eq!(lost(w, "q1"), [(p1, false)]);
        assert_eq!(lost(w, "q0"), []);
        assert_eq!(sends(w), Tx::one(Some(p0)));
        w.kept().forwarding.clone().overtaken().unwrap();
        for far in ["q0", "q1"] {
            plug(w, far);
        }
        w.program(&plan);
        assert_eq!(lost(w, "q0"), [(p0, true)]);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn the_next_agent_finds_what_is_prepared_and_what_was_noted() {
    in_one_world(|w| {
        let (p0, p1, plan) = two_prepared(w);
        w.reopen();
        assert_eq!(w.adopt().unwrap().unwrap().plan, plan);
        w.reopen();
        pull(w, "q0");
        let found = w.adopt().unwrap().unwrap().plan;
        assert_eq!(found, plan.failed_over(p0).unwrap());
        assert_eq!(notes(w), [(p0, true)]);
        plug(w, "q0");
        let back = prepared(w.plan(Some(p1), &[p0, p1]), p1, p0);
        w.program(&back);
        assert_eq!(lost(w, "q1"), [(p1, true)]);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn lists_are_prepared_for_each_of_four_ports_however_many_plans_there_are() {
    in_one_world(|w| {
        let ports = w.bond_with_four_ports();
        w.plane.in_kernel.settle();
        for packets_per_port in 1..20 {
            let igmp = Some(ports[0]);
            let kind = Spread::RoundRobin { packets_per_port, igmp };
            let tx = Tx::new(kind, ports.clone());
            let mut plan = w.list_plan(tx.clone(), &ports);
            for lost in &ports {
                let failover = Failover {
                    tx: tx.among(|port| port != *lost),
                    accept: Default::default(),
                };
                plan.if_lost.insert(*lost, failover);
            }
            // Perhaps by the loop, which waits for nothing, and then by the thread that may.
            w.kept().forwarding.clone().follow(&plan);
            w.program(&plan);
        }
        let plan = w.applied();
        assert_eq!(lost(w, "q2"), [(ports[2], true)]);
        assert_eq!(sends(w), plan.if_lost[&ports[2]].tx);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn a_port_that_leaves_takes_what_names_it_along() {
    in_one_world(|w| {
        let (p0, p1, _) = two_prepared(w);
        detach(w, p1);
        assert_eq!(lost(w, "q0"), []);
        assert_eq!(sends(w), Tx::one(Some(p0)));
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn switched_off_nothing_moves_and_what_an_earlier_agent_prepared_is_gone() {
    in_one_world(|w| {
        let (p0, p1, _) = two_prepared(w);
        w.reopen_without_failover();
        let found = w.adopt().unwrap().unwrap().plan;
        assert_eq!(found, w.plan(Some(p0), &[p0, p1]));
        assert!(w.kept().forwarding.fails_over().is_err());
        assert_eq!(lost(w, "q0"), []);
        assert_eq!(sends(w), Tx::one(Some(p0)));
        w.reopen();
        w.adopt().unwrap();
        w.plane.in_kernel.settle();
        assert!(w.kept().forwarding.fails_over().is_ok());
    });
}

#[test]
fn where_the_kernel_refuses_it_all_else_is_as_ever_and_nothing_is_left_behind() {
    in_one_world(|w| {
        let (p0, p1) = two_ports(w);
        let plan = prepared(w.plan(Some(p0), &[p0, p1]), p0, p1);
        assert!(w.bond().program(&plan).is_complete());
        let Err(why) = w.kept().forwarding.fails_over() else {
            return;
        };
        assert!(!why.is_empty());
        assert_eq!(w.applied(), w.plan(Some(p0), &[p0, p1]));
        assert_eq!(lost(w, "q0"), []);
        let pins = lock(&w.plane.shared).pins().unwrap().list();
        assert!(pins.iter().all(|pin| !pin.contains("failover")), "{pins:?}");
    });
}

#[test]
fn a_port_that_goes_before_it_is_known_what_an_earlier_agent_prepared_ends_that() {
    in_one_world(|w| {
        let (_, p1) = two_ports(w);
        w.in_force(|now| {
            Standing { number: 5, losses: 0 }.write(&mut now.bpf).unwrap();
            now.remove_port(p1).unwrap();
            assert_eq!(Standing::read(&now.bpf).unwrap(), Standing::default());
        });
    });
}

#[test]
fn while_the_kernel_may_be_moving_the_traffic_nothing_else_is_written_beside_the_selector() {
    in_one_world(|w| {
        two_ports(w);
        w.in_force(|now| {
            Standing { number: 5, losses: 0 }.write(&mut now.bpf).unwrap();
            // The program has counted a loss, and is to move the traffic next.
            let counted = Transmit {
                selector: 1,
                remember_all: 0,
            };
            now.bpf.set_transmit(LOSSES_COUNTED, counted).unwrap();
            assert!(now.remember_all(true).unwrap_err().may_pass());
            assert!(!now.bpf.reads_remember_all());
            now.remember_all(true).unwrap();
            assert!(now.bpf.reads_remember_all());
        });
    });
}

/// The kernel knows of it.
pub(super) fn two_ports(w: &mut World) -> (PortId, PortId) {
    let ports = w.bond_with_two_ports();
    w.plane.in_kernel.settle();
    ports
}

/// And the plan that is in force, with a failover from the first one to the second.
pub(super) fn two_prepared(w: &mut World) -> (PortId, PortId, ForwardingPlan) {
    let (p0, p1) = two_ports(w);
    let plan = prepared(w.plan(Some(p0), &[p0, p1]), p0, p1);
    w.program(&plan);
    (p0, p1, plan)
}

pub(super) fn in_one_world(body: impl FnOnce(&mut World) + Send + 'static) {
    in_world_of(Hook::Auto, DeviceChoice::Veth, body);
}

/// With the other port for the active one if that is lost.
pub(super) fn prepared(mut plan: ForwardingPlan, active: PortId, other: PortId) -> ForwardingPlan {
    let failover = Failover {
        tx: Tx::one(Some(other)),
        accept: [(active, Accept::Unicast), (other, Accept::All)].into(),
    };
    plan.if_lost.insert(active, failover);
    plan
}

/// Gives a port back.
pub(super) fn detach(w: &mut World, port: PortId) {
    let original = w.originals.remove(&port).unwrap();
    w.bond().detach(port, &original).unwrap();
}

/// How the bond sends, as the kernel has it.
pub(super) fn sends(w: &World) -> Tx {
    w.in_force(|now| now.bpf.tx().unwrap())
}

pub(super) fn pull(w: &mut World, far: &str) {
    let far = w.link(far).ifindex;
    w.links.set_up(far, false).unwrap();
}

pub(super) fn plug(w: &mut World, far: &str) {
    let far = w.link(far).ifindex;
    w.links.set_up(far, true).unwrap();
}

/// Pulls a cable; what is noted of that, with whether the kernel has failed over.
pub(super) fn lost(w: &mut World, far: &str) -> Vec<(PortId, bool)> {
    pull(w, far);
    notes(w)
}

pub(super) fn notes(w: &mut World) -> Vec<(PortId, bool)> {
    let mut watch = w.plane.watch().unwrap();
    let mut reports = Vec::new();
    assert_eq!(watch.read_events(8, &mut reports).unwrap(), Drained::Empty);
    let read = |report| match report {
        Report::CarrierLost { port, failed_over, .. } => Some((port, failed_over)),
        Report::FailsOver { .. } => None,
        other => panic!("{other:?}"),
    };
    reports.into_iter().filter_map(read).collect()
}

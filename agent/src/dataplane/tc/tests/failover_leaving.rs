//! What stays prepared when a port leaves its bond. They need the lab's kernels, as most of `failover` does.

use bond_modes::PortId;
use bond_modes::plan::Tx;

use super::failover::{detach, in_one_world, lost, notes, prepared, sends, two_ports};
use super::world::*;
use crate::dataplane::{PlaneBond, Traffic};

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn a_port_that_is_given_back_leaves_the_others_prepared_without_another_plan() {
    in_one_world(|w| {
        let (p0, p1, p2) = three_ports(w);
        leaves(w, (p0, p1));
        detach(w, p2);
        still_fails_over(w, (p0, p1));
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn a_port_that_is_gone_leaves_the_others_prepared_without_another_plan() {
    in_one_world(|w| {
        let (p0, p1, p2) = three_ports(w);
        leaves(w, (p0, p1));
        w.links.delete(p2.0).unwrap();
        w.originals.remove(&p2);
        assert_eq!(notes(w), [(p2, false)]);
        w.bond().forget(p2).unwrap();
        still_fails_over(w, (p0, p1));
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn a_port_that_leaves_a_bond_whose_agent_has_only_found_it_leaves_the_others_prepared() {
    in_one_world(|w| {
        let (p0, p1, p2) = three_ports(w);
        w.reopen();
        w.adopt().unwrap();
        detach(w, p2);
        still_fails_over(w, (p0, p1));
    });
}

/// The third one is not prepared for anything.
fn three_ports(w: &mut World) -> (PortId, PortId, PortId) {
    let (p0, p1) = two_ports(w);
    w.attach("p2", None);
    let p2 = w.port("p2");
    let plan = prepared(w.plan(Some(p0), &[p0, p1, p2]), p0, p1);
    w.program(&plan);
    (p0, p1, p2)
}

/// The plan that the loop has when a third port is about to leave.
fn leaves(w: &mut World, (p0, p1): (PortId, PortId)) {
    let plan = prepared(w.plan(Some(p0), &[p0, p1]), p0, p1);
    w.kept().forwarding.clone().follow(&plan);
    assert_eq!(w.kept().forwarding.fails_over(), Ok(true));
}

fn still_fails_over(w: &mut World, (p0, p1): (PortId, PortId)) {
    assert_eq!(w.kept().forwarding.fails_over(), Ok(true));
    assert_eq!(lost(w, "q0"), [(p0, true)]);
    assert_eq!(sends(w), Tx::one(Some(p1)));
}

//! Steps that fail, each in its turn: what was asked for is undone, or completed by the next attempt.

use bond_modes::PortId;
use bond_modes::plan::Accept;
use bond_monitors::MacAddr;

use super::world::*;
use crate::dataplane::step::fault;
use crate::dataplane::tc::bpf::MAX_PORTS;
use crate::dataplane::{PlanPart, Plane, PlaneBond, PortBase};

#[test]
fn a_creation_that_fails_at_any_step_leaves_nothing() {
    for_both_hooks(|w| {
        let before = w.snapshot();
        for step in 0.. {
            let (outcome, reached) = fault::at(step, || w.make());
            if !reached {
                outcome.unwrap();
                assert!(step > 8, "only {step} steps");
                break;
            }
            assert!(outcome.is_err(), "step {step}");
            assert_eq!(w.snapshot(), before, "step {step}");
        }
    });
}

#[test]
fn what_a_kill_at_any_step_leaves_of_a_creation_is_found_by_the_next_agent_or_does_not_keep_the_name() {
    for_both_hooks(|w| {
        let before = w.snapshot();
        for step in 0.. {
            // What would undo it fails too.
            let is_made = fault::from(step, || w.make()).is_ok();
            w.reopen();
            match w.plane.bonds().unwrap().is_empty() {
                true => drop(w.make().unwrap()),
                false => drop(w.adopt().unwrap().unwrap()),
            }
            w.program(&w.plan(None, &[]));
            let bond = w.bond.take().unwrap();
            Box::new(bond).destroy().unwrap();
            assert_eq!(w.snapshot(), before, "step {step}");
            if is_made {
                assert!(step > 8, "only {step} steps");
                break;
            }
        }
    });
}

#[test]
fn a_port_too_many_is_refused_before_anything_is_done_to_it() {
    for_both_hooks(|w| {
        w.create();
        w.attach("p0", None);
        let wire = w.kept().wire;
        // Their interfaces do not matter.
        let others: Vec<PortId> = (1..MAX_PORTS).map(|port| PortId(100_000 + port)).collect();
        w.in_force(|now| {
            others.iter().for_each(|port| now.bpf.add_port(*port, wire).unwrap());
        });
        let (p0, p1) = (w.port("p0"), w.port("p1"));
        let before = w.snapshot();
        let base = PortBase { mac: None, mtu: 1400 };
        let (refused, touched) = fault::at(0, || w.bond().attach(p1, &base));
        let text = refused.unwrap_err().to_string();
        assert!(
            text.ends_with("a bond on plane tc can have 256 ports, and bond0 has as many"),
            "{text}"
        );
        assert!(!touched && w.snapshot() == before);
        w.bond().attach(p0, &base).expect("it is a port already");
        w.in_force(|now| now.bpf.remove_port(others[0])).unwrap();
        w.attach("p1", None);
        w.in_force(|now| {
            others[1..].iter().for_each(|port| now.bpf.remove_port(*port).unwrap());
        });
    });
}

#[test]
fn an_attachment_that_fails_at_any_step_leaves_nothing() {
    for_both_hooks(|w| {
        w.create();
        let p0 = w.port("p0");
        w.links.set_mtu(p0.0, 1400).unwrap();
        let before = w.snapshot();
        let base = PortBase {
            mac: Some(MacAddr([2, 0, 0, 0, 0, 0xb3])),
            mtu: 1500,
        };
        for step in 0.. {
            let (outcome, reached) = fault::at(step, || w.bond().attach(p0, &base));
            if !reached {
                outcome.unwrap();
                assert!(step > 8, "only {step} steps");
                break;
            }
            assert!(outcome.is_err(), "step {step}");
            assert_eq!(w.snapshot(), before, "step {step}");
            assert!(w.bond().counters(p0).is_err(), "step {step}");
        }
        // Once more is harmless.
        w.bond().attach(p0, &base).unwrap();
    });
}

#[test]
fn an_interface_that_is_still_to_be_given_back_is_so_after_an_attachment_that_fails_at_any_step() {
    for_both_hooks(|w| {
        w.create();
        let p0 = w.port("p0");
        let before = w.snapshot();
        let original = crate::dataplane::original(&mut w.links, p0).unwrap();
        let mac = MacAddr([2, 0, 0, 0, 0, 0xb3]);
        let base = PortBase {
            mac: Some(mac),
            mtu: 1500,
        };
        for step in 0.. {
            // As it comes back from another namespace, or after a return that failed half-way.
            w.links.set_mac(p0.0, mac).unwrap();
            w.links.set_allmulti(p0.0, true).unwrap();
            w.links.set_alias(p0.0, "port of bond0").unwrap();
            let (outcome, reached) = fault::at(step, || w.bond().attach(p0, &base));
            assert_eq!(outcome.is_err(), reached, "step {step}");
            w.bond().detach(p0, &original).unwrap();
            assert_eq!(w.snapshot(), before, "step {step}");
            if !reached {
                assert!(step > 6, "only {step} steps");
                break;
            }
        }
    });
}

#[test]
fn an_attachment_that_cannot_be_undone_either_is_one_error() {
    for_both_hooks(|w| {
        w.create();
        let p0 = w.port("p0");
        let base = PortBase { mac: None, mtu: 1500 };
        let error = fault::from(3, || w.bond().attach(p0, &base)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("; undoing the attempt failed too: cannot "), "{text}");
        assert!(text.contains("cannot forget p0 of "), "{text}");
        w.bond().attach(p0, &base).unwrap();
    });
}

#[test]
fn an_attachment_that_lacks_its_last_step_is_completed() {
    for_both_hooks(|w| {
        let (p0, _) = w.bond_with_two_ports();
        w.links.set_up(p0.0, false).unwrap();
        w.reopen();
        w.adopt().unwrap().unwrap();
        assert!(!w.link("p0").report.admin_up, "it may be the operator's wish");
        let base = PortBase { mac: None, mtu: 1500 };
        w.bond().attach(p0, &base).unwrap();
        assert!(w.link("p0").report.admin_up);
    });
}

#[test]
fn a_return_that_fails_at_any_step_is_completed_by_the_next_also_if_another_program_took_the_mark() {
    for_both_hooks(|w| {
        w.create();
        let p0 = w.port("p0");
        w.links.set_mtu(p0.0, 1400).unwrap();
        let before = w.snapshot();
        let original = crate::dataplane::original(&mut w.links, p0).unwrap();
        let base = PortBase {
            mac: Some(MacAddr([2, 0, 0, 0, 0, 0xb3])),
            mtu: 1500,
        };
        for step in 0.. {
            w.bond().attach(p0, &base).unwrap();
            w.links.set_alias(p0.0, "uplink").unwrap();
            let (outcome, reached) = fault::at(step, || w.bond().detach(p0, &original));
            if reached {
                assert!(outcome.is_err(), "step {step}");
                // Its first step reads the interface, its second one marks it.
                if step > 1 {
                    w.bond().detach(p0, &original).unwrap();
                } else {
                    w.links.set_alias(p0.0, "port of bond0").unwrap();
                    w.bond().detach(p0, &original).unwrap();
                }
            } else {
                outcome.unwrap();
                assert!(step > 6, "only {step} steps");
                break;
            }
            assert_eq!(w.snapshot(), before, "step {step}");
            // What has everything back is left as it is.
            w.links.set_mtu(p0.0, 1450).unwrap();
            w.bond().detach(p0, &original).unwrap();
            assert_eq!(w.link("p0").report.mtu, 1450);
            w.links.set_mtu(p0.0, 1400).unwrap();
        }
    });
}

#[test]
fn a_plan_that_fails_at_any_step_is_completed_by_the_next() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let mut parts = Vec::new();
        for step in 0.. {
            let from = w.plan(None, &[p0, p1]);
            w.program(&from);
            let mut to = w.plan(Some(p1), &[p0, p1]);
            accept(&mut to, p0, Accept::Unicast);
            to.mac = MacAddr([2, 0, 0, 0, 1, step as u8]);
            for port in to.ports.values_mut() {
                port.mac = to.mac;
            }
            let (outcome, reached) = fault::at(step, || w.bond().program(&to));
            assert_eq!(outcome.parts().len(), usize::from(reached), "step {step}");
            parts.extend(outcome.parts());
            w.program(&to);
            w.reopen();
            assert_eq!(w.adopt().unwrap().unwrap().plan, to, "step {step}");
            if !reached {
                break;
            }
        }
        parts.dedup();
        let expected = [
            PlanPart::OwnMacs,
            PlanPart::Accept(p0),
            PlanPart::Accept(p1),
            PlanPart::PortMac(p0),
            PlanPart::PortMac(p1),
            PlanPart::Mac,
            PlanPart::Tx,
            PlanPart::Carrier,
            PlanPart::Senders,
            PlanPart::OwnMacs,
        ];
        assert_eq!(parts, expected);
    });
}

#[test]
fn a_setting_that_a_driver_refuses_is_told_with_the_name_of_the_port() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let mut plan = w.plan(None, &[p0, p1]);
        plan.ports.get_mut(&p0).unwrap().mtu = 70_000;
        let refused = w.bond().program(&plan).result().unwrap_err();
        assert_eq!(refused.to_string(), "cannot set the MTU of p0");
    });
}

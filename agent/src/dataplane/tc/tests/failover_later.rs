//! Failover by the kernel itself where its program cannot come at once: it is refused, another agent has the bonds, or the program of
//! another build is there. They need the lab's kernels, as most of `failover` does.

use std::fs;
use std::path::Path;

use bond_modes::plan::Tx;

use super::failover::{in_one_world, lost, plug, prepared, sends, two_ports, two_prepared};
use super::failover_faults::failover_folder;
use super::world::World;
use crate::dataplane::tc::failover::{REFUSED, Standing};
use crate::dataplane::tc::folder::names;
use crate::dataplane::tc::{FailoverChoice, TcPlane};
use crate::dataplane::{Plane, PlaneBond, Traffic, lock};

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn a_refusal_that_may_pass_is_told_and_tried_again_by_the_clock_for_all_bonds_and_at_once_after_the_last_one_went() {
    in_one_world(|w| {
        refuse_next(w);
        let (p0, p1) = two_ports(w);
        let (other, _) = w.plane.make("bond1").unwrap();
        w.plane.in_kernel.settle();
        for bond in [w.kept(), &other.bond] {
            let why = bond.forwarding.fails_over().unwrap_err();
            assert!(why.contains("attaching it") && why.contains("busy"), "{why}");
        }
        w.plane.in_kernel.hurry();
        w.plane.in_kernel.settle();
        for bond in [w.kept(), &other.bond] {
            assert_eq!(
                bond.forwarding.fails_over(),
                Ok(false),
                "nothing is prepared for it yet"
            );
        }
        w.program(&prepared(w.plan(Some(p0), &[p0, p1]), p0, p1));
        assert_eq!(lost(w, "q0"), [(p0, true)]);
        Box::new(other).destroy().unwrap();
        w.tear_down();
        plug(w, "q0");
        refuse_next(w);
        two_ports(w);
        assert!(w.kept().forwarding.fails_over().is_err());
        w.tear_down();
        two_ports(w);
        assert_eq!(w.kept().forwarding.fails_over(), Ok(false));
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn the_program_of_another_build_goes_on_with_what_is_prepared_until_the_new_one_is_there() {
    in_one_world(|w| {
        let (p0, p1, plan) = two_prepared(w);
        let folder = failover_folder(w);
        let ours = links(&folder);
        fs::rename(folder.join(&ours[0]), folder.join(ANOTHER)).unwrap();
        w.reopen();
        refuse_next(w);
        assert_eq!(w.adopt().unwrap().unwrap().plan, plan);
        assert_eq!(w.kept().forwarding.fails_over(), Ok(true));
        w.plane.in_kernel.settle();
        assert_eq!(links(&failover_folder(w)), [ANOTHER], "the new one was refused");
        assert_eq!(w.kept().forwarding.fails_over(), Ok(true));
        w.reopen();
        assert_eq!(w.adopt().unwrap().unwrap().plan, plan);
        w.plane.in_kernel.settle();
        assert_eq!(links(&failover_folder(w)), ours);
        assert_eq!(w.kept().forwarding.fails_over(), Ok(true));
        assert_eq!(lost(w, "q0"), [(p0, true)]);
        assert_eq!(sends(w), Tx::one(Some(p1)));
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn the_clock_exchanges_the_program_of_another_build_after_the_new_one_was_refused() {
    in_one_world(|w| {
        let (p0, _, _) = two_prepared(w);
        let folder = failover_folder(w);
        let ours = links(&folder);
        fs::rename(folder.join(&ours[0]), folder.join(ANOTHER)).unwrap();
        w.reopen();
        // Its path leads through a descriptor of the plane.
        let folder = failover_folder(w);
        refuse_next(w);
        w.adopt().unwrap();
        w.plane.in_kernel.settle();
        refuse_next(w);
        w.plane.in_kernel.settle();
        assert!(REFUSED.lock().unwrap().is_some(), "it is not tried before its time");
        w.plane.in_kernel.hurry();
        w.plane.in_kernel.settle();
        assert!(REFUSED.lock().unwrap().is_none(), "it was tried and refused again");
        assert_eq!(links(&folder), [ANOTHER]);
        w.plane.in_kernel.hurry();
        // After this bond the thread looks when it is to try again, and nothing else wakes it.
        let (other, _) = w.plane.make("bond1").unwrap();
        w.eventually(|_| links(&folder) == ours);
        assert_eq!(w.kept().forwarding.fails_over(), Ok(true));
        Box::new(other).destroy().unwrap();
        assert_eq!(lost(w, "q0"), [(p0, true)]);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn a_bond_that_is_being_taken_over_does_not_end_what_is_prepared_before_its_ports_are_known() {
    in_one_world(|w| {
        let (_, _, plan) = two_prepared(w);
        w.reopen();
        let before = w.adopt().unwrap().unwrap().plan;
        let number = w.in_force(|now| Standing::read(&now.bpf).unwrap().number);
        assert_eq!((before, number != 0), (plan, true));
        w.reopen();
        w.adopt().unwrap();
        assert_eq!(w.in_force(|now| Standing::read(&now.bpf).unwrap().number), number);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn an_agent_beside_another_one_touches_nothing_of_it_until_that_has_ended() {
    in_one_world(|w| {
        let (p0, _, _) = two_prepared(w);
        let folder = failover_folder(w);
        let before = links(&folder);
        for choice in [FailoverChoice::Off, FailoverChoice::Auto] {
            let mut second = TcPlane::open(&w.run_dir, w.new_bonds(), choice).unwrap();
            let (other, _) = second.make("bond1").unwrap();
            let why = other.bond.forwarding.fails_over().unwrap_err();
            assert_eq!(why.contains("another agent"), choice == FailoverChoice::Auto, "{why}");
            Box::new(other).destroy().unwrap();
            second.close().unwrap();
            assert_eq!(links(&folder), before);
        }
        assert_eq!(w.kept().forwarding.fails_over(), Ok(true));
        let mut second = TcPlane::open(&w.run_dir, w.new_bonds(), FailoverChoice::Auto).unwrap();
        let (other, _) = second.make("bond1").unwrap();
        second.in_kernel.hurry();
        second.in_kernel.settle();
        assert!(
            other.bond.forwarding.fails_over().is_err(),
            "the first one is still there"
        );
        assert_eq!(lost(w, "q0"), [(p0, true)]);
        plug(w, "q0");
        // As if the first agent had been killed.
        w.bond = None;
        lock(&w.plane.shared).pins = None;
        second.in_kernel.hurry();
        second.in_kernel.settle();
        assert_eq!(
            other.bond.forwarding.fails_over(),
            Ok(false),
            "nothing is prepared for it yet"
        );
        Box::new(other).destroy().unwrap();
        drop(second);
        w.reopen();
        w.adopt().unwrap();
    });
}

/// The kernel refuses the program when it is attached next, for a reason that may pass.
fn refuse_next(w: &World) {
    *REFUSED.lock().unwrap() = Some((failover_folder(w), libc::EBUSY));
}

/// Names of the pins of programs.
fn links(folder: &Path) -> Vec<String> {
    let all = names(folder).unwrap().into_iter();
    all.filter(|name| name.starts_with("link-")).collect()
}

const ANOTHER: &str = "link-of-another-build";

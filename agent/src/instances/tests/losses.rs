//! Losses of carrier that a plane noted, and the bonds that they are of.

use super::adoption::{make_interface, next_agent, port, spec};
use super::{Change, NOW, attach, change, give_traffic, refusal, with_bond};
use crate::dataplane::script::{self, ScriptPlane};
use crate::dataplane::{Planes, Report};
use crate::instances::Instances;
use bond_modes::PortId;

#[test]
fn a_note_of_a_lost_carrier_reaches_its_bond_also_when_the_port_has_left() {
    with_bond("note-of-a-loss", |instances, plane, _| {
        give_traffic(instances, plane);
        let device = instances.bonds[0].ifindex;
        plane.change_by_others(device);
        instances.watches = Planes::new(vec![Box::new(plane.clone())]).watches();
        plane.take_calls();
        let mut overtaken = |bond| {
            plane.report(lost(bond, PortId(12345)));
            instances.read_planes(crate::clock::now(), 8);
            instances.settle(NOW);
            self::overtaken(plane)
        };
        assert_eq!(overtaken(device + 1), 0, "it is another's");
        assert_eq!(overtaken(device), 1);
    });
}

#[test]
fn a_note_of_a_bond_that_is_adopted_late_waits_for_it_and_one_of_nobody_is_forgotten() {
    with_bond("note-of-a-late-bond", |instances, plane, dir| {
        plane.give_traffic();
        make_interface(instances, "bond0");
        let file = spec("mode=1 miimon=100", &[]);
        instances.ensure(&file);
        attach(instances, "a").unwrap();
        let (device, a) = (instances.bonds[0].ifindex, port(instances, "a"));
        instances.publish_all(NOW);

        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        plane.fail_at(0, refusal());
        next.start(NOW, std::slice::from_ref(&file), &[]).unwrap();
        assert!(next.has_started() && next.has_unadopted());
        plane.report(lost(device, a));
        plane.report(lost(device + 1, a));
        next.watches = Planes::new(vec![Box::new(plane.clone())]).watches();
        next.read_planes(NOW, 8);
        assert_eq!(overtaken(plane), 0);
        let due = next.poll_timeout().unwrap();
        next.handle_timeout(due);
        next.settle(due);
        assert!(!next.has_unadopted());
        assert_eq!(overtaken(plane), 1);
        plane.report(lost(device + 1, a));
        next.read_planes(due, 8);
        Instances::take_early_losses(&mut next, due);
        assert!(next.early_losses.is_empty(), "no bond is to come");
    });
}

#[test]
fn where_notes_are_missing_all_bonds_that_the_kernel_fails_over_for_are_prepared_anew() {
    with_bond("missing-notes", |instances, plane, _| {
        give_traffic(instances, plane);
        plane.report(Report::Lost);
        instances.watches = Planes::new(vec![Box::new(plane.clone())]).watches();
        let follows = |instances: &mut Change<'_>| {
            plane.take_calls();
            instances.read_planes(NOW, 8);
            instances.settle(NOW);
            let calls = plane.take_calls();
            let is_overtaken = calls.contains(&script::Call::Overtaken("bond0".to_owned()));
            let follow = |call: &&script::Call| matches!(call, script::Call::Follow(..));
            (is_overtaken, calls.iter().filter(follow).count())
        };
        assert_eq!(follows(instances), (false, 0), "the kernel does nothing for it");
        plane.fail_over();
        plane.report(Report::Lost);
        assert_eq!(follows(instances), (true, 1), "the same plan");
        assert_eq!(follows(instances), (false, 0));
    });
}

fn lost(bond: u32, port: PortId) -> Report {
    Report::CarrierLost {
        bond,
        port,
        at: NOW,
        failed_over: false,
    }
}

fn overtaken(plane: &ScriptPlane) -> usize {
    let calls = plane.take_calls().into_iter();
    let told = |call: &script::Call| matches!(call, script::Call::Overtaken(bond) if bond == "bond0");
    calls.filter(told).count()
}

//! Ports that cannot be given back at once: what they were is kept, and tried again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bond_modes::PortId;

use super::Change;
use super::adoption::{disguise, make_interface, next_agent, original, port};
use super::change;
use super::{NOW, attach, refusal, with_bond};
use crate::control::proto::{Call, warnings};
use crate::dataplane::script::{self, ScriptPlane};
use crate::netlink::LinkEvent;
use crate::netlink::tests::ip;

/// How often a port was given back, or that was tried.
fn returns(plane: &ScriptPlane) -> usize {
    let calls = plane.take_calls().into_iter();
    calls
        .filter(|call| matches!(call, script::Call::Detach(..) | script::Call::GiveBack(..)))
        .count()
}

fn detach(instances: &mut Change<'_>) -> Vec<String> {
    let (bond, port) = ("bond0".to_owned(), "a".to_owned());
    let answer = instances.call(&Call::PortDetach { bond, port }).unwrap();
    warnings(&answer).map(str::to_owned).collect()
}

fn delete(instances: &mut Change<'_>) -> Vec<String> {
    let bond = "bond0".to_owned();
    let answer = instances.call(&Call::Del { bond }).unwrap();
    warnings(&answer).map(str::to_owned).collect()
}

fn gone(instances: &mut Change<'_>, port: PortId) {
    ip("link del dev a");
    let name = "a".to_owned();
    instances.pending_events.push_back(LinkEvent::Gone {
        ifindex: port.0,
        name,
        moved: None,
    });
    instances.read_links(NOW, 0);
}

#[test]
fn one_refusal_while_a_port_is_given_back_is_no_failure() {
    with_bond("one-refusal", |instances, plane, _| {
        attach(instances, "a").unwrap();
        plane.take_calls();
        // The first call is for a plan without the port.
        plane.fail_at(1, refusal());
        assert_eq!((detach(instances), returns(plane)), (vec![], 2));
        attach(instances, "a").unwrap();
        plane.take_calls();
        plane.fail_at(0, refusal());
        assert_eq!((delete(instances), returns(plane)), (vec![], 2));
        assert_eq!(instances.poll_timeout(), None);
    });
}

#[test]
fn a_port_that_cannot_be_given_back_is_tried_again_with_growing_pauses() {
    for whole_bond in [false, true] {
        with_bond(&format!("stuck-{whole_bond}"), move |instances, plane, _| {
            make_interface(instances, "bond0");
            attach(instances, "a").unwrap();
            let a = port(instances, "a");
            plane.set_stuck(&[a]);
            let said = match whole_bond {
                true => delete(instances),
                false => detach(instances),
            };
            let is_said = |text: &String| text.starts_with("bond0: a: ") && text.contains("tries again");
            assert!(said.iter().any(is_said), "{said:?}");
            assert_eq!(instances.bonds.len(), usize::from(!whole_bond));
            plane.take_calls();
            let mut now = NOW;
            for pause in [1, 2, 4, 8, 16, 32, 64, 64] {
                let due = instances.poll_timeout().unwrap();
                assert_eq!(due.since(now), Duration::from_secs(pause));
                instances.handle_timeout(due);
                now = due;
                assert_eq!(returns(plane), 1, "after {pause} s");
            }
            plane.set_stuck(&[]);
            let due = instances.poll_timeout().unwrap();
            instances.handle_timeout(due);
            assert_eq!((returns(plane), instances.poll_timeout()), (1, None));
        });
    }
}

#[test]
fn what_a_port_was_outlives_its_bond_and_the_agent() {
    for whole_bond in [false, true] {
        with_bond(&format!("outlives-{whole_bond}"), move |instances, plane, dir| {
            make_interface(instances, "bond0");
            attach(instances, "a").unwrap();
            instances.publish_all(NOW);
            let before = original(instances);
            let a = port(instances, "a");
            disguise(instances, a);
            plane.set_stuck(&[a]);
            match whole_bond {
                true => delete(instances),
                false => detach(instances),
            };
            let mut desk = next_agent(plane, dir);
            let mut next = change(&mut desk);
            next.start(NOW, &[], &[]).unwrap();
            plane.set_stuck(&[]);
            plane.take_calls();
            let due = next.poll_timeout().unwrap();
            next.handle_timeout(due);
            next.settle(due);
            let calls = plane.take_calls();
            let with = |call: &script::Call| match call {
                script::Call::Detach(_, port, original) | script::Call::GiveBack(port, original) => {
                    Some((*port, original.clone()))
                }
                _ => None,
            };
            assert_eq!(calls.iter().filter_map(with).collect::<Vec<_>>(), [(a, before)]);
            next.publish_all(NOW);
            let mut desk = next_agent(plane, dir);
            let mut last = change(&mut desk);
            last.start(NOW, &[], &[]).unwrap();
            assert_eq!((returns(plane), last.poll_timeout()), (0, None), "forgotten");
        });
    }
}

/// A bond was deleted, its port cannot be given back, and what the port was cannot be saved apart from the state of the bond.
fn with_unsaved_port(
    name: &str,
    body: impl FnOnce(&mut Change<'_>, &ScriptPlane, &Path, script::Call) + Send + 'static,
) {
    with_bond(name, |instances, plane, dir| {
        make_interface(instances, "bond0");
        attach(instances, "a").unwrap();
        instances.publish_all(NOW);
        let a = port(instances, "a");
        let gives_back = script::Call::GiveBack(a, original(instances));
        disguise(instances, a);
        plane.set_stuck(&[a]);
        fs::create_dir_all(dir.join("state/left-ports/in the way")).unwrap();
        let said = delete(instances);
        let is_said = |text: &String| text.contains("what its ports were cannot be saved");
        assert!(said.iter().any(is_said), "{said:?}");
        ip("link del bond0");
        plane.take_calls();
        body(instances, plane, dir, gives_back);
    });
}

#[test]
fn the_next_agent_gives_back_a_port_that_could_not_be_saved_without_its_bond() {
    with_unsaved_port("unsaved", |_, plane, dir, gives_back| {
        let mut desk = next_agent(plane, dir);
        change(&mut desk).start(NOW, &[], &[]).unwrap();
        assert!(plane.take_calls().contains(&gives_back));
    });
}

#[test]
fn a_state_that_a_port_needs_goes_once_the_port_is_saved_and_another_bond_may_have_its_name() {
    with_unsaved_port("unsaved-name", |instances, _, dir, _| {
        let state = dir.join("state");
        let exist = |files: [&str; 2]| files.map(|file| state.join(file).is_file());
        assert_eq!(exist(["left-ports", "bond0.json"]), [false, true]);
        instances.add("bond0", &[]).unwrap();
        instances.publish_all(NOW);
        instances.do_tasks();
        assert_eq!(exist(["bond0.json", "bond0:0.json"]), [true, true]);
        fs::remove_dir_all(state.join("left-ports")).unwrap();
        while !exist(["left-ports", ""])[0] {
            let due = instances.poll_timeout().unwrap();
            instances.handle_timeout(due);
        }
        assert_eq!(exist(["bond0.json", "bond0:0.json"]), [true, false]);
    });
}

#[test]
fn a_port_that_cannot_be_given_back_is_forgotten_when_it_is_gone_or_attached() {
    for whole_bond in [false, true] {
        with_bond(&format!("forgotten-{whole_bond}"), move |instances, plane, dir| {
            make_interface(instances, "bond0");
            attach(instances, "a").unwrap();
            let before = original(instances);
            let a = port(instances, "a");
            disguise(instances, a);
            plane.set_stuck(&[a]);
            match whole_bond {
                true => {
                    delete(instances);
                    ip("link del bond0");
                    instances.add("bond0", &[]).unwrap();
                }
                false => drop(detach(instances)),
            }
            attach(instances, "a").unwrap();
            assert_eq!(original(instances), before);
            assert_eq!(instances.poll_timeout(), None, "attached");
            detach(instances);
            assert!(instances.poll_timeout().is_some());
            gone(instances, a);
            assert_eq!(instances.poll_timeout(), None, "gone");
            plane.set_stuck(&[]);
            instances.publish_all(NOW);
            let mut desk = next_agent(plane, dir);
            let mut next = change(&mut desk);
            next.start(NOW, &[], &[]).unwrap();
            assert_eq!(returns(plane), 0);
        });
    }
}

//! States that cannot be saved: the change is in force, and the caller is told.

use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::super::saving::SAVE_RETRY;
use super::super::table::FIRST;
use super::super::task::Task;
use super::adoption::{make_interface, next_agent, port};
use super::{Change, Desk, Tests};
use super::{NOW, attach, change, with_bond};
use crate::control::proto::{Call, warnings};
use crate::dataplane::script;
use crate::netlink::LinkEvent;
use crate::netlink::tests::ip;
use crate::saved::replace;

fn set(instances: &mut Change<'_>, option: &str, value: &str) -> Value {
    let options = vec![(option.to_owned(), value.to_owned())];
    let bond = "bond0".to_owned();
    instances.call(&Call::Set { bond, options }).unwrap()
}

#[test]
fn a_change_that_cannot_be_saved_is_in_force_and_the_caller_is_told() {
    with_bond("full-disk", |instances, _, dir| {
        attach(instances, "a").unwrap();
        let file = dir.join("state/bond0.json");
        fs::remove_file(&file).unwrap();
        fs::create_dir_all(file.join("in the way")).unwrap();
        let options = vec![("prio".to_owned(), "5".to_owned())];
        let (bond, port) = ("bond0".to_owned(), "a".to_owned());
        for answer in [
            set(instances, "miimon", "50"),
            instances.call(&Call::PortSet { bond, port, options }).unwrap(),
        ] {
            let said: Vec<&str> = warnings(&answer).collect();
            let words = ["bond0: the change is in force but cannot be saved: ", "tries again"];
            assert!(
                said.iter().any(|text| words.iter().all(|word| text.contains(word))),
                "{said:?}"
            );
        }
        instances.publish_all(NOW);
        fs::remove_dir_all(&file).unwrap();
        let due = instances.poll_timeout().unwrap();
        instances.handle_timeout(due);
        instances.publish_all(due);
        let states = instances.store.load(&mut Tests).unwrap().states;
        assert_eq!(states[0].bond.options().miimon.as_millis(), 50);
        assert_eq!(set(instances, "miimon", "60"), serde_json::json!({}));
    });
}

#[test]
fn a_state_that_waits_for_the_disk_takes_no_later_ones_place_and_no_port_is_changed_meanwhile() {
    with_bond("slow-disk", |instances, plane, dir| {
        instances.publish_all(NOW);
        let file = dir.join("state/bond0.json");
        let before = fs::read_to_string(&file).unwrap();
        instances.hold_files(true);
        instances.bonds[0].wanted.push("later".to_owned());
        instances.bonds[0].dirty = true;
        instances.publish(NOW);
        assert_eq!(fs::read_to_string(&file).unwrap(), before, "the loop wrote it");
        plane.take_calls();
        let refused = attach(instances, "a").unwrap_err();
        assert!(refused.message.contains("the disk has not answered"), "{refused:?}");
        let attaches = |call: &script::Call| matches!(call, script::Call::Attach(..));
        assert!(!plane.take_calls().iter().any(attaches));
        instances.hold_files(false);
        attach(instances, "a").unwrap();
        // It was written by the loop; nothing older comes after it.
        let with_port = fs::read_to_string(&file).unwrap();
        assert!(
            with_port.contains("later") && !with_port.contains("\"originals\":{}"),
            "{with_port}"
        );
        instances.publish_all(NOW);
        let states = instances.store.load(&mut Tests).unwrap().states;
        assert_eq!(states[0].originals.len(), 1);
    });
}

#[test]
fn a_state_that_cannot_be_removed_with_its_bond_is_a_warning_and_removed_later() {
    with_bond("cannot-unlink", |instances, _, dir| {
        instances.publish_all(NOW);
        let file = dir.join("state/bond0.json");
        fs::remove_file(&file).unwrap();
        fs::create_dir_all(file.join("in the way")).unwrap();
        let bond = "bond0".to_owned();
        let answer = instances.call(&Call::Del { bond }).unwrap();
        let said: Vec<&str> = warnings(&answer).collect();
        assert!(
            said.iter().any(|text| text.contains("saved state cannot be removed")),
            "{said:?}"
        );
        instances.publish_at_once(NOW, Some("bond0"));
        fs::remove_dir_all(&file).unwrap();
        fs::write(&file, "old").unwrap();
        let due = instances.poll_timeout().unwrap();
        instances.handle_timeout(due);
        assert!(!file.exists());
        assert_eq!(instances.poll_timeout(), None);
    });
}

#[test]
fn files_that_are_out_of_date_again_and_again_are_waited_for_once() {
    with_bond("flaps", |instances, _, _| {
        instances.bonds[FIRST].dirty = true;
        super::until("the files show what there was", || {
            instances.publish(NOW);
            instances.bonds[FIRST].dirty = true;
            instances.are_files_written()
        });
    });
}

/// Asserts, until it is dropped, that the loop can have the instances whenever this thread is at work in the folder of states; counts
/// that work.
struct Unlocked(Rc<Cell<usize>>);

impl Unlocked {
    fn watch(desk: &Desk) -> Unlocked {
        let (lock, done) = (Arc::clone(&desk.instances), Rc::new(Cell::new(0)));
        let count = Rc::clone(&done);
        replace::tests::watch(Some(Box::new(move || {
            assert!(!lock.is_locked(), "the loop cannot have them");
            count.set(count.get() + 1);
        })));
        Unlocked(done)
    }

    fn has_done(&self, what: &str) {
        assert!(self.0.replace(0) > 0, "{what}");
    }
}

impl Drop for Unlocked {
    fn drop(&mut self) {
        replace::tests::watch(None);
    }
}

#[test]
fn states_are_written_and_renamed_while_the_loop_can_have_the_instances() {
    with_bond("unlocked", |instances, plane, dir| {
        make_interface(instances, "bond0");
        instances.publish_all(NOW);
        fs::write(dir.join("state/old.json"), old_state(dir)).unwrap();
        let mut desk = next_agent(plane, dir);
        let disk = Unlocked::watch(&desk);
        let next = &mut change(&mut desk);
        next.begin_start(&[], &[]).unwrap();
        while !next.has_started() {
            next.settle(NOW);
            next.next_step();
            next.publish(NOW);
        }
        assert!(!dir.join("state/old.json").exists());
        assert_eq!(next.bonds.len(), 1);
        attach(next, "a").unwrap();
        disk.has_done("a state is written");
        ip("link set dev bond0 name lan");
        let link = next.tools().links.by_name("lan").unwrap().unwrap();
        next.on_device_seen(NOW, FIRST, link);
        next.settle(NOW);
        next.publish(NOW);
        next.do_tasks();
        disk.has_done("the state has got another name");
        assert!(dir.join("state/lan.json").exists() && !dir.join("state/bond0.json").exists());
        next.add("bond1", &[]).unwrap();
        let bond = "bond1".to_owned();
        let options = Vec::new();
        next.call(&Call::Set { bond, options }).unwrap();
        disk.has_done("the first state of a bond is written");
    });
}

#[test]
fn what_bonds_leave_behind_is_written_and_removed_while_the_loop_can_have_the_instances() {
    with_bond("unlocked-left", |instances, plane, dir| {
        make_interface(instances, "bond0");
        attach(instances, "a").unwrap();
        instances.publish_all(NOW);
        let mut desk = next_agent(plane, dir);
        let disk = Unlocked::watch(&desk);
        let next = &mut change(&mut desk);
        next.start(NOW, &[], &[]).unwrap();
        let (a, file, left) = (
            port(next, "a"),
            dir.join("state/bond0.json"),
            dir.join("state/left-ports"),
        );
        plane.set_stuck(&[a]);
        fs::remove_file(&file).unwrap();
        fs::create_dir_all(file.join("in the way")).unwrap();
        let bond = "bond0".to_owned();
        next.call(&Call::Del { bond }).unwrap();
        disk.has_done("what the port was is written, and the state is to be removed");
        assert!(left.exists() && file.exists());
        let name = "a".to_owned();
        next.pending_events.push_back(LinkEvent::Gone {
            ifindex: a.0,
            name,
            moved: None,
        });
        next.publish_at_once(NOW, None);
        next.read_links(NOW, 0);
        disk.has_done("the port is forgotten");
        assert!(!left.exists());
        fs::remove_dir_all(&file).unwrap();
        fs::write(&file, "").unwrap();
        let due = next.poll_timeout().unwrap();
        next.handle_timeout(due);
        disk.has_done("the state is removed");
        assert!(!file.exists());
    });
}

/// The state of a bond as another boot would have written it.
fn old_state(dir: &std::path::Path) -> String {
    let state = fs::read_to_string(dir.join("state/bond0.json")).unwrap();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(state.contains(boot_id.trim()));
    state.replace(boot_id.trim(), "before")
}

#[test]
fn a_first_state_that_cannot_be_written_is_tried_again_each_second_only() {
    with_bond("first", |instances, _, dir| {
        instances.publish_all(NOW);
        let state = dir.join("state");
        fs::remove_dir_all(&state).unwrap();
        fs::write(&state, "in the way").unwrap();
        instances.add("bond1", &[]).unwrap();
        let mut tried = 0;
        for _ in 0..20 {
            instances.publish(NOW);
            while let Some(task) = instances.next_task(NOW, true) {
                assert_eq!(task, Task::Save);
                tried += 1;
                instances.carry_out(task);
            }
        }
        assert_eq!(tried, 1);
        let later = NOW + SAVE_RETRY;
        instances.handle_timeout(later);
        instances.publish(later);
        fs::remove_file(&state).unwrap();
        fs::create_dir(&state).unwrap();
        assert_eq!(instances.next_task(later, true), Some(Task::Save));
        instances.save_owed();
        assert!(state.join("bond1.json").exists());
    });
}

#[test]
fn a_late_state_of_a_renamed_bond_does_not_take_the_place_of_the_one_that_has_its_name() {
    with_bond("late-name", |instances, _, dir| {
        make_interface(instances, "bond0");
        instances.publish_all(NOW);
        instances.hold_files(true);
        instances.bonds[0].wanted.push("later".to_owned());
        instances.bonds[0].dirty = true;
        instances.publish(NOW);
        ip("link set dev bond0 name lan");
        let link = instances.tools().links.by_name("lan").unwrap().unwrap();
        instances.on_device_seen(NOW, FIRST, link);
        instances.ask_threads(NOW);
        let _ = instances.take_answers(NOW, 64);
        assert_eq!(instances.bonds[0].name, "lan");
        let bond = "bond0".to_owned();
        let options = Vec::new();
        instances.call(&Call::Add { bond, options }).unwrap();
        let new = instances.bonds[1].ifindex;
        instances.hold_files(false);
        instances.publish_all(NOW);
        let text = fs::read_to_string(dir.join("state/bond0.json")).unwrap();
        assert!(text.contains(&format!("\"ifindex\":{new},")), "{text}");
    });
}

#[test]
fn a_port_that_went_while_it_was_attached_is_not_in_the_saved_state() {
    with_bond("went", |instances, plane, dir| {
        instances.publish_all(NOW);
        plane.set_attached(|_| ip("link del dev a"));
        instances.meanwhile = Some(Box::new(|instances| instances.publish(NOW)));
        attach(instances, "a").unwrap_err();
        instances.publish_all(NOW);
        let text = fs::read_to_string(dir.join("state/bond0.json")).unwrap();
        assert!(text.contains("\"originals\":{}"), "{text}");
    });
}

#[test]
fn a_state_that_could_not_be_saved_is_saved_again() {
    with_bond("again", |instances, _, dir| {
        let file = dir.join("state/bond0.json");
        let _ = fs::remove_file(&file);
        fs::create_dir_all(file.join("in the way")).unwrap();
        let instance = &mut instances.bonds[0];
        instance.wanted.push("later".to_owned());
        instance.dirty = true;
        instances.publish_all(NOW);
        fs::remove_dir_all(&file).unwrap();
        let due = instances.poll_timeout().unwrap();
        instances.handle_timeout(due);
        instances.publish_all(due);
        assert_eq!(
            instances.store.load(&mut Tests).unwrap().states[0]
                .wanted
                .last()
                .unwrap(),
            "later"
        );
    });
}

//! States that cannot be saved: the change is in force, and the caller is told.

use std::fs;

use serde_json::Value;

use super::{NOW, Tests, attach, with_bond};
use crate::control::proto::{Call, warnings};
use crate::dataplane::script;
use crate::instances::Instances;

fn set(instances: &mut Instances, option: &str, value: &str) -> Value {
    let options = vec![(option.to_owned(), value.to_owned())];
    let bond = "bond0".to_owned();
    instances.call(NOW, &Call::Set { bond, options }).unwrap()
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
            instances.call(NOW, &Call::PortSet { bond, port, options }).unwrap(),
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
        let answer = instances.call(NOW, &Call::Del { bond }).unwrap();
        let said: Vec<&str> = warnings(&answer).collect();
        assert!(
            said.iter().any(|text| text.contains("saved state cannot be removed")),
            "{said:?}"
        );
        instances.publish_at_once(NOW);
        fs::remove_dir_all(&file).unwrap();
        fs::write(&file, "old").unwrap();
        let due = instances.poll_timeout().unwrap();
        instances.handle_timeout(due);
        assert!(!file.exists());
        assert_eq!(instances.poll_timeout(), None);
    });
}

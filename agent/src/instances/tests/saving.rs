//! States that cannot be saved: the change is in force, and the caller is told.

use std::fs;

use serde_json::Value;

use super::{NOW, attach, with_bond};
use crate::control::proto::{Call, warnings};
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
        instances.publish_at_once(NOW);
        fs::remove_dir_all(&file).unwrap();
        let due = instances.poll_timeout().unwrap();
        instances.handle_timeout(due);
        instances.publish(due);
        let states = instances.store.load().unwrap().states;
        assert_eq!(states[0].bond.options().miimon.as_millis(), 50);
        assert_eq!(set(instances, "miimon", "60"), serde_json::json!({}));
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

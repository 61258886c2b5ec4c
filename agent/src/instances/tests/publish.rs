//! Which bonds are handed over to be shown in files, and when.

use std::fs;

use super::super::publish::PUBLISHED_A_TURN;
use super::super::table::FIRST;
use super::{Change, Counters, NOW, attach, with_bond};

#[test]
fn a_turn_publishes_some_bonds_and_none_is_passed_over() {
    with_bond("publish", |instances, _, _| {
        let bonds = 2 * PUBLISHED_A_TURN + 3;
        for number in 1..bonds {
            instances.add(&format!("bond{number}"), &[]).unwrap();
        }
        instances.publish_all(NOW);
        assert!(!instances.has_unpublished());

        instances.bonds.iter_mut().for_each(|instance| instance.dirty = true);
        let mut left = bonds;
        while instances.has_unpublished() {
            instances.publish(NOW);
            let dirty = instances.bonds.iter().filter(|instance| instance.dirty).count();
            assert_eq!(left - dirty, left.min(PUBLISHED_A_TURN));
            left = dirty;
        }

        // The first ones change again and again, the last one once.
        let last = bonds - 1;
        instances.bonds[last].dirty = true;
        let turns = (0..bonds).take_while(|_| {
            let first = instances.bonds.iter_mut().take(last);
            first.for_each(|instance| instance.dirty = true);
            instances.publish(NOW);
            instances.bonds[last].dirty
        });
        assert!(turns.count() <= bonds.div_ceil(PUBLISHED_A_TURN));

        instances.bonds.iter_mut().for_each(|instance| instance.dirty = true);
        instances.publish_at_once(NOW, Some("bond1"));
        let done: Vec<&str> = (instances.bonds.iter().filter(|instance| !instance.dirty))
            .map(|instance| instance.name.as_str())
            .collect();
        assert_eq!(done, ["bond1"], "a client waits for it, and for no other");
    });
}

#[test]
fn a_bond_whose_name_is_that_of_the_list_is_listed_and_says_what_it_lacks_until_it_has_another() {
    with_bond("masters", |instances, _, dir| {
        attach(instances, "a").unwrap();
        let list = dir.join("sys/class/net/bonding_masters");
        let text = dir.join("proc/net/bonding/bonding_masters");
        let told = |instances: &mut Change<'_>| instances.report(NOW, FIRST, Counters::Unread).unfulfilled;
        let mut rename = |name: &str| {
            let instance = &mut instances.bonds[0];
            let old = std::mem::replace(&mut instance.name, name.to_owned());
            instance.dirty = true;
            instances.writer.remove(&old);
            instances.publish_all(NOW);
            told(instances)
        };
        let lacks = rename("bonding_masters");
        assert_eq!(fs::read_to_string(&list).unwrap(), "bonding_masters\n");
        assert!(fs::read_to_string(&text).unwrap().contains("Slave Interface: a\n"));
        assert!(dir.join("sys/class/net/a/bonding_slave/state").exists());
        assert_eq!(lacks.len(), 1);
        assert_eq!(lacks[0].what, "show bonding_masters in sys/class/net");
        assert!(
            lacks[0].why.contains("`ip link set bonding_masters name`"),
            "{}",
            lacks[0].why
        );
        assert_eq!(rename("uplink"), []);
        assert_eq!(fs::read_to_string(&list).unwrap(), "uplink\n");
        assert!(dir.join("sys/class/net/uplink/bonding/mode").exists() && !text.exists());
    });
}

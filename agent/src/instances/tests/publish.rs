//! Which bonds are handed over to be shown in files, and when.

use super::super::publish::PUBLISHED_A_TURN;
use super::{NOW, with_bond};

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

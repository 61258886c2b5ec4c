//! Attempts at wanted ports after changes by others, and what callers hear of plans that fail.

use std::time::Duration;

use super::{Counters, NOW, attach, attempts, refusal, with_bond};
use crate::control::proto::Call;
use crate::instances::Instances;

#[test]
fn a_wanted_port_is_tried_soon_after_others_have_changed_it_many_times() {
    with_bond("changed", |instances, plane, _| {
        instances.bonds[0].wanted.push("a".to_owned());
        let index = instances.links.by_name("a").unwrap().unwrap().ifindex;
        let change = |instances: &mut Instances, now, mtu| {
            plane.fail_at(0, refusal());
            instances.links.set_mtu(index, mtu).unwrap();
            instances.read_links(now, 1024);
        };
        let mut now = NOW;
        plane.take_calls();
        for turn in 0..6 {
            change(instances, now, 1400 + turn);
            now = now + Duration::from_millis(100);
        }
        assert_eq!(attempts(plane), 6, "the first one and five because of changes");
        assert_eq!(
            instances.attach_timeout(),
            Some(NOW + Duration::from_secs(1)),
            "no longer pause"
        );
        // The clock leads to three failures.
        for pause in [2, 4, 8] {
            plane.fail_at(0, refusal());
            now = instances.attach_timeout().unwrap();
            instances.handle_timeout(now);
            assert_eq!(instances.attach_timeout(), Some(now + Duration::from_secs(pause)));
        }
        plane.take_calls();
        // A change that the limit does not permit an attempt for, and others that do not put it off.
        let soon = now + Duration::from_secs(1);
        for turn in 0..8 {
            change(instances, now, 1300 + turn);
            now = now + Duration::from_millis(100);
        }
        let made = attempts(plane);
        assert!(made <= 5, "{made} attempts");
        let next = instances.attach_timeout().unwrap();
        assert!(next.since(soon) <= Duration::from_secs(1), "{next:?} after {soon:?}");
        plane.fail_at(1000, refusal());
        instances.handle_timeout(next);
        assert!(instances.bonds[0].bond.ports().named("a").is_some());
    });
}

#[test]
fn a_wanted_port_that_is_again_as_it_was_waits_for_the_clock() {
    with_bond("restored", |instances, plane, _| {
        instances.bonds[0].wanted.push("a".to_owned());
        let index = instances.links.by_name("a").unwrap().unwrap().ifindex;
        for turn in 0..7 {
            plane.fail_at(0, refusal());
            instances.links.set_mtu(index, 1400 + turn).unwrap();
            instances.read_links(NOW, 1024);
        }
        // The clock's own time is later than that of the attempt that is owed.
        for _ in 0..3 {
            plane.fail_at(0, refusal());
            instances.handle_timeout(instances.attach_timeout().unwrap());
        }
        let now = instances.attach_timeout().unwrap();
        plane.fail_at(0, refusal());
        instances.handle_timeout(now);
        let clock = instances.attach_timeout().unwrap();
        let mtu = instances.links.by_name("a").unwrap().unwrap().report.mtu;
        for value in [1300, mtu] {
            instances.links.set_mtu(index, value).unwrap();
        }
        plane.take_calls();
        instances.read_links(now, 1024);
        let soon = instances.attach_timeout().unwrap();
        assert!(soon < clock, "an attempt is owed");
        instances.handle_timeout(soon);
        assert_eq!((attempts(plane), instances.attach_timeout()), (0, Some(clock)));
    });
}

#[test]
fn a_caller_is_warned_of_what_the_plane_could_not_do() {
    with_bond("undone", |instances, plane, _| {
        attach(instances, "a").unwrap();
        let set = |instances: &mut Instances, policy: &str| {
            let options = vec![
                ("mode".to_owned(), "2".to_owned()),
                ("xmit_hash_policy".to_owned(), policy.to_owned()),
            ];
            let bond = "bond1".to_owned();
            instances.call(NOW, &Call::Set { bond, options })
        };
        let options = vec![("mode".to_owned(), "2".to_owned())];
        let bond = "bond1".to_owned();
        assert_eq!(
            instances
                .call(NOW, &Call::Add { bond, options })
                .unwrap()
                .get("warnings"),
            None
        );
        assert_eq!(set(instances, "layer2+3").unwrap().get("warnings"), None);
        plane.fail_at(0, refusal());
        let answer = set(instances, "layer3+4").unwrap();
        let warnings = answer["warnings"].as_array().unwrap();
        let said = warnings[0].as_str().unwrap();
        assert!(
            said.starts_with("bond1: not done: cannot attach a program: "),
            "{warnings:?}"
        );
        let at = instances.find("bond1").unwrap();
        assert_eq!(
            instances.bonds[at].bond.options().xmit_hash_policy,
            bond_modes::XmitHashPolicy::Layer34
        );
        assert_eq!(instances.report(NOW, at, Counters::Read).unfulfilled.len(), 1);
    });
}

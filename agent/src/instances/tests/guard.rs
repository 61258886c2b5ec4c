//! What planes have in the kernel is looked after, put back, and not for ever.

use std::time::Duration;

use bond_modes::PortId;
use bond_monitors::Time;

use super::super::table::FIRST;
use super::adoption::port;
use super::{Change, NOW, attach, refusal, with_bond};
use crate::control::proto::UnfulfilledReport;
use crate::dataplane::script::{Call, ScriptPlane};
use crate::dataplane::{Amiss, Kept};

fn at(ms: u64) -> Time {
    NOW + Duration::from_millis(ms)
}

fn taken(what: Kept) -> Amiss {
    Amiss {
        what,
        done: "took it away".to_owned(),
        mending: Some("putting it back"),
        lacks: "do that".to_owned(),
        why: String::new(),
        is_cut: true,
    }
}

fn undone(instances: &Change<'_>, now: Time) -> Vec<UnfulfilledReport> {
    instances.bonds[0].unfulfilled.report(now)
}

fn put_back(plane: &ScriptPlane) -> Vec<Kept> {
    let calls = plane.take_calls().into_iter();
    let kept = calls.filter_map(|call| match call {
        Call::PutBack(_, what) => Some(what),
        _ => None,
    });
    kept.collect()
}

/// Lets the time pass until then, as the loop does.
fn run_until(instances: &mut Change<'_>, from: Time, until: Time) {
    let mut now = from;
    while now <= until {
        instances.settle(now);
        now = instances.guard_timeout().expect("there are bonds").max(now);
    }
}

#[test]
fn what_was_taken_away_is_put_back_within_a_round_and_looked_at_again_soon() {
    with_bond("guard", |instances, plane, _| {
        let device = plane.device("bond0");
        run_until(instances, NOW, at(5_000));
        plane.take_calls();
        plane.take_looked_after();
        for what in [Kept::Pins, Kept::Tx] {
            plane.take_away(device, taken(what));
        }
        run_until(instances, at(5_001), at(9_999));
        assert_eq!((put_back(plane), undone(instances, NOW)), (vec![], vec![]));
        instances.settle(at(10_000));
        assert_eq!(put_back(plane), [Kept::Pins, Kept::Tx]);
        assert_eq!(undone(instances, at(10_000)), []);
        assert_eq!(instances.guard_timeout(), Some(at(11_000)));
        run_until(instances, at(10_001), at(14_999));
        assert_eq!(plane.take_looked_after(), [device; 2]);
    });
}

#[test]
fn what_is_taken_away_again_and_again_is_left_for_a_minute_and_shown_until_it_is_right() {
    with_bond("guard-contested", |instances, plane, _| {
        let device = plane.device("bond0");
        let mut now = NOW;
        for _ in 0..5 {
            plane.take_away(device, taken(Kept::Tx));
            run_until(instances, now, now);
            assert_eq!(put_back(plane), [Kept::Tx]);
            now = instances.guard_timeout().unwrap();
        }
        assert!(now < at(10_000), "{now:?}");
        plane.take_away(device, taken(Kept::Tx));
        run_until(instances, now, now);
        let shown = undone(instances, now);
        assert!(shown[0].is_cut && shown[0].why.contains("again and again"), "{shown:?}");
        let pause_ends = instances.bonds[0].guard_repairs.pause_ends.unwrap();
        run_until(instances, now, at(60_000));
        assert_eq!((put_back(plane), undone(instances, now).len()), (vec![], 1));
        // At once, not at the next turn.
        instances.handle_timeout(pause_ends);
        instances.settle(pause_ends);
        assert_eq!(put_back(plane), [Kept::Tx]);
        assert_eq!(undone(instances, pause_ends), []);
    });
}

#[test]
fn what_is_right_again_without_us_is_shown_no_more() {
    with_bond("guard-right", |instances, plane, _| {
        let device = plane.device("bond0");
        let away = Amiss {
            mending: None,
            why: "its far end is elsewhere".to_owned(),
            ..taken(Kept::Wire)
        };
        plane.take_away(device, away);
        plane.take_calls();
        run_until(instances, NOW, at(20_000));
        assert_eq!(put_back(plane), []);
        let shown = undone(instances, at(20_000));
        assert_eq!(
            (shown[0].why.as_str(), shown[0].is_cut),
            ("its far end is elsewhere", true)
        );
        plane.give_all_back(device);
        run_until(instances, at(20_001), at(25_001));
        assert_eq!(undone(instances, NOW), []);
    });
}

#[test]
fn what_cannot_be_put_back_is_shown_with_the_reason_and_tried_again() {
    with_bond("guard-refused", |instances, plane, _| {
        attach(instances, "a").unwrap();
        let a: PortId = port(instances, "a");
        let device = plane.device("bond0");
        run_until(instances, NOW, NOW);
        plane.take_calls();
        plane.take_away(device, taken(Kept::Rx(a)));
        plane.fail_at(0, refusal());
        run_until(instances, at(5_000), at(5_000));
        let shown = undone(instances, at(5_000));
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert!(!shown[0].why.contains("another program"), "{shown:?}");
        run_until(instances, at(5_001), at(10_000));
        assert_eq!(put_back(plane), [Kept::Rx(a); 2]);
        assert_eq!(undone(instances, NOW), []);
    });
}

#[test]
fn many_bonds_are_looked_after_some_at_a_time_and_each_once_a_round() {
    with_bond("guard-many", |instances, plane, _| {
        for number in 1..100 {
            instances.add(&format!("bond{number}"), &[]).unwrap();
        }
        plane.take_looked_after();
        let all = instances.bonds.len();
        assert_eq!(all, 100);
        let (mut now, mut seen) = (at(1), Vec::new());
        while now <= at(5_000) {
            instances.ask_threads(now);
            let looked = plane.take_looked_after();
            assert!(looked.len() <= 8, "{looked:?}");
            seen.extend(looked);
            instances.settle(now);
            now = instances.guard_timeout().unwrap().max(now + Duration::from_millis(1));
        }
        let once: std::collections::BTreeSet<u32> = seen.iter().copied().collect();
        assert_eq!(once.len(), all, "{seen:?}");
        assert!(seen.len() <= all + 16, "{}", seen.len());
    });
}

#[test]
fn a_bond_that_a_change_has_is_looked_after_later() {
    with_bond("guard-busy", |instances, plane, _| {
        run_until(instances, NOW, NOW);
        plane.take_looked_after();
        instances.underway.at_work = Some(FIRST);
        instances.ask_threads(at(5_000));
        assert!(plane.take_looked_after().is_empty());
        assert_eq!(instances.guard_timeout(), Some(at(6_000)), "it does not spin");
        instances.underway.at_work = None;
        instances.settle(at(6_000));
        assert_eq!(plane.take_looked_after().len(), 1);
    });
}

//! Bonds that are taken over out of turn, because nobody else moves their traffic.

use std::time::Duration;

use bond_monitors::Carrier;

use super::adoption::{make_interface, next_agent, port};
use super::{NOW, attach, change, refusal, with_bond};
use crate::instances::agenda::{Agenda, Step};
use crate::instances::table::FIRST;
use crate::instances::task::Task;
use crate::instances::unadopted::{State, Unadopted};
use crate::netlink::LinkEvent;

#[test]
fn a_bond_that_could_not_be_adopted_is_tried_again_soon_when_a_port_of_it_fails() {
    with_bond("adopt-soon", |instances, plane, dir| {
        make_interface(instances, "bond0");
        attach(instances, "a").unwrap();
        instances.publish_all(NOW);
        let a = port(instances, "a");
        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        plane.set_unadoptable(Some("bond0"));
        next.start(NOW, &[], &[]).unwrap();
        let mut due = next.adopt_timeout().unwrap();
        let mut last = NOW;
        for _ in 0..3 {
            next.handle_timeout(due);
            next.settle(due);
            last = std::mem::replace(&mut due, next.adopt_timeout().unwrap());
        }
        assert_eq!(due.since(last), Duration::from_millis(800));
        let failed = last + Duration::from_millis(1);
        let link = next.tools().links.by_index(a.0).unwrap().unwrap();
        assert!(!link.report.carrier.is_on());
        next.on_link_event(failed, LinkEvent::Link(Box::new(link)));
        assert_eq!(next.next_task(failed, true), None);
        assert_eq!(next.adopt_timeout(), Some(failed + Duration::from_millis(100)));
    });
}

#[test]
fn a_lost_port_that_the_kernel_has_not_reported_yet_is_found_while_its_bond_waits() {
    with_bond("adopt-polled", |instances, _, _| {
        attach(instances, "a").unwrap();
        let a = port(instances, "a");
        let mut saved = instances.state(FIRST);
        saved.name = "bond9".to_owned();
        let waits = ["bond8", "bond9"].map(str::to_owned);
        instances.agenda = Agenda::new(waits, &[]);
        let waiting = Unadopted::new("bond9", State::Saved(Box::new(saved)));
        instances.unadopted.push(waiting);
        let mut link = instances.tools().links.by_index(a.0).unwrap().unwrap();
        assert!(!link.report.carrier.is_on());
        link.report.carrier = Carrier::On;
        instances.host.changed(link);
        instances.settle(NOW);
        instances.hurry_takeovers(NOW);
        let first = |bond: &str| Some(Step::Change(Task::Adopt(bond.to_owned())));
        assert_eq!(instances.agenda.pop(), first("bond9"));
        assert_eq!(instances.agenda.pop(), first("bond8"));
    });
}

#[test]
fn a_failed_port_that_only_a_reading_of_everything_shows_hurries_the_next_attempt() {
    with_bond("adopt-read", |instances, plane, dir| {
        make_interface(instances, "bond0");
        attach(instances, "a").unwrap();
        instances.publish_all(NOW);
        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        plane.set_unadoptable(Some("bond0"));
        next.start(NOW, &[], &[]).unwrap();
        let mut due = NOW;
        for _ in 0..4 {
            due = next.adopt_timeout().unwrap();
            next.handle_timeout(due);
            next.settle(due);
        }
        let now = due + Duration::from_millis(1);
        assert_eq!(next.adopt_timeout().unwrap().since(due), Duration::from_millis(1600));
        next.at(now).resync();
        assert_eq!(next.next_task(now, true), None);
        assert_eq!(next.adopt_timeout(), Some(now + Duration::from_millis(100)));
    });
}

#[test]
fn a_bond_that_failed_has_its_turn_while_others_wait_for_their_first() {
    with_bond("adopt-turns", |instances, _, _| {
        instances.adopt_later(Unadopted::new("bond7", State::Lost), refusal());
        instances.agenda = Agenda::new(["bond8", "bond9"].map(str::to_owned), &[]);
        let due = instances.adopt_timeout().unwrap();
        let tasks = [(); 3].map(|()| instances.next_task(due, true));
        let first = Some(Task::Adopt("bond8".to_owned()));
        assert_eq!(tasks, [Some(Task::AdoptLate), first, Some(Task::AdoptLate)]);
    });
}

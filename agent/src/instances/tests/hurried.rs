//! Bonds that are taken over out of turn, because nobody else moves their traffic.

use std::time::Duration;

use super::adoption::{make_interface, next_agent, port};
use super::{NOW, attach, change, with_bond};
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
        let mut due = next.poll_timeout().unwrap();
        let mut last = NOW;
        for _ in 0..3 {
            next.handle_timeout(due);
            next.settle(due);
            last = std::mem::replace(&mut due, next.poll_timeout().unwrap());
        }
        assert_eq!(due.since(last), Duration::from_millis(800));
        let failed = last + Duration::from_millis(1);
        let link = next.tools().links.by_index(a.0).unwrap().unwrap();
        assert!(!link.report.carrier.is_on());
        next.on_link_event(failed, LinkEvent::Link(Box::new(link)));
        assert_eq!(next.poll_timeout(), Some(failed + Duration::from_millis(100)));
    });
}

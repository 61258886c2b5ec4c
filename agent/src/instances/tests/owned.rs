//! Interfaces that other agents have as ports.

use super::super::table::FIRST;
use super::super::unadopted::{State, Unadopted};
use super::{Change, Counters, NOW, attach, with_bond};
use crate::control::proto::ErrorCode;
use crate::dataplane::PORT_MARK;
use crate::netlink::tests::ip;

/// Marks an interface as a port of `bond9`.
fn mark(instances: &mut Change<'_>, port: &str) {
    let links = &mut instances.tools().links;
    let index = links.by_name(port).unwrap().unwrap().ifindex;
    links.set_alias(index, &format!("{PORT_MARK}bond9")).unwrap();
}

/// Makes an interface `bond9`; its index and that of its other end.
fn make_bond9(instances: &mut Change<'_>) -> (u32, u32) {
    let links = &mut instances.tools().links;
    links.add_veth("bond9", "far").unwrap();
    ["bond9", "far"]
        .map(|name| links.by_name(name).unwrap().unwrap().ifindex)
        .into()
}

/// Lets `bond9` be the bond of an agent on plane tc.
fn make_bond9_a_bond(instances: &mut Change<'_>) -> u32 {
    let (bond, wire) = make_bond9(instances);
    ip(&format!("link set far name wire{bond}"));
    instances.tools().links.set_alias(wire, "wire of bond9").unwrap();
    bond
}

#[test]
fn a_port_of_a_bond_of_another_agent_is_refused_and_stays_as_it_is() {
    with_bond("owned", |instances, plane, _| {
        make_bond9_a_bond(instances);
        mark(instances, "a");
        let before = instances.tools().links.by_name("a").unwrap();
        plane.take_calls();
        let error = attach(instances, "a").unwrap_err();
        assert_eq!(error.code, ErrorCode::PortBusy);
        assert_eq!(
            error.message,
            "a is a port of bond9 already, which is a bond of another bondd, on another run directory: take it out there, with \
             `bondctl --run-dir DIRECTORY port del bond9 a`; or, if no bondd has bond9 any more, delete bond9, with `ip link del bond9`"
        );
        assert_eq!(instances.tools().links.by_name("a").unwrap(), before);
        assert!(plane.take_calls().is_empty());
        attach(instances, "b").unwrap();
    });
}

#[test]
fn a_wanted_port_of_another_agent_waits_until_that_lets_it_go() {
    with_bond("waits", |instances, _, _| {
        make_bond9_a_bond(instances);
        // The kernel tells of aliases only where the interface is up; elsewhere the clock leads to the next attempt.
        ip("link set dev a up");
        mark(instances, "a");
        instances.bonds[0].wanted.push("a".to_owned());
        instances.at(NOW).attach_wanted(FIRST, "a");
        let port = instances.report(NOW, FIRST, Counters::Read).ports.remove(0);
        let reason = port.notes.attach_error.unwrap();
        assert!(reason.starts_with("a is a port of bond9 already"), "{reason}");
        let index = instances.tools().links.by_name("a").unwrap().unwrap().ifindex;
        instances.tools().links.set_alias(index, "").unwrap();
        instances.read_links(NOW, 1024);
        let reason = instances
            .report(NOW, FIRST, Counters::Read)
            .ports
            .remove(0)
            .notes
            .attach_error;
        assert_eq!(reason, None);
        assert!(instances.bonds[0].bond.ports().named("a").is_some());
    });
}

#[test]
fn the_mark_of_a_bond_that_is_gone_or_our_own_is_left_over() {
    with_bond("left-over", |instances, _, _| {
        mark(instances, "a");
        attach(instances, "a").unwrap();
        // An interface that is no bond has the name.
        let (other, _) = make_bond9(instances);
        mark(instances, "b");
        attach(instances, "b").unwrap();
        instances.tools().links.delete(other).unwrap();
    });
    with_bond("own", |instances, _, _| {
        instances.bonds[0].ifindex = make_bond9_a_bond(instances);
        mark(instances, "a");
        attach(instances, "a").unwrap();
    });
}

#[test]
fn a_port_of_our_own_bond_that_is_not_adopted_yet_is_told_as_such() {
    with_bond("not-yet", |instances, _, _| {
        make_bond9_a_bond(instances);
        mark(instances, "a");
        let mut waiting = Unadopted::new("bond9", State::Unread);
        waiting.reason = "no memory".to_owned();
        instances.unadopted.push(waiting);
        let error = attach(instances, "a").unwrap_err();
        assert_eq!(
            error.message,
            "a is a port of bond9 already, which cannot be adopted yet: no memory"
        );
    });
}

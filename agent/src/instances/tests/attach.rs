//! Attempts to attach wanted ports after changes by other programs, and the answers to calls whose plans fail.

use std::collections::BTreeMap;
use std::time::Duration;

use bond_modes::{Event, PortId};

use super::super::table::FIRST;
use super::super::task::Task;
use super::Change;
use super::{Counters, NOW, attach, attempts, give_traffic, refusal, with_bond};
use crate::control::proto::Call;
use crate::control::proto::Origin;
use crate::dataplane::script::ScriptPlane;
use crate::netlink::RouteSocket;
use crate::netlink::tests::{asks, ip};

/// What a failed attachment does to an interface: it sets it up, and undoing that sets it down.
fn set_up_and_down(port: PortId) {
    let mut links = RouteSocket::open().unwrap();
    links.set_up(port.0, true).unwrap();
    links.set_up(port.0, false).unwrap();
}

#[test]
fn an_attachment_that_fails_half_way_is_tried_again_by_the_clock_and_after_changes_by_others() {
    with_bond("half-way", |instances, plane, _| {
        instances.bonds[0].wanted.push("a".to_owned());
        let index = instances.tools().links.by_name("a").unwrap().unwrap().ifindex;
        plane.take_calls();
        let mut now = NOW;
        plane.set_attaching(set_up_and_down);
        instances.tools().links.set_mtu(index, 1300).unwrap();
        for _ in 0..20 {
            plane.fail_at(0, refusal());
            instances.read_links(now, 1024);
        }
        assert_eq!(attempts(plane), 1, "its own changes lead to no other attempt");
        let report = instances.report(now, FIRST, Counters::Read).ports.remove(0);
        let reason = report.notes.attach_error.unwrap();
        assert!(reason.contains("attach a program"), "{reason}");
        assert_eq!(report.notes.next_attempt_ms, Some(1000));
        // The pauses grow.
        for pause in [1, 2, 4, 8, 16, 32, 64, 64] {
            plane.fail_at(0, refusal());
            let next = instances.attach_timeout().unwrap();
            assert_eq!(next.since(now), Duration::from_secs(pause));
            instances.handle_timeout(next);
            now = next;
            assert_eq!(attempts(plane), 1, "after {pause} s");
        }
        // Another program changes something: at once, but not for ever.
        for turn in 0..20 {
            plane.fail_at(0, refusal());
            instances.tools().links.set_mtu(index, 1400 + turn).unwrap();
            instances.read_links(now, 1024);
        }
        assert_eq!(attempts(plane), 5);
        // Nobody wants it for a while.
        let next = instances.attach_timeout().unwrap();
        assert!(instances.bonds[0].forget_wanted("a"));
        instances.handle_timeout(next);
        assert_eq!((attempts(plane), instances.attach_timeout()), (0, None));
        instances.bonds[0].wanted.push("a".to_owned());
        plane.fail_at(0, refusal());
        instances.at(next).attach_wanted(FIRST, "a");
        assert_eq!(attempts(plane), 1);
        // Nothing stands in the way any more.
        plane.fail_at(1000, refusal());
        let next = instances.attach_timeout().unwrap();
        instances.handle_timeout(next);
        assert_eq!(attempts(plane), 1);
        assert!(instances.bonds[0].bond.ports().named("a").is_some());
        assert_eq!(instances.attach_timeout(), None);
        assert_eq!(
            instances.report(next, FIRST, Counters::Read).ports[0]
                .notes
                .attach_error,
            None
        );
    });
}

#[test]
fn a_wanted_port_is_tried_soon_after_others_have_changed_it_many_times() {
    with_bond("changed", |instances, plane, _| {
        instances.bonds[0].wanted.push("a".to_owned());
        let index = instances.tools().links.by_name("a").unwrap().unwrap().ifindex;
        let change = |instances: &mut Change<'_>, now, mtu| {
            plane.fail_at(0, refusal());
            instances.tools().links.set_mtu(index, mtu).unwrap();
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
        let index = instances.tools().links.by_name("a").unwrap().unwrap().ifindex;
        for turn in 0..7 {
            plane.fail_at(0, refusal());
            instances.tools().links.set_mtu(index, 1400 + turn).unwrap();
            instances.read_links(NOW, 1024);
            instances.settle(NOW);
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
        let mtu = instances.tools().links.by_name("a").unwrap().unwrap().report.mtu;
        for value in [1300, mtu] {
            instances.tools().links.set_mtu(index, value).unwrap();
        }
        plane.take_calls();
        instances.read_links(now, 1024);
        let soon = instances.attach_timeout().unwrap();
        assert!(soon < clock, "an attempt is owed");
        instances.handle_timeout(soon);
        assert_eq!((attempts(plane), instances.attach_timeout()), (0, Some(clock)));
    });
}

/// Adds an interface that cannot change its address.
fn add_fixed(instances: &mut Change<'_>, plane: &ScriptPlane) -> PortId {
    ip("link add f type ifb");
    let link = instances.tools().links.by_name("f").unwrap().unwrap();
    let port = PortId(link.ifindex);
    plane.set_port(port, link.report);
    port
}

fn set(instances: &mut Change<'_>, option: &str, value: &str) {
    let pairs = [(option.to_owned(), value.to_owned())];
    instances.set("bond0", &pairs).unwrap();
}

#[test]
fn a_wanted_port_is_tried_at_once_after_its_bond_has_changed() {
    with_bond("bond-changed", |instances, plane, _| {
        let port = add_fixed(instances, plane);
        set(instances, "mode", "0");
        instances.bonds[0].wanted.push("f".to_owned());
        instances.attach_wanted(FIRST, "f");
        let refused = |instances: &Change<'_>| instances.bonds[0].attempts.last(NOW, "f").is_some();
        assert!(refused(instances), "no port of this mode keeps its address");
        let clock = NOW + Duration::from_secs(1);
        assert_eq!(instances.attach_timeout(), Some(clock));
        // An event without a change leads to no attempt, nor does a change that is taken back.
        instances.feed(
            FIRST,
            Event::BondLink {
                report: instances.bonds[0].devices.values().next().unwrap().report.clone(),
            },
        );
        assert_eq!(instances.attach_timeout(), Some(clock));
        set(instances, "mode", "1");
        assert_eq!(instances.attach_timeout(), Some(NOW));
        set(instances, "mode", "0");
        plane.take_calls();
        instances.handle_timeout(NOW);
        assert_eq!((attempts(plane), instances.attach_timeout()), (0, Some(clock)));
        set(instances, "mode", "1");
        assert_eq!(instances.attach_timeout(), Some(NOW));
        plane.fail_at(0, refusal());
        instances.handle_timeout(NOW);
        assert_eq!((attempts(plane), instances.attach_timeout()), (1, Some(clock)));
        let mut report = instances.bonds[0].devices.values().next().unwrap().report.clone();
        report.mtu = 1400;
        instances.feed(FIRST, Event::BondLink { report });
        assert_eq!(instances.attach_timeout(), Some(NOW), "another MTU");
        instances.handle_timeout(NOW);
        assert!(instances.bonds[0].bond.ports().get(port).is_some());
        assert_eq!(instances.attach_timeout(), None);
    });
}

#[test]
fn a_bond_says_that_bondd_set_fail_over_mac_for_a_port_also_if_it_is_not_attached() {
    with_bond("fixed-origin", |instances, plane, _| {
        add_fixed(instances, plane);
        let origin = |instances: &mut Change<'_>| {
            let report = instances.report(NOW, FIRST, Counters::Unread);
            (report.option_origins["fail_over_mac"], report.options_for_ports)
        };
        assert_eq!(origin(instances), (Origin::Default, BTreeMap::new()));
        plane.fail_at(0, refusal());
        attach(instances, "f").unwrap_err();
        assert_eq!(instances.bonds[0].bond.options().fail_over_mac.name(), "active");
        let for_port: BTreeMap<_, _> = [("fail_over_mac".to_owned(), "f".to_owned())].into();
        assert_eq!(origin(instances), (Origin::Bondd, for_port.clone()));
        attach(instances, "f").unwrap();
        assert_eq!(origin(instances), (Origin::Bondd, for_port));
        instances.port_detach("bond0", "f").unwrap();
        let options = vec![("fail_over_mac".to_owned(), "none".to_owned())];
        let bond = "bond0".to_owned();
        instances.call(&Call::Set { bond, options }).unwrap();
        assert_eq!(origin(instances), (Origin::Operator, BTreeMap::new()));
    });
}

#[test]
fn nothing_is_set_for_a_port_whose_settings_cannot_be_read() {
    with_bond("unread", |instances, plane, _| {
        add_fixed(instances, plane);
        let link = instances.tools().links.by_name("f").unwrap().unwrap();
        asks::fail_at(0);
        instances.attach(FIRST, &link).unwrap_err();
        assert_eq!(instances.bonds[0].bond.options().fail_over_mac.name(), "none");
    });
}

#[test]
fn nothing_is_kept_about_ports_that_have_left() {
    with_bond("left", |instances, plane, _| {
        give_traffic(instances, plane);
        let kept = |instances: &Change<'_>| {
            let instance = &instances.bonds[0];
            (instance.failures.len(), instance.attempts.last(NOW, "a").is_some())
        };
        let fail_to_attach = |instances: &mut Change<'_>| {
            instances.bonds[0].wanted.push("a".to_owned());
            plane.fail_at(0, refusal());
            instances.attach_wanted(FIRST, "a");
            assert_eq!(kept(instances), (1, true));
        };
        fail_to_attach(instances);
        instances.port_detach("bond0", "a").unwrap();
        assert_eq!(kept(instances), (0, false), "detached");
        fail_to_attach(instances);
        attach(instances, "a").unwrap();
        assert_eq!(kept(instances), (0, false), "attached by an operator");
        plane.fail_at(0, refusal());
        instances.read_receive_stamps(FIRST);
        assert_eq!(kept(instances), (1, false));
        instances.port_detach("bond0", "a").unwrap();
        assert_eq!(kept(instances), (0, false), "detached");
        fail_to_attach(instances);
        let link = instances.tools().links.by_name("a").unwrap().unwrap();
        instances.tools().links.delete(link.ifindex).unwrap();
        instances.read_links(NOW, 1024);
        instances.settle(NOW);
        assert_eq!(kept(instances), (0, false), "gone");
    });
}

#[test]
fn a_caller_is_warned_of_what_the_plane_could_not_do() {
    with_bond("undone", |instances, plane, _| {
        attach(instances, "a").unwrap();
        let set = |instances: &mut Change<'_>, policy: &str| {
            let options = vec![
                ("mode".to_owned(), "2".to_owned()),
                ("xmit_hash_policy".to_owned(), policy.to_owned()),
            ];
            let bond = "bond1".to_owned();
            instances.call(&Call::Set { bond, options })
        };
        let options = vec![("mode".to_owned(), "2".to_owned())];
        let bond = "bond1".to_owned();
        assert_eq!(
            instances.call(&Call::Add { bond, options }).unwrap().get("warnings"),
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

#[test]
fn a_refused_choice_names_the_port_as_the_client_did() {
    with_bond("choice", |instances, _, _| {
        let bond = "bond0".to_owned();
        let port = Some("active_slave".to_owned());
        let error = instances.call(&Call::Active { bond, port }).unwrap_err();
        assert_eq!(
            error.message,
            "bond0: active port: active_slave is not a port of this bond"
        );
    });
}

#[test]
fn a_bond_does_not_say_that_it_sets_what_its_plane_refuses() {
    with_bond("fixed-refused", |instances, plane, _| {
        add_fixed(instances, plane);
        plane.cannot("fail_over_mac");
        instances.take_happened();
        attach(instances, "f").unwrap_err();
        let said: Vec<String> = instances
            .take_happened()
            .into_iter()
            .map(|line| line.event.text)
            .collect();
        assert_eq!(said, [""; 0]);
    });
}

#[test]
fn a_wanted_port_that_could_not_be_read_is_tried_again_by_the_clock() {
    with_bond("unread", |instances, _, _| {
        let instance = &mut instances.bonds[0];
        instance.wanted.push("a".to_owned());
        let reason = "cannot look a up".to_owned();
        instance.attempts.failed(NOW, "a", None, &instance.bond, reason);
        assert_eq!(instances.next_task(NOW, true), None);
        let due = instances.attach_timeout().unwrap();
        assert!(due > NOW);
        instances.handle_timeout(due);
        assert!(instances.bonds[0].bond.ports().named("a").is_some());
        assert_eq!(instances.attach_timeout(), None);
    });
}

#[test]
fn an_interface_that_comes_and_goes_all_the_time_keeps_the_agent_from_nothing_else() {
    with_bond("attach-turns", |instances, _, _| {
        let wanted = (FIRST, "a".to_owned());
        instances.to_attach.extend([wanted.clone(), wanted]);
        instances.left.changed = true;
        let tasks = [(); 3].map(|()| instances.next_task(NOW, true));
        let attach = Some(Task::AttachWanted(FIRST, "a".to_owned()));
        assert_eq!(tasks, [attach.clone(), Some(Task::Save), attach]);
    });
}

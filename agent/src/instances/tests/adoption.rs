//! Restarts while the kernel fails: saved settings survive, and nothing is taken from a bond that is there.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bond_modes::PortId;
use bond_monitors::MacAddr;

use super::super::table::FIRST;
use super::{Change, Tests};
use super::{Desk, change, desk};
use super::{NOW, attach, refusal, with_bond};
use crate::config::{self, BondSpec};
use crate::control::proto::{Call, ErrorCode, Report};
use crate::dataplane::script::{self, ScriptPlane};
use crate::dataplane::{OriginalPort, PORT_MARK, PlaneBond};
use crate::instances::{Instances, check_options};
use crate::netlink::LinkEvent;
use crate::netlink::tests::{asks, ip};

/// The lines of a file about `bond0`.
pub(super) fn spec(options: &str, ports: &[&str]) -> BondSpec {
    let source = config::Source {
        path: "bonds.conf".into(),
        text: format!("alias bond0 bonding\noptions bond0 {options}\n"),
        grammar: config::Grammar::Own,
    };
    let mut spec = config::parse(&[source], &config::NoFiles, &check_options)
        .bonds
        .remove(0);
    spec.ports = ports.iter().map(|port| (*port).to_owned()).collect();
    spec
}

pub(super) fn next_agent(plane: &ScriptPlane, dir: &Path) -> Desk {
    plane.take_calls();
    desk(dir, vec![Box::new(plane.clone())])
}

/// Makes the bond an interface, which the script's are not: a start finds all others gone.
pub(super) fn make_interface(instances: &mut Change<'_>, name: &str) {
    make_interface_with(name, instances.bonds[0].ifindex);
}

pub(super) fn make_interface_with(name: &str, ifindex: u32) {
    ip(&format!("link add {name} index {ifindex} type veth peer name wire9"));
}

fn set(instances: &mut Change<'_>, option: &str, value: &str) {
    let options = vec![(option.to_owned(), value.to_owned())];
    let bond = "bond0".to_owned();
    instances.call(&Call::Set { bond, options }).unwrap();
}

pub(super) fn port(instances: &mut Change<'_>, name: &str) -> PortId {
    PortId(instances.tools().links.by_name(name).unwrap().unwrap().ifindex)
}

/// The original settings of the only port.
pub(super) fn original(instances: &Change<'_>) -> OriginalPort {
    let originals = &instances.bonds[0].originals;
    assert_eq!(originals.len(), 1);
    originals.values().next().unwrap().clone()
}

/// Gives an interface the address that it would have as a port.
pub(super) fn disguise(instances: &mut Change<'_>, port: PortId) {
    instances.tools().links.set_mac(port.0, BONDS).unwrap();
}

const BONDS: MacAddr = MacAddr([2, 0, 0, 0, 0xb0, 7]);

/// Questions with which a start reads all interfaces and their addresses, and polls the ports of the bonds that wait.
const READING: usize = 3;

fn given_back(plane: &ScriptPlane) -> usize {
    let calls = plane.take_calls().into_iter();
    calls.filter(|call| matches!(call, script::Call::GiveBack(..))).count()
}

#[test]
fn a_bond_that_cannot_be_adopted_at_once_keeps_its_saved_state_and_is_adopted_later() {
    with_bond("adopt-later", |instances, plane, dir| {
        make_interface(instances, "bond0");
        let file = spec("mode=1 miimon=100", &[]);
        instances.ensure(&file);
        attach(instances, "a").unwrap();
        set(instances, "miimon", "50");
        instances.publish_all(NOW);
        let before = original(instances);
        let a = port(instances, "a");
        disguise(instances, a);

        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        plane.fail_at(0, refusal());
        next.start(NOW, std::slice::from_ref(&file), &[]).unwrap();
        assert!(next.bonds.is_empty() && next.has_unadopted());
        let shown = dir.join("proc/net/bonding/bond0");
        assert!(shown.exists(), "its files say what forwards");
        let all = next.show(NOW, None).unwrap().finish();
        let all: Report = serde_json::from_str(&all).unwrap();
        assert_eq!(
            (all.waiting[0].name.as_str(), all.waiting[0].next_attempt_ms),
            ("bond0", 100)
        );
        assert_eq!(next.answer(&Call::List {}).unwrap(), serde_json::json!(["bond0"]));
        let taken = next.possible_port(FIRST, "a").unwrap_err();
        assert_eq!(taken.code, ErrorCode::PortBusy, "{taken}");
        let bond = "bond0".to_owned();
        let options = vec![];
        let refused = next.call(&Call::Add { bond, options }).unwrap_err();
        assert_eq!(refused.code, ErrorCode::NameTaken, "{refused}");
        let unknown = next.find("bond0").unwrap_err();
        assert!(unknown.message.contains("attach a program"), "the reason: {unknown}");
        let mut due = next.adopt_timeout().unwrap();
        assert_eq!(due.since(NOW), Duration::from_millis(100));
        plane.fail_at(0, refusal());
        next.handle_timeout(due);
        next.settle(due);
        assert_eq!(
            next.adopt_timeout(),
            Some(due + Duration::from_millis(200)),
            "pauses grow"
        );
        due = next.adopt_timeout().unwrap();
        next.handle_timeout(due);
        next.settle(due);
        assert!(!next.has_unadopted());
        assert_eq!(original(&next), before);
        let instance = &next.bonds[0];
        assert_eq!(
            instance.bond.options().miimon,
            Duration::from_millis(50),
            "the operator's"
        );
        assert_eq!(instance.configured, Some(file.pairs()));
    });
}

#[test]
fn the_kernel_is_examined_only_when_all_that_forwards_is_watched_again() {
    with_bond("examined-late", |instances, plane, dir| {
        make_interface(instances, "bond0");
        attach(instances, "a").unwrap();
        instances.publish_all(NOW);

        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        let mut other = spec("mode=1 miimon=100", &[]);
        other.name = "bond1".to_owned();
        next.start(NOW, std::slice::from_ref(&other), &[]).unwrap();
        assert!(next.bonds.named("bond0").is_some());
        let order = plane.take_calls().into_iter().filter_map(|call| match call {
            script::Call::Adopt(name) => Some(format!("adopt {name}")),
            script::Call::Probe => Some("examine".to_owned()),
            script::Call::Create(name) => Some(format!("create {name}")),
            _ => None,
        });
        let order: Vec<String> = order.collect();
        assert_eq!(order[..2], ["adopt bond0", "examine"]);
        assert_eq!(order.last().unwrap(), "create bond1");
    });
}

#[test]
fn a_bond_whose_file_stops_naming_it_while_it_cannot_be_adopted_follows_that_later() {
    with_bond("leave-later", |instances, plane, dir| {
        make_interface(instances, "bond0");
        instances.ensure(&spec("mode=1 miimon=100", &["a"]));
        instances.attach_all_wanted(FIRST);
        instances.bonds[0].origins.made_by_file = true;
        instances.publish_all(NOW);
        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        plane.fail_at(0, refusal());
        next.start(NOW, &[], &[]).unwrap();
        assert!(next.has_unadopted() && plane.plan("bond0").is_some());
        let due = next.poll_timeout().unwrap();
        next.handle_timeout(due);
        next.settle(due);
        assert!(next.bonds.is_empty() && plane.plan("bond0").is_none(), "removed");
    });
}

#[test]
fn a_saved_state_that_cannot_be_read_at_once_is_read_later() {
    with_bond("read-later", |instances, plane, dir| {
        make_interface(instances, "bond0");
        attach(instances, "a").unwrap();
        instances.publish_all(NOW);
        let before = original(instances);
        let a = port(instances, "a");
        disguise(instances, a);
        let (file, aside) = (dir.join("state/bond0.json"), dir.join("aside"));
        fs::rename(&file, &aside).unwrap();
        fs::create_dir(&file).unwrap();
        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        next.start(NOW, &[], &[]).unwrap();
        assert!(next.bonds.is_empty() && next.has_unadopted());
        fs::remove_dir(&file).unwrap();
        fs::rename(&aside, &file).unwrap();
        let due = next.poll_timeout().unwrap();
        next.handle_timeout(due);
        next.settle(due);
        assert_eq!(original(&next), before);
    });
}

#[test]
fn a_port_whose_settings_are_missing_in_the_saved_state_is_given_back_without_the_marks_of_a_port() {
    with_bond("no-originals", |instances, plane, dir| {
        make_interface(instances, "bond0");
        attach(instances, "a").unwrap();
        let a = port(instances, "a");
        instances
            .tools()
            .links
            .set_alias(a.0, &format!("{PORT_MARK}bond0"))
            .unwrap();
        instances.tools().links.set_allmulti(a.0, true).unwrap();
        instances.bonds[0].originals.clear();
        instances.bonds[0].dirty = true;
        instances.publish_all(NOW);
        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        // It cannot be read at once.
        asks::fail_at(READING + 1);
        next.start(NOW, &[], &[]).unwrap();
        assert!(next.has_unadopted());
        let due = next.poll_timeout().unwrap();
        next.handle_timeout(due);
        next.settle(due);
        let OriginalPort {
            ifalias,
            allmulti,
            disable_ipv6,
            mtu,
            ..
        } = original(&next);
        assert_eq!(
            (ifalias.as_str(), allmulti, disable_ipv6, mtu),
            ("", false, Some(false), 1500)
        );
    });
}

#[test]
fn an_attachment_that_a_crash_interrupted_is_completed_or_made_anew_and_a_saved_port_stays_down() {
    let attached = |plane: &ScriptPlane| {
        let calls = plane.take_calls().into_iter();
        calls.filter(|call| matches!(call, script::Call::Attach(..))).count()
    };
    for (is_saved, failures, attempts, returns) in [(true, 0, 0, 0), (false, 0, 1, 0), (false, 1, 2, 0)] {
        with_bond(
            &format!("interrupted-{is_saved}-{failures}"),
            move |instances, plane, dir| {
                make_interface(instances, "bond0");
                attach(instances, "a").unwrap();
                instances.publish_all(NOW);
                if !is_saved {
                    // As it is while a port is attached: what it was is on disk, and not yet that it is one.
                    let file = dir.join("state/bond0.json");
                    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
                    state["bond"]["ports"] = serde_json::json!([]);
                    fs::write(&file, state.to_string()).unwrap();
                }
                let a = port(instances, "a");
                let link = instances.tools().links.by_index(a.0).unwrap().unwrap();
                assert!(!link.report.admin_up);
                plane.set_port(a, link.report);
                let mut desk = next_agent(plane, dir);
                let mut next = change(&mut desk);
                if failures > 0 {
                    // The first call is for the bond.
                    plane.fail_at(1, refusal());
                }
                next.start(NOW, &[], &[]).unwrap();
                assert!(next.bonds[0].bond.ports().get(a).is_some());
                assert_eq!(attached(plane), attempts, "{is_saved} {failures}");
                assert_eq!(next.bonds[0].unrestored.len(), returns);
                next.publish_all(NOW);
                plane.set_port(a, next.tools().links.by_index(a.0).unwrap().unwrap().report);
                let mut desk = next_agent(plane, dir);
                let mut last = change(&mut desk);
                last.start(NOW, &[], &[]).unwrap();
                assert_eq!(attached(plane), 0, "it is saved now");
            },
        );
    }
}

#[test]
fn a_bond_whose_saved_state_has_the_wrong_interface_is_adopted_with_it() {
    with_bond("wrong-index", |instances, plane, dir| {
        make_interface(instances, "bond0");
        attach(instances, "a").unwrap();
        instances.publish_all(NOW);
        let (before, index) = (original(instances), instances.bonds[0].ifindex);
        let a = port(instances, "a");
        disguise(instances, a);
        let file = dir.join("state/bond0.json");
        for wrong in [0, 4_294_967_295, 99, port(instances, "b").0] {
            let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            assert_eq!(state["ifindex"], index);
            state["ifindex"] = wrong.into();
            fs::write(&file, state.to_string()).unwrap();
            let mut desk = next_agent(plane, dir);
            let mut next = change(&mut desk);
            next.start(NOW, &[], &[]).unwrap();
            assert_eq!(given_back(plane), 0, "{wrong}");
            assert_eq!(
                (original(&next), next.bonds[0].ifindex),
                (before.clone(), index),
                "{wrong}"
            );
            next.publish_all(NOW);
            let states = next.store.load(&mut Tests).unwrap().states;
            assert_eq!(states.iter().map(|state| state.ifindex).collect::<Vec<_>>(), [index]);
        }
    });
}

#[test]
fn a_bond_without_a_state_is_adopted_later_if_it_or_a_port_cannot_be_read() {
    with_bond("orphan-later", |instances, plane, dir| {
        make_interface(instances, "bond0");
        attach(instances, "a").unwrap();
        for unread_port in [false, true] {
            let mut desk = next_agent(plane, &dir.join(format!("next-{unread_port}")));
            let mut next = change(&mut desk);
            match unread_port {
                // The first question after the reading of everything is that for the port's settings.
                true => asks::fail_at(READING),
                false => plane.fail_at(1, refusal()),
            }
            next.start(NOW, &[], &[]).unwrap();
            assert!(next.bonds.is_empty() && next.has_unadopted());
            let due = next.poll_timeout().unwrap();
            next.handle_timeout(due);
            next.settle(due);
            assert_eq!(next.bonds[0].originals.len(), 1);
        }
    });
}

#[test]
fn a_renamed_bond_is_not_given_back_because_a_question_failed() {
    with_bond("renamed", |instances, plane, dir| {
        attach(instances, "a").unwrap();
        instances.publish_all(NOW);
        let before = original(instances);
        make_interface(instances, "bond9");
        instances.bonds[0]
            .plane
            .with(&mut Tests, |plane| plane.renamed("bond9"));
        // Reading the interface fails, and adopting the bond.
        for question in [true, false] {
            let mut desk = next_agent(plane, dir);
            let mut next = change(&mut desk);
            match question {
                true => asks::fail_at(READING),
                false => plane.fail_at(0, refusal()),
            }
            next.start(NOW, &[], &[]).unwrap();
            assert_eq!(given_back(plane), 0);
            assert!(next.bonds.is_empty() && dir.join("state/bond0.json").exists());
        }
        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        asks::fail_at(READING);
        next.start(NOW, &[], &[]).unwrap();
        let due = next.poll_timeout().unwrap();
        next.handle_timeout(due);
        next.settle(due);
        assert_eq!((next.bonds[0].name.as_str(), original(&next)), ("bond9", before));
        next.publish_all(due);
        let states = next.store.load(&mut Tests).unwrap().states;
        assert_eq!(states.len(), 1);
        assert_eq!(states[0].name, "bond9");
    });
}

#[test]
fn the_ports_of_a_bond_are_given_back_only_when_its_interface_is_gone_and_again_after_a_failure() {
    with_bond("unrecognised", |instances, plane, dir| {
        attach(instances, "a").unwrap();
        instances.publish_all(NOW);
        make_interface(instances, "bond0");
        // Its wire was renamed, say.
        instances.bonds[0]
            .plane
            .with(&mut Tests, |plane| plane.renamed("other"));
        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        next.start(NOW, &[], &[]).unwrap();
        assert!(next.find_unadopted("bond0").unwrap().is_some());
        assert_eq!(given_back(plane), 0);
        next.read_links(NOW, 1024);
        ip("link del bond0");
        Instances::read_links(&mut next, NOW, 1024);
        assert_eq!(next.adopt_timeout(), Some(NOW));
        // It was taken over under its other name.
        assert!(next.next_step());
        // The first call is for the bond.
        plane.fail_at(1, refusal());
        next.handle_timeout(NOW);
        next.settle(NOW);
        assert_eq!(given_back(plane), 2);
        assert!(!next.has_unadopted());
        assert!(next.store.load(&mut Tests).unwrap().states.is_empty());
    });
}

#[test]
fn a_port_that_is_back_from_elsewhere_keeps_its_original_settings_when_an_attempt_fails() {
    for by_disk in [false, true] {
        with_bond(&format!("back-{by_disk}"), move |instances, plane, dir| {
            attach(instances, "a").unwrap();
            let before = original(instances);
            let a = port(instances, "a");
            let name = "a".to_owned();
            let gone = LinkEvent::Gone {
                ifindex: a.0,
                name,
                moved: None,
            };
            instances.pending_events.push_back(gone);
            instances.read_links(NOW, 0);
            assert!(instances.bonds[0].vanished.contains_key("a"));
            disguise(instances, a);
            instances
                .tools()
                .links
                .set_alias(a.0, &format!("{PORT_MARK}bond0"))
                .unwrap();
            let file = dir.join("state/bond0.json");
            match by_disk {
                true => {
                    let _ = fs::remove_file(&file);
                    fs::create_dir_all(file.join("in the way")).unwrap();
                }
                false => plane.fail_at(0, refusal()),
            }
            instances.attach_wanted(FIRST, "a");
            assert!(instances.bonds[0].bond.ports().is_empty());
            if by_disk {
                fs::remove_dir_all(&file).unwrap();
                instances.tools().links.set_alias(a.0, "").unwrap();
            } else {
                // A crash between the attempts loses nothing.
                let unrestored = &instances.store.load(&mut Tests).unwrap().states[0].unrestored;
                assert_eq!(unrestored[&a].mac, before.mac);
            }
            instances.attach_wanted(FIRST, "a");
            assert_eq!(original(instances).mac, before.mac);
            assert!(instances.bonds[0].unrestored.is_empty());
        });
    }
}

#[test]
fn a_port_that_could_not_be_given_back_keeps_its_original_settings() {
    with_bond("unrestored", |instances, plane, dir| {
        make_interface(instances, "bond0");
        attach(instances, "a").unwrap();
        let before = original(instances);
        let a = port(instances, "a");
        disguise(instances, a);
        let detached_with = |plane: &ScriptPlane, place: usize| {
            let calls = plane.take_calls();
            assert!(matches!(calls[place], script::Call::Detach(..)), "{calls:?}");
        };
        // The first call is for a plan without the port.
        plane.take_calls();
        plane.set_stuck(&[a]);
        instances.port_detach("bond0", "a").unwrap();
        detached_with(plane, 1);
        attach(instances, "a").unwrap();
        assert_eq!(original(instances), before);

        // An agent died while it attached the port, and the next cannot undo that.
        instances.publish_all(NOW);
        plane.set_stuck(&[]);
        let detach = |plane: &mut dyn PlaneBond| plane.detach(a, &before);
        instances.bonds[0].plane.with(&mut Tests, detach).unwrap();
        plane.set_stuck(&[a]);
        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        next.start(NOW, &[], &[]).unwrap();
        detached_with(plane, 2);
        assert!(next.bonds[0].bond.ports().get(a).is_some(), "attached anew");
        assert_eq!(original(&next), before);

        // The bond is deleted, and another one gets the port.
        next.remove(FIRST).unwrap();
        next.add("bond0", &[]).unwrap();
        attach(&mut next, "a").unwrap();
        assert_eq!(original(&next), before);
    });
}

#[test]
fn a_port_of_a_file_stays_that_port_when_it_is_renamed() {
    for while_running in [true, false] {
        with_bond(
            &format!("port-renamed-{while_running}"),
            move |instances, plane, dir| {
                make_interface(instances, "bond0");
                instances.ensure(&spec("mode=1", &["a"]));
                instances.attach_all_wanted(FIRST);
                instances.publish_all(NOW);
                let a = port(instances, "a");
                ip("link set dev a down");
                ip("link set dev a name lan0");
                let link = instances.tools().links.by_index(a.0).unwrap().unwrap();
                plane.set_port(a, link.report.clone());
                if while_running {
                    instances.rename_ports(std::slice::from_ref(&link));
                    instances.on_port(NOW, FIRST, a, &link);
                    instances.settle(NOW);
                    assert_eq!(instances.bonds[0].wanted, ["lan0"]);
                    instances.publish_all(NOW);
                }
                let mut desk = next_agent(plane, dir);
                let mut next = change(&mut desk);
                next.start(NOW, &[spec("mode=1", &["a"])], &[]).unwrap();
                assert_eq!(next.bonds[0].wanted, ["lan0"], "none is absent");
                assert!(next.bonds[0].bond.ports().get(a).is_some());
                let mut desk = next_agent(plane, dir);
                let mut next = change(&mut desk);
                next.start(NOW, &[spec("mode=1", &[])], &[]).unwrap();
                assert!(next.bonds[0].bond.ports().is_empty(), "it left the file");
                assert!(next.bonds[0].wanted.is_empty());
            },
        );
    }
}

#[test]
fn a_renamed_port_that_is_gone_has_its_name_in_the_file_again() {
    with_bond("port-renamed-gone", |instances, _, _| {
        instances.ensure(&spec("mode=1", &["a"]));
        instances.attach_all_wanted(FIRST);
        let a = port(instances, "a");
        let mut link = instances.tools().links.by_index(a.0).unwrap().unwrap();
        link.report.name = "lan0".to_owned();
        instances.rename_ports(std::slice::from_ref(&link));
        instances.on_port(NOW, FIRST, a, &link);
        instances.settle(NOW);
        instances.port_gone(NOW, FIRST, a);
        instances.ensure(&spec("mode=1", &["a"]));
        assert_eq!(instances.bonds[0].wanted, ["a"]);
    });
}

#[test]
fn a_port_that_another_program_took_out_is_no_longer_the_operators() {
    with_bond("taken", |instances, _, _| {
        attach(instances, "a").unwrap();
        assert!(instances.bonds[0].origins.operator_ports.contains("a"));
        let mut link = instances.tools().links.by_name("a").unwrap().unwrap();
        let (a, b) = (PortId(link.ifindex), port(instances, "b").0);
        link.master = Some(b);
        instances.host.changed(link);
        // The script's bond is no interface.
        instances.bonds[0].ifindex = b;
        instances.on_taken_away(FIRST, a, "a");
        instances.settle(NOW);
        assert_eq!(instances.bonds[0].origins.operator_ports, [].into());
        assert_eq!(instances.bonds[0].wanted, [""; 0]);
    });
}

#[test]
fn the_file_of_a_bond_that_is_not_there_is_followed_once() {
    with_bond("follow-once", |instances, plane, _| {
        instances.remove(FIRST).unwrap();
        plane.fail_at(0, refusal());
        instances.ensure(&spec("mode=1", &[]));
        assert!(instances.has_unadopted());
        plane.take_calls();
        // The first call looks for it.
        plane.fail_at(1, refusal());
        let due = instances.adopt_timeout().unwrap();
        instances.handle_timeout(due);
        instances.settle(due);
        let calls = plane.take_calls().into_iter();
        assert_eq!(calls.filter(|call| matches!(call, script::Call::Adopt(..))).count(), 1);
    });
}

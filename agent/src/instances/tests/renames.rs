//! Interfaces that got other names, also each other's.

use std::fs;
use std::time::Duration;

use bond_modes::PortId;

use super::super::table::FIRST;
use super::adoption::{disguise, make_interface, next_agent, original, port, spec};
use super::change;
use super::{Change, Tests};
use super::{NOW, attach, with_bond};
use crate::dataplane::script::ScriptPlane;
use crate::netlink::tests::ip;
use crate::saved::replace::tests::watch;

fn exchange(one: &str, other: &str) {
    for name in [one, other] {
        ip(&format!("link set dev {name} down"));
    }
    for (old, new) in [(one, "between"), (other, one), ("between", other)] {
        ip(&format!("link set dev {old} name {new}"));
    }
}

#[test]
fn ports_that_exchanged_their_names_are_still_wanted_once_each() {
    for overrun in [true, false] {
        with_bond(&format!("ports-exchanged-{overrun}"), move |instances, _, _| {
            make_interface(instances, "bond0");
            attach(instances, "a").unwrap();
            instances.ensure(&spec("mode=1", &["b"]));
            instances.attach_all_wanted(FIRST);
            let ports = ["a", "b"].map(|name| port(instances, name));
            instances.read_links(NOW, 1024);
            instances.settle(NOW);
            exchange("a", "b");
            match overrun {
                true => instances.resync(),
                false => drop(instances.read_links(NOW, 1024)),
            }
            let instance = &instances.bonds[0];
            assert_eq!(instance.wanted, ["b", "a"]);
            assert_eq!(instance.origins.operator_ports, ["b".to_owned()].into());
            assert_eq!(instance.origins.present_name("b"), "a");
            let names = ports.map(|port| instance.bond.ports().name(port).unwrap().to_string());
            assert_eq!(names, ["b", "a"]);
        });
    }
}

#[test]
fn a_port_that_gets_the_name_of_an_absent_one_is_wanted_once() {
    with_bond("name-of-absent", |instances, _, _| {
        attach(instances, "a").unwrap();
        instances.bonds[0].wanted.push("c".to_owned());
        let a = port(instances, "a");
        let mut link = instances.tools().links.by_index(a.0).unwrap().unwrap();
        link.report.name = "c".to_owned();
        instances.rename_ports(&[link]);
        assert_eq!(instances.bonds[0].wanted, ["c"]);
    });
}

/// Makes `bond1`, interfaces for it and `bond0`, and attaches `a` to this and `b` to that.
fn two_bonds(instances: &mut Change<'_>) -> [PortId; 2] {
    instances.add("bond1", &[("mode".to_owned(), "1".to_owned())]).unwrap();
    for (at, wire) in ["wire8", "wire9"].into_iter().enumerate() {
        let (name, index) = (&instances.bonds[at].name, instances.bonds[at].ifindex);
        ip(&format!("link add {name} index {index} type veth peer name {wire}"));
    }
    for (at, name) in ["a", "b"].into_iter().enumerate() {
        let link = instances.tools().links.by_name(name).unwrap().unwrap();
        let id = instances.bonds.ids()[at];
        instances.attach(id, &link).unwrap();
        instances.bonds[at].wanted.push(name.to_owned());
    }
    instances.publish_all(NOW);
    ["a", "b"].map(|name| port(instances, name))
}

/// Names and ports of the saved states, by interface.
fn saved(instances: &mut Change<'_>) -> Vec<(String, Vec<PortId>)> {
    let states = instances.store.load(&mut Tests).unwrap().states.into_iter();
    states
        .map(|state| (state.name, state.originals.into_keys().collect()))
        .collect()
}

fn held(instances: &Change<'_>) -> Vec<(String, Vec<PortId>)> {
    let mut bonds: Vec<_> = instances.bonds.iter().collect();
    bonds.sort_by_key(|instance| instance.ifindex);
    bonds
        .into_iter()
        .map(|instance| (instance.name.clone(), instance.originals.keys().copied().collect()))
        .collect()
}

fn exchange_bonds(plane: &ScriptPlane) {
    exchange("bond0", "bond1");
    plane.exchange("bond0", "bond1");
}

#[test]
fn bonds_that_exchange_their_names_while_the_agent_runs_have_a_state_each_at_any_time() {
    for overrun in [true, false] {
        with_bond(&format!("bonds-exchanged-{overrun}"), move |instances, plane, dir| {
            let [a, b] = two_bonds(instances);
            instances.read_links(NOW, 1024);
            instances.settle(NOW);
            exchange_bonds(plane);
            let exchanged = [("bond1".to_owned(), vec![a]), ("bond0".to_owned(), vec![b])];
            if overrun {
                instances.resync();
                instances.settle(NOW);
            } else {
                for at in instances.bonds.ids() {
                    instances.on_bond_device(NOW, at);
                    instances.publish_all(NOW);
                    assert_eq!(saved(instances).len(), 2, "after {at:?}");
                }
            }
            let later = NOW + Duration::from_secs(1);
            instances.publish_all(later);
            assert_eq!(held(instances), exchanged);
            assert_eq!(saved(instances), exchanged);
            for name in ["bond0", "bond1"] {
                assert!(dir.join("proc/net/bonding").join(name).exists(), "{name}");
            }
            assert_eq!(fs::read_dir(dir.join("state")).unwrap().count(), 2);
        });
    }
}

#[test]
fn bonds_that_were_read_while_they_exchanged_their_names_never_have_the_same_name_and_keep_their_files() {
    for caught in ["bond0", "bond1"] {
        with_bond(&format!("bonds-caught-{caught}"), move |instances, plane, dir| {
            let [a, b] = two_bonds(instances);
            instances.read_links(NOW, 1024);
            instances.settle(NOW);
            exchange_bonds(plane);
            let both = instances.bonds.ids();
            let names = both.iter().map(|at| (*at, caught.to_owned())).collect();
            instances.on_names_seen(both.iter().copied().collect(), names);
            let named: Vec<String> = held(instances).into_iter().map(|(name, _)| name).collect();
            assert_ne!(named[0], named[1]);
            instances.publish_all(NOW);
            for at in both {
                instances.on_bond_device(NOW, at);
            }
            instances.publish_all(NOW + Duration::from_secs(1));
            let exchanged = [("bond1".to_owned(), vec![a]), ("bond0".to_owned(), vec![b])];
            assert_eq!(held(instances), exchanged);
            assert_eq!(saved(instances), exchanged);
            for name in ["bond0", "bond1"] {
                assert!(dir.join("proc/net/bonding").join(name).exists(), "{name}");
            }
        });
    }
}

#[test]
fn bonds_that_exchanged_their_names_while_no_agent_ran_lose_no_state() {
    with_bond("bonds-exchanged-meanwhile", |instances, plane, dir| {
        let [a, b] = two_bonds(instances);
        exchange_bonds(plane);
        let exchanged = [("bond1".to_owned(), vec![a]), ("bond0".to_owned(), vec![b])];
        // The second one cannot be adopted at once: if the agent ends before that, its state is still there.
        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        plane.set_unadoptable(Some("bond0"));
        next.start(NOW, &[], &[]).unwrap();
        assert!(next.has_unadopted() && next.bonds.len() == 1);
        assert_eq!(saved(&mut next).len(), 2);
        plane.set_unadoptable(None);
        let mut desk = next_agent(plane, dir);
        let mut last = change(&mut desk);
        last.start(NOW, &[], &[]).unwrap();
        assert_eq!(held(&last), exchanged);
        assert_eq!(saved(&mut last), exchanged);
        let due = next.poll_timeout().unwrap();
        next.handle_timeout(due);
        next.settle(due);
        next.publish_all(NOW);
        assert_eq!(held(&next), exchanged);
        assert_eq!(fs::read_dir(dir.join("state")).unwrap().count(), 2);
    });
}

#[test]
fn no_disk_is_asked_before_all_bonds_are_taken_over_also_if_they_have_other_names() {
    with_bond("bonds-exchanged-slow-disk", |instances, plane, dir| {
        let [a, b] = two_bonds(instances);
        exchange_bonds(plane);
        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        next.at(NOW).begin_start(&[], &[]).unwrap();
        watch(Some(Box::new(|| panic!("the disk was asked"))));
        while next.has_unadopted() {
            next.settle(NOW);
            next.next_step();
            next.publish(NOW);
        }
        watch(None);
        next.finish_start(NOW);
        let exchanged = [("bond1".to_owned(), vec![a]), ("bond0".to_owned(), vec![b])];
        assert_eq!(held(&next), exchanged);
        assert_eq!(saved(&mut next), exchanged);
        assert_eq!(fs::read_dir(dir.join("state")).unwrap().count(), 2);
    });
}

#[test]
fn a_renamed_bond_whose_state_cannot_be_read_at_once_is_adopted_once_with_its_state() {
    for named_by_file in [true, false] {
        with_bond(
            &format!("unread-renamed-{named_by_file}"),
            move |instances, plane, dir| {
                attach(instances, "a").unwrap();
                instances.publish_all(NOW);
                let before = original(instances);
                let a = port(instances, "a");
                disguise(instances, a);
                make_interface(instances, "bond9");
                instances.bonds[0]
                    .plane
                    .with(&mut Tests, |plane| plane.renamed("bond9"));
                let (file, aside) = (dir.join("state/bond0.json"), dir.join("aside"));
                fs::rename(&file, &aside).unwrap();
                fs::create_dir(&file).unwrap();
                let mut desk = next_agent(plane, dir);
                let mut next = change(&mut desk);
                let mut specs = vec![spec("mode=1 miimon=100", &[])];
                specs[0].name = "bond9".to_owned();
                specs.truncate(usize::from(named_by_file));
                next.start(NOW, &specs, &[]).unwrap();
                assert!(next.bonds.is_empty() && next.has_unadopted());
                fs::remove_dir(&file).unwrap();
                fs::rename(&aside, &file).unwrap();
                while next.has_unadopted() {
                    let due = next.poll_timeout().unwrap();
                    next.handle_timeout(due);
                    next.settle(due);
                }
                assert_eq!(next.bonds.len(), 1);
                assert_eq!((next.bonds[0].name.as_str(), original(&next)), ("bond9", before));
                assert_eq!(next.bonds[0].configured.is_some(), named_by_file);
            },
        );
    }
}

#[test]
fn a_state_that_cannot_be_read_is_not_overwritten_by_the_bond_that_has_its_name_now() {
    with_bond("unread-exchanged", |instances, plane, dir| {
        let [a, b] = two_bonds(instances);
        exchange_bonds(plane);
        let (file, aside) = (dir.join("state/bond0.json"), dir.join("aside"));
        fs::rename(&file, &aside).unwrap();
        fs::create_dir(&file).unwrap();
        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        next.start(NOW, &[], &[]).unwrap();
        assert_eq!(held(&next), [("bond0".to_owned(), vec![b])]);
        let moved = dir.join("state/bond0:0.json");
        fs::remove_dir(&moved).unwrap();
        fs::rename(&aside, &moved).unwrap();
        while next.has_unadopted() {
            let due = next.poll_timeout().unwrap();
            next.handle_timeout(due);
            next.settle(due);
        }
        let exchanged = [("bond1".to_owned(), vec![a]), ("bond0".to_owned(), vec![b])];
        assert_eq!(held(&next), exchanged);
        next.publish_all(NOW);
        assert_eq!(saved(&mut next), exchanged);
    });
}

#[test]
fn a_state_that_stays_unreadable_counts_as_lost_after_seconds_and_keeps_no_other_bond_waiting() {
    with_bond("unread-for-good", |instances, plane, dir| {
        let [a, b] = two_bonds(instances);
        let [first, second] = ["bond0", "bond1"].map(|bond| dir.join(format!("state/{bond}.json")));
        fs::remove_file(&first).unwrap();
        fs::create_dir(&first).unwrap();
        fs::remove_file(&second).unwrap();
        let mut desk = next_agent(plane, dir);
        let mut next = change(&mut desk);
        next.start(NOW, &[], &[]).unwrap();
        assert_eq!(held(&next), [("bond1".to_owned(), vec![b])]);
        let mut due = NOW;
        while next.has_unadopted() {
            assert!(due.since(NOW) < Duration::from_secs(3));
            due = next.adopt_timeout().unwrap();
            next.handle_timeout(due);
            next.settle(due);
        }
        let both = [("bond0".to_owned(), vec![a]), ("bond1".to_owned(), vec![b])];
        assert_eq!(held(&next), both);
        next.publish_all(due);
        assert!(dir.join("state/bond0.unreadable").is_dir() && first.is_file());
    });
}

//! Bonds of the option files that cannot be made at once.

use std::io;
use std::time::Duration;

use super::adoption::{make_interface_with, spec};
use super::{Change, NOW, with_bond};
use crate::control::proto::{Call, ErrorCode, Report};
use crate::dataplane::script::ScriptPlane;
use crate::netlink::tests::ip;

/// A start with a file of `bond0`, which is there, and of `bond1`, which cannot be made.
fn with_unmade(name: &str, body: impl FnOnce(&mut Change<'_>, &ScriptPlane) + Send + 'static) {
    with_bond(name, |instances, plane, _| {
        // Else a bond of the script is gone as soon as interfaces are read.
        let first = instances.bonds[0].ifindex;
        make_interface_with("bond0", first);
        plane.set_unmakable(Some("bond1"));
        let mut other = spec("mode=1 miimon=100", &["a"]);
        other.name = "bond1".to_owned();
        instances.start_over(&[other, spec("mode=1 miimon=100", &[])]);
        body(instances, plane);
    });
}

/// What `show` says of all bonds.
fn report(instances: &mut Change<'_>) -> Report {
    let now = instances.now();
    let text = instances.show(now, None).unwrap().finish();
    serde_json::from_str(&text).unwrap()
}

/// Lets the next attempt to make a bond be due, and made.
fn try_again(instances: &mut Change<'_>) -> Duration {
    let due = instances.make_timeout().unwrap();
    let pause = due.since(instances.now());
    instances.handle_timeout(due);
    pause
}

fn call(instances: &mut Change<'_>, call: Call) -> Result<(), ErrorCode> {
    instances.call(&call).map(drop).map_err(|error| error.code)
}

#[test]
fn a_bond_of_the_files_that_cannot_be_made_is_shown_with_its_reason_until_it_is_made() {
    with_unmade("unmade", |instances, plane| {
        assert!(instances.has_started() && !instances.has_unadopted());
        assert!(
            instances
                .bonds
                .named("bond0")
                .is_some_and(|at| instances.bonds[at].configured.is_some())
        );
        let pauses: Vec<u64> = (0..3).map(|_| try_again(instances).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4]);
        let all = report(instances);
        let [waiting] = &all.waiting[..] else { panic!("{all:?}") };
        assert_eq!(
            (waiting.name.as_str(), waiting.unmade, waiting.starting),
            ("bond1", true, false)
        );
        assert_eq!(waiting.why, io::Error::from(io::ErrorKind::ResourceBusy).to_string());
        assert_eq!((waiting.since_ms, waiting.next_attempt_ms), (Some(7_000), 8_000));
        let unknown = instances.find("bond1").unwrap_err();
        assert_eq!(unknown.code, ErrorCode::NoSuchBond);
        let why = format!("is not made yet, bondd tries again: {}", waiting.why);
        assert!(unknown.message.contains(&why), "{unknown}");
        let listed = instances.answer(&Call::List {}).unwrap();
        assert_eq!(listed, serde_json::json!(["bond0"]), "a client may add it");

        plane.set_unmakable(None);
        let next = instances.bonds[0].ifindex + 1;
        ip(&format!("link add bond1 index {next} type veth peer name wire8"));
        try_again(instances);
        let at = instances.bonds.named("bond1").expect("it is made");
        let instance = &instances.bonds[at];
        assert!(instance.origins.made_by_file && instance.configured.is_some());
        assert!(instance.bond.ports().named("a").is_some(), "it has its port");
        assert!(report(instances).waiting.is_empty() && instances.make_timeout().is_none());
    });
}

#[test]
fn a_client_that_adds_or_deletes_a_bond_that_could_not_be_made_ends_the_attempts() {
    let add = || Call::Add {
        bond: "bond1".to_owned(),
        options: Vec::new(),
    };
    let del = || Call::Del {
        bond: "bond1".to_owned(),
    };
    with_unmade("unmade-add", move |instances, plane| {
        assert!(call(instances, add()).is_err());
        assert_eq!(report(instances).waiting.len(), 1, "a refused call changes nothing");
        plane.set_unmakable(None);
        call(instances, add()).unwrap();
        assert!(report(instances).waiting.is_empty() && instances.make_timeout().is_none());
    });
    with_unmade("unmade-del", move |instances, _| {
        call(instances, del()).unwrap();
        assert!(report(instances).waiting.is_empty() && instances.make_timeout().is_none());
        assert_eq!(call(instances, del()), Err(ErrorCode::NoSuchBond));
    });
}

#[test]
fn a_bond_that_is_renamed_to_that_of_the_files_stays_in_its_place() {
    with_unmade("unmade-renamed", |instances, _| {
        let at = instances.bonds.named("bond0").unwrap();
        instances.on_names_seen([at].into(), [(at, "bond1".to_owned())].into());
        assert!(report(instances).waiting.is_empty());
        assert_eq!(instances.make_timeout(), None);
        instances.settle(NOW);
    });
}

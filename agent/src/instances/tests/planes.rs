//! Limits of data planes, and how the agent reports them.

use std::time::Duration;

use bond_modes::options::{ModeName, millis};
use bond_modes::plan::Spread;
use bond_modes::{BondOptions, PortId, XmitHashPolicy};
use bond_monitors::MacAddr;

use super::super::forwarder::Forwarder;
use super::super::table::FIRST;
use super::Change;
use super::{NOW, attach, give_traffic, programs, refusal, with_bond};
use super::{Tests, change, desk};
use crate::control::proto::{Call, ErrorCode};
use crate::dataplane::script::{self, ScriptPlane};
use crate::dataplane::{PlanPart, PlaneChoice, PlaneError, Planes, Report};
use crate::instances::{Counters, check_options_on};
use crate::netlink::RouteSocket;
use crate::netlink::tests::ip;

#[test]
fn a_plan_that_nothing_will_bring_about_is_not_tried_again() {
    with_bond("retry", |instances, plane, _| {
        attach(instances, "a").unwrap();
        let kernel = |code| PlaneError::Kernel {
            doing: "do it".to_owned(),
            source: std::io::Error::from_raw_os_error(code),
        };
        let inexact = PlaneError::Inexact {
            plane: "script",
            what: "anything".to_owned(),
            why: "the test says so",
            other: "tc",
        };
        for (error, retried) in [
            (kernel(libc::EIO), true),
            (kernel(libc::EINVAL), false),
            (inexact, false),
        ] {
            plane.fail_at(0, error);
            plane.take_calls();
            instances.repair_now();
            instances.handle_timeout(NOW + Duration::from_secs(60));
            let programmed = |call: &&script::Call| matches!(call, script::Call::Program(..));
            let times = plane.take_calls().iter().filter(programmed).count();
            assert_eq!(times, if retried { 2 } else { 1 });
        }
    });
}

#[test]
fn the_traffic_moves_before_the_rest_of_a_plan_is_programmed() {
    with_bond("traffic", |instances, plane, _| {
        give_traffic(instances, plane);
        attach(instances, "a").unwrap();
        let calls_of = |instances: &mut Change<'_>, work: &dyn Fn(&mut Change<'_>)| {
            plane.take_calls();
            work(instances);
            let calls = plane.take_calls().into_iter();
            let kinds = calls.map(|call| match call {
                script::Call::Follow(..) => "follow",
                script::Call::Program(..) => "program",
                script::Call::Heard(..) => "heard",
                _ => "other",
            });
            kinds.collect::<Vec<_>>()
        };
        let repair = |instances: &mut Change<'_>| instances.repair_now();
        let unfulfilled = |instances: &Change<'_>| instances.bonds[0].unfulfilled.report(NOW).len();
        assert_eq!(calls_of(instances, &repair), ["follow"], "nothing is left");
        plane.fail_part(PlanPart::Mac, refusal());
        assert_eq!(calls_of(instances, &repair), ["follow", "program"]);
        assert_eq!(unfulfilled(instances), 1);
        assert_eq!(calls_of(instances, &repair), ["follow"]);
        assert_eq!(unfulfilled(instances), 0);
        plane.fail_at(0, refusal());
        assert_eq!(calls_of(instances, &repair), ["follow"]);
        assert_eq!(unfulfilled(instances), 1);
        let later = |instances: &mut Change<'_>| instances.handle_timeout(NOW + Duration::from_secs(60));
        assert_eq!(calls_of(instances, &later), ["follow"], "it is tried again");
        let heard = |instances: &mut Change<'_>| drop(instances.read_receive_stamps(FIRST));
        assert_eq!(calls_of(instances, &heard), ["heard"]);
    });
}

#[test]
fn an_address_is_left_by_a_failed_plan_only_if_setting_it_failed() {
    with_bond("operator-mac", |instances, plane, _| {
        // The script's bond is no interface.
        ip("link add bond0 type veth peer name far");
        let bond0 = instances.tools().links.by_name("bond0").unwrap().unwrap().ifindex;
        instances.bonds[0].ifindex = bond0;
        let first = instances.bonds[0].bond.plan().mac;
        instances.tools().links.set_mac(bond0, first).unwrap();
        plane.fail_part(PlanPart::Mac, refusal());
        attach(instances, "a").unwrap();
        let of_port = instances.bonds[0].bond.plan().mac;
        assert_ne!(of_port, first);
        instances.on_bond_device(NOW, FIRST);
        assert_eq!(instances.bonds[0].bond.plan().mac, of_port);

        // Something fails, or the address itself, while the operator sets one, whose event is read afterwards.
        let port = instances.bonds[0].bond.ports().iter().next().unwrap().id;
        for (last, part) in [(1, PlanPart::Mtu(port)), (2, PlanPart::Mac)] {
            let operators = MacAddr([6, 0, 0, 0, 0, last]);
            instances.tools().links.set_mac(bond0, operators).unwrap();
            plane.fail_part(part, refusal());
            instances.repair_now();
            instances.on_bond_device(NOW, FIRST);
            assert_eq!(instances.bonds[0].bond.plan().mac, operators, "{part:?}");
        }
    });
}

#[test]
fn an_option_of_a_port_that_the_plane_cannot_do_exactly_changes_nothing() {
    with_bond("port-option", |instances, plane, _| {
        attach(instances, "a").unwrap();
        plane.cannot("queue_id");
        plane.take_calls();
        let mut set = |option: &str, value: &str| {
            let call = Call::PortSet {
                bond: "bond0".to_owned(),
                port: "a".to_owned(),
                options: vec![
                    ("prio".to_owned(), "7".to_owned()),
                    (option.to_owned(), value.to_owned()),
                ],
            };
            instances.call(&call)
        };
        let error = set("queue_id", "2").unwrap_err();
        assert_eq!(error.code, ErrorCode::Refused);
        assert!(
            error.message.contains("bond0: a: ") && error.message.contains("queue_id"),
            "{error}"
        );
        assert_eq!(set("queue_id", "17").unwrap_err().code, ErrorCode::BadValue);
        let port = instances.bonds[0].bond.ports().named("a").unwrap();
        assert_eq!((port.options.prio, port.options.queue_id), (0, 0));
        assert_eq!(plane.take_calls(), []);
    });
}

#[test]
fn a_bond_without_saved_state_stays_in_the_mode_it_is_in() {
    with_bond("orphan", |instances, plane, dir| {
        let options = [("mode", "2"), ("xmit_hash_policy", "layer3+4"), ("miimon", "100")];
        let options: Vec<_> = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        instances.set("bond0", &options).unwrap();
        let mut links = RouteSocket::open().unwrap();
        for name in ["a", "b"] {
            let link = links.by_name(name).unwrap().unwrap();
            links.set_up(link.ifindex, true).unwrap();
        }
        let up = links.by_name("a").unwrap().unwrap();
        plane.set_port(PortId(up.ifindex), up.report);
        attach(instances, "a").unwrap();
        let plan = plane.plan("bond0").unwrap();
        assert!(matches!(plan.tx.kind, Spread::Hash(_)), "{:?}", plan.tx);
        // As a plane does that keeps the mode of a bond with ports.
        plane.cannot("mode");
        for (asked, wanted) in [
            (None, ModeName::BalanceXor),
            (Some("1"), ModeName::BalanceXor),
            (Some("0"), ModeName::BalanceRr),
        ] {
            let mut desk = desk(&dir.join("next_agent"), vec![Box::new(plane.clone())]);
            let mut next_agent = change(&mut desk);
            let file = asked.map(|mode| [("mode".to_owned(), mode.to_owned())]);
            next_agent
                .adopt_orphan("bond0", file.as_ref().map(|pairs| &pairs[..]))
                .unwrap()
                .expect("the plane has it");
            let options = next_agent.bonds[0].bond.options();
            assert_eq!(options.mode, wanted, "{asked:?}");
            if wanted == ModeName::BalanceXor {
                assert_eq!(options.xmit_hash_policy, XmitHashPolicy::Layer34);
            }
        }
    });
}

#[test]
fn what_could_not_be_brought_about_is_reported_until_a_retry_does_it() {
    with_bond("unfulfilled", |instances, plane, _| {
        attach(instances, "a").unwrap();
        assert_eq!(instances.report(NOW, FIRST, Counters::Read).unfulfilled, []);
        let source = std::io::ErrorKind::ResourceBusy.into();
        let doing = "set the address of bond0".to_owned();
        plane.fail_at(0, PlaneError::Kernel { doing, source });
        instances.repair_now();
        let due = instances.poll_timeout().expect("it is tried again");
        let report = instances.report(due, FIRST, Counters::Read).unfulfilled;
        assert_eq!(report.len(), 1, "{report:?}");
        assert_eq!(
            (report[0].what.as_str(), report[0].why.as_str()),
            ("set the address of bond0", "resource busy")
        );
        assert_eq!(report[0].since_ms, millis(due.since(NOW)));
        let mut now = due;
        while !instances.report(now, FIRST, Counters::Read).unfulfilled.is_empty() {
            now = instances.poll_timeout().expect("it is tried again").max(now);
            assert!(now.since(NOW) < Duration::from_secs(5), "it was not tried again");
            instances.handle_timeout(now);
            instances.settle(now);
        }
    });
}

#[test]
fn what_the_team_driver_cannot_do_is_wrong_for_a_bond_that_insists_on_it() {
    let found = |choice, options: &str| -> Vec<(usize, String)> {
        let words = options.split(' ').map(|word| word.split_once('=').unwrap());
        let pairs: Vec<_> = words.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        check_options_on(choice, &pairs)
    };
    for (options, place) in [
        ("plane=team mode=balance-rr", 1),
        ("mode=0 miimon=100 plane=team", 0),
        ("mode=2 plane=team xmit_hash_policy=encap3+4", 2),
        ("mode=1 plane=team arp_interval=100 arp_ip_target=10.0.0.2", usize::MAX),
    ] {
        let wrong = found(PlaneChoice::Auto, options);
        assert_eq!(wrong.len(), 1, "{options}: {wrong:?}");
        assert_eq!(wrong[0].0, place, "{options}");
        assert!(wrong[0].1.contains("exactly on plane team"), "{wrong:?}");
        let elsewhere = options.replace("plane=team", "plane=tc");
        assert_eq!(found(PlaneChoice::Only("team"), &elsewhere), [], "{elsewhere}");
    }
    assert_eq!(found(PlaneChoice::Only("team"), "mode=0").len(), 1, "the default plane");
    assert_eq!(found(PlaneChoice::Auto, "mode=0"), []);
    assert_eq!(found(PlaneChoice::Auto, "mode=1 plane=team"), []);
    let twice = found(PlaneChoice::Auto, "mode=0 miimon=x plane=team");
    assert!(
        matches!(&twice[..], [(1, error)] if error.contains("miimon")),
        "{twice:?}"
    );
}

#[test]
fn a_change_by_others_is_put_back_whichever_plane_reports_it() {
    with_bond("watch", |instances, plane, _| {
        // A plane that reports changes of its own bonds, before the one that the bond is on.
        let other = ScriptPlane::named("other");
        other.change_by_others(1);
        let mut planes = Planes::new(vec![Box::new(other.clone()), Box::new(plane.clone())]);
        let device = instances.bonds[0].ifindex;
        plane.change_by_others(device);
        instances.watches = planes.watches();
        assert_eq!(instances.plane_events().len(), 2);
        plane.take_calls();
        let mut put_back = || {
            instances.read_planes(crate::clock::now(), 8);
            instances.settle(NOW);
            programs(plane)
        };
        assert_eq!(put_back(), 1);
        assert_eq!(put_back(), 0, "nothing was changed since");
        plane.report(script::settings_of(device));
        assert_eq!(put_back(), 0, "a report of what the agent has set");
        plane.change_by_others_unheard(device);
        plane.report(script::settings_of(device + 1));
        other.report(Report::Lost);
        assert_eq!(put_back(), 0, "nothing was said about this bond");
        plane.report(Report::Lost);
        assert_eq!(put_back(), 1, "it may be among what was lost");
        plane.change_by_others(device);
        (0..200).for_each(|_| plane.report(script::settings_of(device)));
        assert_eq!(put_back(), 1, "one change in many reports");
    });
}

#[test]
fn reports_that_pile_up_while_the_kernel_keeps_its_thread_waiting_are_judged_by_the_kernel() {
    let plane = ScriptPlane::default();
    let (bond, device) = Planes::new(vec![Box::new(plane.clone())])
        .create("bond0", PlaneChoice::Auto, &BondOptions::default())
        .unwrap();
    let forwarder = Forwarder::new(bond);
    let asked = (0..1000).filter(|_| forwarder.take_report(script::settings_of(device.ifindex)));
    assert_eq!(asked.count(), 1, "one question for all of them");
    forwarder.is_changed_by_others(&mut Tests);
    let judged = plane.take_judged();
    assert!(judged.len() < 100 && judged[0] == Report::Lost, "{}", judged.len());
    assert!(
        forwarder.take_report(Report::Lost),
        "what comes later is another question"
    );
}

#[test]
fn an_examination_needs_none_of_the_planes() {
    with_bond("examined", |instances, plane, _| {
        plane.cannot("packets_per_slave");
        instances.tools().planes = Planes::new(Vec::new());
        for (several, exact) in [("1", true), ("3", false)] {
            let pairs = [("mode", "0"), ("packets_per_slave", several)];
            let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
            instances.examine(&pairs.into()).unwrap();
            instances.settle(NOW);
            let found = instances.take_examined().unwrap();
            assert_eq!(found["planes"][0]["exact"], exact, "{found}");
        }
    });
}

#[test]
fn a_bond_on_a_plane_that_this_agent_has_not_is_left_as_it_is() {
    with_bond("unknown-plane", |instances, plane, dir| {
        attach(instances, "a").unwrap();
        instances.publish_all(NOW);
        plane.take_calls();
        let other = ScriptPlane::named("other");
        let mut desk = desk(dir, vec![Box::new(other.clone())]);
        let mut next_agent = change(&mut desk);
        next_agent.start(NOW, &[], &[]).unwrap();
        assert!(next_agent.planes_in_use().is_empty());
        assert_eq!(other.take_calls(), [script::Call::Bonds, script::Call::Probe]);
        let saved = next_agent.store.load(&mut Tests).unwrap().states;
        assert_eq!(
            (saved.len(), saved[0].originals.len()),
            (1, 1),
            "for an agent that has it"
        );
    });
}

//! Failures of the world, on a data plane that fails when told to.

use std::fs;
use std::time::Duration;

use bond_modes::options::{ModeName, millis};
use bond_modes::{Event, PortId, Reach, Spread, TargetPath, TxPolicy, XmitHashPolicy};
use bond_monitors::Time;
use bond_monitors::wire::ethernet::Tag;

use super::{Counters, Fleet, PUBLISHED_A_TURN, above, check_options, check_options_on};
use crate::config;
use crate::control::proto::{Call, ErrorCode};
use crate::dataplane::script::{self, ScriptPlane};
use crate::dataplane::{PlaneChoice, PlaneError};
use crate::netlink::tests::{asks, in_netns, ip};
use crate::netlink::{Link, LinkEvent, Links};

const NOW: Time = Time::ZERO;

/// A fleet with `bond0` in a namespace with the interfaces `a` and `b`; its data plane and its run directory.
fn with_bond(name: &str, body: impl FnOnce(&mut Fleet, &ScriptPlane, &std::path::Path) + Send + 'static) {
    let dir = std::env::temp_dir().join(format!("bondd-fleet-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    in_netns(move || {
        let plane = ScriptPlane::default();
        let mut links = Links::open().unwrap();
        links.add_veth("a", "b").unwrap();
        let registry = mio::Poll::new().and_then(|poll| poll.registry().try_clone()).unwrap();
        let mut fleet = Fleet::new(&dir, registry, Box::new(plane.clone())).unwrap();
        for name in ["a", "b"] {
            let link = links.by_name(name).unwrap().unwrap();
            plane.set_port(PortId(link.ifindex), link.report);
        }
        fleet.add(NOW, "bond0", &[("mode".to_owned(), "1".to_owned())]).unwrap();
        body(&mut fleet, &plane, &dir);
        fs::remove_dir_all(&dir).unwrap();
    });
}

fn attach(fleet: &mut Fleet, port: &str) -> Result<serde_json::Value, crate::control::proto::ControlError> {
    fleet.call(
        NOW,
        &Call::PortAttach {
            bond: "bond0".to_owned(),
            port: port.to_owned(),
        },
    )
}

#[test]
fn a_bond_that_cannot_be_deleted_is_told_and_forgotten_with_its_ports() {
    with_bond("destroy", |fleet, plane, _| {
        attach(fleet, "a").unwrap();
        let source = std::io::ErrorKind::ResourceBusy.into();
        let doing = "delete the interface bond0".to_owned();
        // The first call gives the port back.
        plane.fail_at(1, PlaneError::Kernel { doing, source });
        let bond = "bond0".to_owned();
        let error = fleet.call(NOW, &Call::Del { bond }).unwrap_err();
        assert!(error.message.contains("delete the interface"), "{error}");
        assert!(fleet.is_empty());
    });
}

#[test]
fn a_bond_whose_file_was_not_read_stays_and_one_whose_file_does_not_name_it_goes() {
    with_bond("files", |fleet, _, dir| {
        let file = dir.join("bonds.conf");
        fs::write(&file, "").unwrap();
        let source = config::Source {
            path: file.clone(),
            text: "alias bond1 bonding\noptions bond1 mode=1\nalias bond0 bonding\noptions bond0 mode=1\n".to_owned(),
            grammar: config::Grammar::Own,
        };
        let parsed = config::parse(&[source], &config::NoFiles, &check_options);
        for spec in &parsed.bonds {
            fleet.ensure(NOW, spec);
        }
        let names = |fleet: &Fleet| fleet.bonds.iter().map(|member| member.name.clone()).collect::<Vec<_>>();
        fleet.leave_behind(NOW, &parsed.bonds, &parsed.files);
        fleet.leave_behind(NOW, &[], &[]);
        assert_eq!(names(fleet), ["bond0", "bond1"], "the file is there and was not read");
        fleet.leave_behind(NOW, &[], &parsed.files);
        assert_eq!(names(fleet), ["bond0"], "no file made bond0");
        assert_eq!(fleet.bonds[0].configured, None);
    });
}

#[test]
fn a_plan_that_nothing_will_bring_about_is_not_tried_again() {
    with_bond("retry", |fleet, plane, _| {
        attach(fleet, "a").unwrap();
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
            fleet.repair(NOW, 0);
            fleet.handle_timeout(NOW + Duration::from_secs(60));
            let programmed = |call: &&script::Call| matches!(call, script::Call::Program(..));
            let times = plane.take_calls().iter().filter(programmed).count();
            assert_eq!(times, if retried { 2 } else { 1 });
        }
    });
}

#[test]
fn a_bond_that_was_left_to_others_is_programmed_when_that_is_over() {
    with_bond("rest", |fleet, plane, _| {
        let until = NOW + Duration::from_secs(60);
        plane.leave_alone("bond0", until);
        assert_eq!(fleet.poll_timeout(), Some(until));
        plane.take_calls();
        fleet.handle_timeout(until);
        let plan = fleet.bonds[0].bond.plan().clone();
        assert_eq!(plane.take_calls(), [script::Call::Program("bond0".to_owned(), plan)]);
        assert_ne!(fleet.poll_timeout(), Some(until));
    });
}

#[test]
fn an_option_of_a_port_that_the_plane_cannot_do_exactly_changes_nothing() {
    with_bond("port-option", |fleet, plane, _| {
        attach(fleet, "a").unwrap();
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
            fleet.call(NOW, &call)
        };
        let error = set("queue_id", "2").unwrap_err();
        assert_eq!(error.code, ErrorCode::Refused);
        assert!(
            error.message.contains("bond0: a: ") && error.message.contains("queue_id"),
            "{error}"
        );
        assert_eq!(set("queue_id", "17").unwrap_err().code, ErrorCode::BadValue);
        let port = fleet.bonds[0].bond.ports().named("a").unwrap();
        assert_eq!((port.options.prio, port.options.queue_id), (0, 0));
        assert_eq!(plane.take_calls(), []);
    });
}

#[test]
fn a_bond_without_saved_state_stays_in_the_mode_it_is_in() {
    with_bond("orphan", |fleet, plane, dir| {
        let options = [("mode", "2"), ("xmit_hash_policy", "layer3+4"), ("miimon", "100")];
        let options: Vec<_> = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        fleet.set(NOW, "bond0", &options).unwrap();
        let mut links = Links::open().unwrap();
        for name in ["a", "b"] {
            let link = links.by_name(name).unwrap().unwrap();
            links.set_up(link.ifindex, true).unwrap();
        }
        let up = links.by_name("a").unwrap().unwrap();
        plane.set_port(PortId(up.ifindex), up.report);
        attach(fleet, "a").unwrap();
        let plan = plane.plan("bond0").unwrap();
        assert_eq!(plan.spread, Spread::Hash);
        assert!(matches!(plan.tx, TxPolicy::Hash { .. }), "{:?}", plan.tx);
        // As a plane does that keeps the mode of a bond with ports.
        plane.cannot("mode");
        for (asked, wanted) in [
            (None, ModeName::BalanceXor),
            (Some("1"), ModeName::BalanceXor),
            (Some("0"), ModeName::BalanceRr),
        ] {
            let registry = mio::Poll::new().and_then(|poll| poll.registry().try_clone()).unwrap();
            let mut heir = Fleet::new(&dir.join("heir"), registry, Box::new(plane.clone())).unwrap();
            let file = asked.map(|mode| [("mode".to_owned(), mode.to_owned())]);
            heir.adopt_orphan(NOW, "bond0", file.as_ref().map(|pairs| &pairs[..]))
                .unwrap();
            let options = heir.bonds[0].bond.options();
            assert_eq!(options.mode, wanted, "{asked:?}");
            if wanted == ModeName::BalanceXor {
                assert_eq!(options.xmit_hash_policy, XmitHashPolicy::Layer34);
            }
        }
    });
}

#[test]
fn a_port_is_not_taken_in_unless_what_it_was_is_saved() {
    with_bond("save", |fleet, plane, dir| {
        let file = dir.join("state/bond0.json");
        fs::create_dir_all(file.join("in the way")).unwrap();
        let error = attach(fleet, "a").unwrap_err();
        assert!(error.message.contains("cannot save"), "{error}");
        assert!(plane.plan("bond0").unwrap().ports.is_empty());
        fs::remove_dir_all(&file).unwrap();
        attach(fleet, "a").unwrap();
    });
}

#[test]
fn a_question_that_fails_changes_nothing_about_how_targets_are_reached() {
    with_bond("paths", |fleet, _, _| {
        // The script's bond is no interface.
        ip("link set dev a up");
        ip("addr add 10.0.0.1/24 dev a");
        fleet.bonds[0].ifindex = fleet.links.by_name("a").unwrap().unwrap().ifindex;
        let targets = ["10.0.0.2".parse().unwrap()];
        // Links, addresses, route.
        for question in 0..3 {
            asks::fail_at(question);
            assert_eq!(fleet.find_paths(0, &targets), None, "{question}");
        }
        let found = fleet.find_paths(0, &targets);
        let through = |path: &TargetPath| matches!(&path.reach, Reach::Through { source, .. } if source.is_some());
        assert!(
            matches!(&found, Some(Event::Paths { paths }) if paths.iter().all(through)),
            "{found:?}"
        );
    });
}

#[test]
fn a_port_that_cannot_be_read_hides_none_of_the_others() {
    with_bond("heard", |fleet, plane, _| {
        attach(fleet, "a").unwrap();
        attach(fleet, "b").unwrap();
        let source = std::io::ErrorKind::NotFound.into();
        let doing = "read the stamps".to_owned();
        plane.fail_at(0, PlaneError::Kernel { doing, source });
        let second = PortId(fleet.links.by_name("b").unwrap().unwrap().ifindex);
        let told = |event| match event {
            Event::Heard { ports } => ports.into_iter().map(|(port, _)| port).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(told(fleet.read_heard(0)), [second]);
        assert_eq!(told(fleet.read_heard(0)).len(), 2);

        let doing = "read the counters".to_owned();
        let source = std::io::ErrorKind::NotFound.into();
        plane.fail_at(0, PlaneError::Kernel { doing, source });
        let ports = fleet.report(NOW, 0, Counters::Read).ports;
        let counted: Vec<_> = ports
            .iter()
            .map(|port| port.counters.map(|counters| counters.rx_frames))
            .collect();
        assert_eq!(counted, [None, Some(0)], "null where unknown");
    });
}

#[test]
fn what_could_not_be_brought_about_is_reported_until_a_retry_does_it() {
    with_bond("unfulfilled", |fleet, plane, _| {
        attach(fleet, "a").unwrap();
        assert_eq!(fleet.report(NOW, 0, Counters::Read).unfulfilled, []);
        let source = std::io::ErrorKind::ResourceBusy.into();
        let doing = "set the address of bond0".to_owned();
        plane.fail_at(0, PlaneError::Kernel { doing, source });
        fleet.repair(NOW, 0);
        let due = fleet.poll_timeout().expect("it is tried again");
        let report = fleet.report(due, 0, Counters::Read).unfulfilled;
        assert_eq!(report.len(), 1, "{report:?}");
        assert_eq!(
            (report[0].what.as_str(), report[0].why.as_str()),
            ("set the address of bond0", "resource busy")
        );
        assert_eq!(report[0].since_ms, millis(due.since(NOW)));
        let mut now = due;
        while !fleet.report(now, 0, Counters::Read).unfulfilled.is_empty() {
            now = fleet.poll_timeout().expect("it is tried again").max(now);
            assert!(now.since(NOW) < Duration::from_secs(5), "it was not tried again");
            fleet.handle_timeout(now);
        }
    });
}

#[test]
fn addresses_are_read_once_for_all_news_and_again_after_a_failure() {
    with_bond("addresses", |fleet, _, _| {
        let ifindex = fleet.links.by_name("a").unwrap().unwrap().ifindex;
        fleet.bonds[0].announced = vec![ifindex];
        let mut asked_for = |news: usize| {
            fleet
                .news
                .extend((0..news).map(|_| LinkEvent::AddressesChanged { ifindex }));
            let before = asks::made();
            fleet.read_links(NOW, 64);
            asks::made() - before
        };
        // Links and addresses.
        assert_eq!(asked_for(50), 2);
        assert_eq!(asked_for(0), 0);
        asks::fail_at(1);
        assert_eq!(asked_for(1), 2);
        assert_eq!(asked_for(0), 2, "tried again");
        assert_eq!(asked_for(0), 0);
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
        assert!(wrong[0].1.contains("team plane cannot do"), "{wrong:?}");
        let elsewhere = options.replace("plane=team", "plane=tc");
        assert_eq!(found(PlaneChoice::Team, &elsewhere), [], "{elsewhere}");
    }
    assert_eq!(found(PlaneChoice::Team, "mode=0").len(), 1, "the default plane");
    assert_eq!(found(PlaneChoice::Auto, "mode=0"), []);
    assert_eq!(found(PlaneChoice::Auto, "mode=1 plane=team"), []);
    let twice = found(PlaneChoice::Auto, "mode=0 miimon=x plane=team");
    assert!(
        matches!(&twice[..], [(1, error)] if error.contains("miimon")),
        "{twice:?}"
    );
}

#[test]
fn what_is_above_a_bond_is_found_at_any_depth_with_its_tags() {
    in_netns(|| {
        let mut links = Links::open().unwrap();
        links.add_veth("a", "b").unwrap();
        let made = links.by_name("a").unwrap().unwrap();
        let link = |ifindex, kind: &str, below: Option<u32>, master, vlan| Link {
            ifindex,
            kind: Some(kind.to_owned()),
            peer: below,
            master,
            vlan,
            ..made.clone()
        };
        let (outer, inner) = (Tag::s(7), Tag::c(8));
        let all = [
            link(1, "veth", Some(2), Some(3), None),
            link(2, "veth", Some(1), None, None),
            link(3, "bridge", None, None, None),
            link(4, "vlan", Some(3), Some(5), Some(outer)),
            link(5, "bridge", None, None, None),
            link(6, "vlan", Some(5), None, Some(inner)),
            link(9, "vxlan", Some(1), None, None),
        ];
        let found = |through| -> Vec<_> {
            let above = above(&all, &all[0], through).into_iter();
            above.map(|(link, tags)| (link.ifindex, tags)).collect()
        };
        let mut wanted = vec![
            (1, vec![]),
            (3, vec![]),
            (4, vec![outer]),
            (5, vec![outer]),
            (6, vec![outer, inner]),
        ];
        assert_eq!(found(|link| link.kind.as_deref() != Some("vxlan")), wanted);
        wanted.insert(2, (9, vec![]));
        assert_eq!(found(|_| true), wanted);
    });
}

#[test]
fn a_turn_publishes_some_bonds_and_none_is_passed_over() {
    with_bond("publish", |fleet, _, _| {
        let bonds = 2 * PUBLISHED_A_TURN + 3;
        for number in 1..bonds {
            fleet.add(NOW, &format!("bond{number}"), &[]).unwrap();
        }
        fleet.publish_all(NOW);
        assert!(!fleet.has_unpublished());

        fleet.bonds.iter_mut().for_each(|member| member.dirty = true);
        let mut left = bonds;
        while fleet.has_unpublished() {
            fleet.publish(NOW);
            let dirty = fleet.bonds.iter().filter(|member| member.dirty).count();
            assert_eq!(left - dirty, left.min(PUBLISHED_A_TURN));
            left = dirty;
        }

        // The first ones change again and again, the last one once.
        let last = bonds - 1;
        fleet.bonds[last].dirty = true;
        let turns = (0..bonds).take_while(|_| {
            fleet.bonds[..last].iter_mut().for_each(|member| member.dirty = true);
            fleet.publish(NOW);
            fleet.bonds[last].dirty
        });
        assert!(turns.count() <= bonds.div_ceil(PUBLISHED_A_TURN));

        fleet.publish_at_once(NOW);
        assert!(!fleet.has_unpublished(), "a client waits for it");
    });
}

//! Failures of the world, on a data plane that fails when told to.

use std::fs;

use bond_modes::{Event, PortId, Reach, TargetPath};
use bond_monitors::Time;
use bond_monitors::wire::ethernet::Tag;

use super::{Fleet, above, check_options_on};
use crate::control::proto::Call;
use crate::dataplane::script::ScriptPlane;
use crate::dataplane::{PlaneError, PlaneWish};
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
        let mut fleet = Fleet::new(&dir, registry, Box::new(plane.clone()), false).unwrap();
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
    let found = |wish, options: &str| -> Vec<(usize, String)> {
        let words = options.split(' ').map(|word| word.split_once('=').unwrap());
        let pairs: Vec<_> = words.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        check_options_on(wish, &pairs)
    };
    for (options, place) in [
        ("plane=team mode=balance-rr", 1),
        ("mode=0 miimon=100 plane=team", 0),
        ("mode=2 plane=team xmit_hash_policy=encap3+4", 2),
        ("mode=1 plane=team arp_interval=100 arp_ip_target=10.0.0.2", usize::MAX),
    ] {
        let wrong = found(PlaneWish::Auto, options);
        assert_eq!(wrong.len(), 1, "{options}: {wrong:?}");
        assert_eq!(wrong[0].0, place, "{options}");
        assert!(wrong[0].1.contains("team plane cannot do"), "{wrong:?}");
        let elsewhere = options.replace("plane=team", "plane=tc");
        assert_eq!(found(PlaneWish::Team, &elsewhere), [], "{elsewhere}");
    }
    assert_eq!(found(PlaneWish::Team, "mode=0").len(), 1, "the default plane");
    assert_eq!(found(PlaneWish::Auto, "mode=0"), []);
    assert_eq!(found(PlaneWish::Auto, "mode=1 plane=team"), []);
    let twice = found(PlaneWish::Auto, "mode=0 miimon=x plane=team");
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

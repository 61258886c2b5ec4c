//! Two kinds of instances in one agent.

use std::time::Duration;

use bond_modes::PortId;
use serde_json::{Value, json};

use super::super::Progress;
use super::super::table::FIRST;
use super::{Change, NOW, attach, set_up, until, with_bond};
use crate::netlink::RouteSocket;
use crate::netlink::tests::ip;

fn shown(instances: &mut Change<'_>) -> Value {
    let mut showing = instances.show(NOW, None).unwrap();
    while instances.show_next(NOW, &mut showing) != Progress::All {
        instances.settle(NOW);
    }
    serde_json::from_str(&showing.finish()).unwrap()
}

/// Frames that an interface has received.
fn received(name: &str) -> u64 {
    let mut links = RouteSocket::open().unwrap();
    let ifindex = links.by_name(name).unwrap().unwrap().ifindex;
    links.statistics(ifindex).unwrap().unwrap().rx_frames
}

#[test]
fn a_second_kind_gets_facts_and_time_beside_bonds_and_is_shown() {
    with_bond("kinds", |instances, plane, _| {
        ip("link set dev a up");
        ip("link set dev b up");
        ip("link add beacon0 type veth peer name far");
        ip("link set dev far up");
        let carrier = |name: &str| {
            let link = RouteSocket::open().unwrap().by_name(name).unwrap().unwrap();
            link.report.carrier.is_on() && link.in_service
        };
        until("a has carrier", || carrier("a"));
        attach(instances, "a").unwrap();
        set_up(instances);
        instances.read_links(NOW, 1024);
        instances.settle(NOW);
        assert_eq!(
            shown(instances)["beacons"],
            json!([{ "name": "beacon0", "up": false, "sent": 0 }])
        );

        ip("link set dev beacon0 up");
        ip("link set dev b down");
        until("both have changed", || carrier("beacon0") && !carrier("a"));
        let before = received("far");
        instances.read_links(NOW, 1024);
        instances.settle(NOW);
        let a = RouteSocket::open().unwrap().by_name("a").unwrap().unwrap();
        let port = instances.bonds[FIRST].bond.ports().get(PortId(a.ifindex)).unwrap();
        assert!(!port.carrier().is_on(), "the bond was told as well");
        assert_eq!(shown(instances)["beacons"][0]["sent"], 1);
        let second = NOW + Duration::from_secs(1);
        assert!(instances.poll_timeout() <= Some(second), "the loop wakes for it");
        instances.handle_timeout(second);
        assert_eq!(shown(instances)["beacons"][0]["sent"], 2);
        until("both are on the wire", || received("far") >= before + 2);

        ip("link del beacon0");
        instances.read_links(second, 1024);
        let shown = shown(instances);
        assert_eq!(shown.get("beacons"), None);
        assert_eq!(shown["bonds"][0]["name"], "bond0");
        assert!(plane.plan("bond0").is_some());
    });
}

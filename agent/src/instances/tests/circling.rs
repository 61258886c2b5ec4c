//! Bonds that other programs put under ports of their own.

use bond_modes::PortId;

use super::super::Instances;
use super::super::table::FIRST;
use super::adoption::make_interface;
use super::{Change, Counters, NOW, attach, attempts, give_traffic, with_bond};
use crate::dataplane::script::{Call, ScriptPlane};
use crate::netlink::tests::ip;

/// Adds a bridge that is up and can become a port.
fn add_bridge(instances: &mut Change<'_>, plane: &ScriptPlane, name: &str) -> PortId {
    ip(&format!("link add {name} type bridge"));
    ip(&format!("link set {name} up"));
    let link = instances.tools().links.by_name(name).unwrap().unwrap();
    let port = PortId(link.ifindex);
    plane.set_port(port, link.report);
    port
}

/// As [`with_bond`]; its interface is there, and the bridge `brx` is a port beside `a`.
fn with_bridge(name: &str, body: impl FnOnce(&mut Change<'_>, &ScriptPlane, PortId) + Send + 'static) {
    with_bond(name, |instances, plane, _| {
        make_interface(instances, "bond0");
        let bridge = add_bridge(instances, plane, "brx");
        give_traffic(instances, plane);
        follow(instances);
        for name in ["a", "brx"] {
            attach(instances, name).unwrap();
        }
        follow(instances);
        plane.take_calls();
        body(instances, plane, bridge);
    });
}

/// Takes in what has happened, and does what is to be done.
fn follow(instances: &mut Change<'_>) {
    instances.read_links(NOW, 1024);
    instances.settle(NOW);
}

fn is_port(instances: &Change<'_>, port: PortId) -> bool {
    instances.bonds[0].bond.ports().get(port).is_some()
}

fn reason(instances: &mut Change<'_>) -> String {
    let report = instances.report(NOW, FIRST, Counters::Unread);
    let port = report.ports.into_iter().find(|port| port.name == "brx");
    port.and_then(|port| port.notes.attach_error).unwrap_or_default()
}

#[test]
fn a_port_above_its_bond_leaves_at_the_event_and_joins_at_the_one_that_ends_that() {
    with_bridge("above", |instances, plane, bridge| {
        let ends = [
            ("bond0", "link set bond0 nomaster"),
            ("upper", "link set upper nomaster"),
            ("upper", "link del upper"),
        ];
        for (lower, end) in ends {
            if lower == "upper" && instances.tools().links.by_name(lower).unwrap().is_none() {
                ip("link add link bond0 name upper type macvlan");
                follow(instances);
            }
            assert!(is_port(instances, bridge), "{lower}");
            plane.take_calls();
            ip(&format!("link set {lower} master brx"));
            // The loop alone, before anything is left to a thread that may wait for the kernel.
            Instances::read_links(instances, NOW, 1024);
            assert!(!is_port(instances, bridge), "{lower}");
            let calls = plane.take_calls();
            let moved = |call: &Call| matches!(call, Call::Follow(_, plan) if !plan.ports.contains_key(&bridge));
            assert!(calls.iter().any(moved), "{calls:?}");
            assert_eq!(
                reason(instances),
                format!(
                    "brx stands on bond0 itself, because {lower} belongs to brx, and frames would circle; \
                     `ip link set {lower} nomaster` ends that"
                )
            );
            follow(instances);
            let calls = plane.take_calls();
            let given_back = |call: &Call| matches!(call, Call::Detach(_, port, _) if *port == bridge);
            assert!(calls.iter().any(given_back), "{calls:?}");
            assert!(
                !is_port(instances, bridge) && instances.bonds[0].wants("brx"),
                "{lower}"
            );
            ip(end);
            follow(instances);
        }
        assert!(is_port(instances, bridge));
    });
}

#[test]
fn a_port_above_its_bond_is_not_attached_by_the_clock() {
    with_bridge("clock", |instances, plane, bridge| {
        ip("link set bond0 master brx");
        follow(instances);
        let due = instances.attach_timeout().unwrap();
        let told = reason(instances);
        plane.take_calls();
        instances.handle_timeout(due);
        assert_eq!((attempts(plane), is_port(instances, bridge)), (0, false));
        assert_eq!(reason(instances), told, "the log has each reason once");
        // What moves and leaves it where it is.
        ip("link add link brx name upper type macvlan");
        follow(instances);
        ip("link del upper");
        follow(instances);
        assert_eq!((attempts(plane), is_port(instances, bridge)), (0, false));
    });
}

#[test]
fn a_bond_is_found_below_its_port_when_the_events_were_lost() {
    with_bridge("overrun", |instances, _, bridge| {
        ip("link set bond0 master brx");
        instances.resync();
        instances.settle(NOW);
        assert!(!is_port(instances, bridge));
        ip("link set bond0 nomaster");
        instances.resync();
        instances.settle(NOW);
        assert!(is_port(instances, bridge));
    });
}

#[test]
fn a_bond_that_is_put_under_an_interface_while_that_is_attached_does_not_get_it() {
    with_bond("put-meanwhile", |instances, plane, _| {
        make_interface(instances, "bond0");
        let bridge = add_bridge(instances, plane, "brx");
        follow(instances);
        plane.set_attached(|_| ip("link set bond0 master brx"));
        instances.meanwhile = Some(Box::new(|instances| {
            Instances::read_links(instances, NOW, 1024);
        }));
        let error = attach(instances, "brx").unwrap_err();
        assert!(error.message.contains("bond0 belongs to brx"), "{}", error.message);
        assert!(!is_port(instances, bridge));
        let calls = plane.take_calls();
        assert!(
            matches!(calls.last(), Some(Call::Detach(_, port, _)) if *port == bridge),
            "{calls:?}"
        );
    });
}

#[test]
fn a_circle_through_two_bonds_costs_one_port_and_another_bond_below_costs_none() {
    with_bridge("two", |instances, plane, bridge| {
        instances.add("bond1", &[("mode".to_owned(), "1".to_owned())]).unwrap();
        let device = plane.device("bond1");
        ip(&format!("link add bond1 index {device} type veth peer name wire8"));
        let other = add_bridge(instances, plane, "bry");
        follow(instances);
        instances.port_attach("bond1", "bry").unwrap();
        ip("link set bond1 master brx");
        follow(instances);
        assert!(is_port(instances, bridge), "frames leave by the other bond");
        ip("link set bond0 master bry");
        follow(instances);
        let attached = [
            is_port(instances, bridge),
            instances.bonds[1].bond.ports().get(other).is_some(),
        ];
        assert_eq!(attached, [true, false]);
        ip("link set bond0 nomaster");
        follow(instances);
        assert!(is_port(instances, bridge) && instances.bonds[1].bond.ports().get(other).is_some());
    });
}

//! Links that are told in a row.

use bond_modes::PortId;
use bond_monitors::Carrier;

use super::{Change, NOW, attach, give_traffic, set_up, with_bond};
use crate::dataplane::script::{Call, ScriptPlane};
use crate::instances::Instances;
use crate::netlink::{LinkEvent, RouteSocket};

#[test]
fn a_bond_that_shares_load_and_loses_nineteen_of_twenty_ports_in_a_row_gets_one_plan() {
    with_bond("row", |instances, plane, _| {
        let ports = twenty_ports(instances, plane, "2");
        lose(instances, &ports[..19]);
        let followed = followed(plane);
        assert_eq!(followed.len(), 1);
        assert_eq!(followed[0], [ports[19]]);
    });
}

#[test]
fn a_bond_with_one_active_port_does_not_wait_for_the_end_of_a_row() {
    with_bond("no-row", |instances, plane, _| {
        let ports = twenty_ports(instances, plane, "1");
        lose(instances, &ports[..3]);
        let followed = followed(plane);
        assert_eq!(followed, [[ports[1]], [ports[2]], [ports[3]]]);
    });
}

/// All of them have their carrier, and send as far as the mode lets them.
fn twenty_ports(instances: &mut Change<'_>, plane: &ScriptPlane, mode: &str) -> Vec<PortId> {
    let options = [("mode", mode), ("miimon", "100"), ("downdelay", "0")];
    let options: Vec<_> = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    instances.set("bond0", &options).unwrap();
    give_traffic(instances, plane);
    let mut links = RouteSocket::open().unwrap();
    let names: Vec<String> = (0..20).map(|number| format!("p{number}")).collect();
    for name in &names {
        links.add_veth(name, &format!("far-{name}")).unwrap();
        let link = links.by_name(name).unwrap().unwrap();
        plane.set_port(PortId(link.ifindex), link.report);
        attach(instances, name).unwrap();
    }
    set_up(instances);
    instances.read_links(NOW, 1024);
    instances.settle(NOW);
    let ports: Vec<PortId> = names
        .iter()
        .map(|name| PortId(links.by_name(name).unwrap().unwrap().ifindex))
        .collect();
    tell(instances, &ports, Carrier::On);
    instances.settle(NOW);
    plane.take_calls();
    ports
}

fn lose(instances: &mut Change<'_>, ports: &[PortId]) {
    tell(instances, ports, Carrier::Off);
}

/// One event for each of them.
fn tell(instances: &mut Change<'_>, ports: &[PortId], carrier: Carrier) {
    let mut links = RouteSocket::open().unwrap();
    for port in ports {
        let mut link = links.by_index(port.0).unwrap().unwrap();
        link.report.carrier = carrier;
        link.report.admin_up = true;
        link.in_service = carrier.is_on();
        instances.pending_events.push_back(LinkEvent::Link(Box::new(link)));
    }
    Instances::read_links(instances, NOW, 0);
}

/// Through which ports the plans sent.
fn followed(plane: &ScriptPlane) -> Vec<Vec<PortId>> {
    let calls = plane.take_calls().into_iter();
    let followed = calls.filter_map(|call| match call {
        Call::Follow(_, plan) => Some(plan.tx.ports),
        _ => None,
    });
    followed.collect()
}

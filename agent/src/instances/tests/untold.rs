//! What a reading of everything found is told in slices, and what is newer counts.

use std::time::Duration;

use bond_modes::PortId;
use bond_monitors::Carrier;

use super::super::carrier_loss::CarrierLoss;
use super::super::telling::TOLD_A_TURN;
use super::timers::bonds_with_a_port;
use super::{Change, NOW, until, with_bond};
use crate::instances::Instances;
use crate::netlink::{Drained, LinkEvent, RouteSocket};

#[test]
fn an_event_that_is_dropped_while_a_reading_is_under_way_is_told_by_the_next_one() {
    with_bond("dropped", |instances, _, _| {
        let [a, b] = ["a", "b"].map(|name| instances.tools().links.by_name(name).unwrap().unwrap().ifindex);
        instances.untold.note_dropped(a);
        instances.untold.note_dropped(b);
        instances.tell_later([], vec![a]);
        assert_eq!(instances.untold.dropped, [b].into());
        instances.tell_later([], vec![b]);
        assert_eq!(
            instances.untold.links.keys().copied().collect::<Vec<_>>(),
            [a.min(b), a.max(b)]
        );
    });
}

const BONDS: usize = 1_000;
/// Ports whose carrier comes back.
const BACK: usize = 40;

#[test]
fn after_an_overrun_ports_with_another_carrier_come_first_and_a_new_event_before_the_rest() {
    with_bond("untold", |instances, plane, _| {
        plane.make_bonds_up();
        let ports = bonds_with_a_port(instances, plane, BONDS, &[("mode", "1"), ("miimon", "100")]);
        bring_up(instances, &ports);
        let (others, back) = ports.split_at(BONDS - BACK);
        let mut links = RouteSocket::open().unwrap();
        for port in back {
            links.set_up(port.0, false).unwrap();
        }
        while instances.read_links(NOW, 1024) == Drained::More {}
        assert!(back.iter().all(|port| !carrier(instances, *port).is_on()));
        for port in others {
            links.set_mtu(port.0, 1400).unwrap();
        }
        plug(back);
        overrun(instances);
        assert!(back.iter().all(|port| !carrier(instances, *port).is_on()));
        instances.tell_untold(NOW);
        assert!(back.iter().all(|port| carrier(instances, *port).is_on()));
        let told = |instances: &mut Change<'_>| others.iter().filter(|port| mtu(instances, **port) == 1400).count();
        assert!(
            (1..=TOLD_A_TURN - BACK).contains(&told(instances)),
            "with interfaces of no bond"
        );

        // One that would be told last loses its carrier, by an event, and another by a note, of which the picture knows nothing.
        let [by_event, by_note] = [1, 2].map(|place| others[others.len() - place]);
        let mut link = instances.host.link(by_event.0).unwrap().clone();
        link.report.carrier = Carrier::Off;
        instances.pending_events.push_back(LinkEvent::Link(Box::new(link)));
        Instances::read_links(instances, NOW, 0);
        assert!(!carrier(instances, by_event).is_on() && instances.has_untold());
        let owner = instances.bonds.owner_of(by_note).unwrap();
        let bond = instances.bonds[owner].ifindex;
        let (port, at, failed_over) = (by_note, NOW + Duration::from_nanos(1), false);
        instances.on_carrier_lost(
            NOW,
            CarrierLoss {
                bond,
                port,
                at,
                failed_over,
            },
        );
        assert!(!carrier(instances, by_note).is_on());
        let mut turns = 1;
        while instances.has_untold() {
            turns += 1;
            instances.tell_untold(NOW);
        }
        assert!(turns >= BONDS / TOLD_A_TURN, "{turns}");
        assert!(
            [by_event, by_note]
                .iter()
                .all(|port| !carrier(instances, *port).is_on())
        );
        assert_eq!(told(instances), others.len());
    });
}

#[test]
fn interfaces_that_are_as_they_were_are_not_told_again_and_dropped_events_are() {
    with_bond("untold-same", |instances, plane, _| {
        plane.make_bonds_up();
        let ports = bonds_with_a_port(instances, plane, 4, &[("mode", "1"), ("miimon", "100")]);
        bring_up(instances, &ports);
        overrun(instances);
        instances.tell_all(NOW);
        for at in instances.bonds.ids() {
            instances.bonds[at].dirty = false;
        }
        overrun(instances);
        let told = |instances: &mut Change<'_>, port: PortId| {
            let at = instances.bonds.owner_of(port).unwrap();
            instances.bonds[at].dirty
        };
        instances.tell_all(NOW);
        assert!(ports.iter().all(|port| !told(instances, *port)));
        // Its event is dropped for the reading, after which nothing differs from the picture.
        RouteSocket::open().unwrap().set_mtu(ports[0].0, 1400).unwrap();
        overrun(instances);
        instances.tell_all(NOW);
        assert_eq!(ports.iter().filter(|port| told(instances, **port)).count(), 1);
        assert_eq!(mtu(instances, ports[0]), 1400);
    });
}

/// Reads everything as after an overrun, and tells nothing yet.
fn overrun(instances: &mut Change<'_>) {
    instances.pending_events.push_back(LinkEvent::Overrun);
    Instances::read_links(instances, NOW, 0);
    Instances::take_answers(instances, NOW, 1024);
    // The script's bonds have no interfaces.
    instances.gone.clear();
}

/// Brings the cables up, until the bonds know it.
fn bring_up(instances: &mut Change<'_>, ports: &[PortId]) {
    plug(ports);
    while instances.read_links(NOW, 1024) == Drained::More {}
    instances.settle(NOW);
    assert!(ports.iter().all(|port| carrier(instances, *port).is_on()));
}

/// Sets both ends of the cables up, until frames can pass.
fn plug(ports: &[PortId]) {
    let mut links = RouteSocket::open().unwrap();
    for port in ports {
        links.set_up(port.0, true).unwrap();
    }
    until("all cables are in service", || {
        let all = links.all().unwrap().into_iter();
        let up = all.filter(|link| link.in_service && ports.contains(&PortId(link.ifindex)));
        up.count() == ports.len()
    });
}

fn carrier(instances: &mut Change<'_>, port: PortId) -> Carrier {
    let at = instances.bonds.owner_of(port).unwrap();
    instances.bonds[at].bond.ports().get(port).unwrap().carrier()
}

/// As the files show it.
fn mtu(instances: &mut Change<'_>, port: PortId) -> u32 {
    let at = instances.bonds.owner_of(port).unwrap();
    instances.bonds[at].devices[&port.0].report.mtu
}

//! Timers of many bonds that are due at the same time.

use std::time::Duration;

use bond_modes::{Machine, PortId};
use bond_monitors::Time;

use super::super::bonds::TIMERS_A_TURN;
use super::{Change, NOW, with_bond};
use crate::control::proto::Call;
use crate::dataplane::script::ScriptPlane;
use crate::instances::Instances;
use crate::netlink::{Drained, RouteSocket};

#[test]
fn a_turn_sends_the_probes_of_some_bonds_and_the_next_ones_those_of_the_others() {
    with_bond("timers", |instances, plane, _| {
        plane.make_bonds_up();
        let more = 3 * TIMERS_A_TURN + 4;
        let options = [
            ("mode", "1"),
            ("miimon", "0"),
            ("arp_interval", "100"),
            ("arp_ip_target", "10.0.0.2"),
        ];
        bonds_with_a_port(instances, plane, more, &options);
        let later = NOW + Duration::from_secs(3600);
        let due = |instances: &mut Change<'_>, now: Time| instances.bonds.due(now).len();
        let begun = due(instances, later);
        assert!(begun >= more, "{begun}");
        let first = instances.bonds.due(later)[begun - 1];
        let mut left = Vec::new();
        while due(instances, later) > 0 {
            assert!(left.len() < 9, "there is no end of it: {left:?}");
            Instances::handle_timeout(instances, later);
            left.push(due(instances, later));
        }
        let expected: Vec<usize> = (1..=4).map(|turn| begun.saturating_sub(turn * TIMERS_A_TURN)).collect();
        assert_eq!(left, expected);
        assert!(
            instances.bonds[first].bond.poll_timeout() > Some(later),
            "the last one had its turn"
        );
    });
}

#[test]
fn bonds_that_fall_in_step_with_one_that_polls_are_due_once_each() {
    with_bond("in-step", |instances, plane, _| {
        plane.make_bonds_up();
        bonds_with_a_port(instances, plane, 6, &[("mode", "1"), ("miimon", "100")]);
        let mut polling = instances.bonds.ids();
        polling.retain(|at| instances.bonds[*at].bond.next_poll().is_some());
        assert!(polling.len() >= 6, "{polling:?}");
        // Each has its first poll, and the next one an interval later.
        Instances::handle_timeout(instances, NOW);
        instances.settle(NOW);
        let now = NOW + Duration::from_millis(10);
        let after = |ms| now + Duration::from_millis(ms);
        // The first two poll now, the others soon, and the last one not before the half of an interval has passed.
        let [first, second, soon @ .., late] = &polling[..] else {
            unreachable!()
        };
        for bond in [first, second] {
            instances.bonds[*bond].bond.poll_at(now);
        }
        for bond in soon {
            instances.bonds[*bond].bond.poll_at(after(50));
        }
        instances.bonds[*late].bond.poll_at(after(51));
        let mut due = Instances::due_with_polls(instances, now);
        due.sort();
        assert_eq!(due, polling[..polling.len() - 1]);
        assert_eq!(instances.bonds[soon[0]].bond.next_poll(), Some(now));
    });
}

/// So many, each with one end of a cable.
pub(super) fn bonds_with_a_port(
    instances: &mut Change<'_>,
    plane: &ScriptPlane,
    count: usize,
    options: &[(&str, &str)],
) -> Vec<PortId> {
    let mut links = RouteSocket::open().unwrap();
    let pairs: Vec<_> = options
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let mut ports = Vec::new();
    for cable in 0..count.div_ceil(2) {
        let ends = ["a", "b"].map(|end| format!("{end}{cable}"));
        links.add_veth(&ends[0], &ends[1]).unwrap();
        for port in ends.into_iter().take(count - ports.len()) {
            let link = links.by_name(&port).unwrap().unwrap();
            plane.set_port(PortId(link.ifindex), link.report);
            let bond = format!("many{}", ports.len());
            instances.add(&bond, &pairs).unwrap();
            instances.call(&Call::PortAttach { bond, port }).unwrap();
            ports.push(PortId(link.ifindex));
        }
    }
    while instances.read_links(NOW, 1024) == Drained::More {}
    instances.settle(NOW);
    ports
}

//! What other programs change is put back, but not for ever.

use std::time::Duration;

use bond_modes::PortId;

use super::super::looks::Look;
use super::super::table::FIRST;
use super::adoption::port;
use super::{Change, NOW, attach, programs, refusal, with_bond};
use crate::dataplane::PlanPart;
use crate::netlink::tests::ip;

#[test]
fn what_somebody_changes_again_and_again_is_put_back_five_times_and_a_minute_later() {
    with_bond("pause", |instances, plane, _| {
        let at = |second| NOW + Duration::from_secs(second);
        plane.take_calls();
        for second in 0..9 {
            instances.put_back(at(second), FIRST, "its address");
            instances.settle(at(second));
        }
        assert_eq!(programs(plane), 5);
        assert_eq!(instances.poll_timeout(), Some(at(65)));
        instances.handle_timeout(at(64));
        instances.settle(at(64));
        assert_eq!(programs(plane), 0);
        instances.handle_timeout(at(65));
        instances.settle(at(65));
        assert_eq!(programs(plane), 1);
        assert_ne!(instances.poll_timeout(), Some(at(65)));
    });
}

#[test]
fn ipv6_of_a_port_that_has_left_while_it_was_looked_at_is_its_own() {
    with_bond("ipv6", |instances, _, _| {
        attach(instances, "a").unwrap();
        let a = port(instances, "a");
        instances.settle(NOW);
        // A look at it leaves an entry.
        assert!(instances.bonds[0].ipv6_repairs.contains_key(&a));
        instances.look_at(FIRST, Look::Port(a));
        instances.port_gone(NOW, FIRST, a);
        instances.settle(NOW);
        assert!(instances.bonds[0].ipv6_repairs.is_empty());
    });
}

#[test]
fn each_port_has_its_own_limit_for_ipv6_and_the_bond_another_one() {
    with_bond("ipv6-limits", |instances, plane, _| {
        for name in ["a", "b"] {
            attach(instances, name).unwrap();
        }
        let [a, b] = ["a", "b"].map(|name| port(instances, name));
        instances.settle(NOW);
        let undone = |instances: &Change<'_>| instances.bonds[0].unfulfilled.foreign_ports();
        for _ in 0..9 {
            instances.look_at(FIRST, Look::Port(a));
            instances.settle(NOW);
        }
        assert_eq!(undone(instances), [a].into());
        instances.look_at(FIRST, Look::Port(b));
        instances.settle(NOW);
        assert_eq!(undone(instances), [a].into());
        plane.take_calls();
        instances.put_back(NOW, FIRST, "its address");
        instances.settle(NOW);
        assert_eq!(programs(plane), 1);
        // The pause is over.
        let due = instances.poll_timeout().unwrap();
        instances.handle_timeout(due);
        instances.settle(due);
        assert_eq!(undone(instances), [].into());
    });
}

#[test]
fn an_address_that_the_bond_does_not_take_is_put_back_only_so_often() {
    with_bond("addresses-put-back", |instances, plane, _| {
        let active = [("fail_over_mac".to_owned(), "active".to_owned())];
        instances.set("bond0", &active).unwrap();
        // The script's bond is no interface.
        instances.bonds[0].ifindex = instances.tools().links.by_name("a").unwrap().unwrap().ifindex;
        plane.take_calls();
        for _ in 0..20 {
            instances.on_bond_device(NOW, FIRST);
        }
        assert_eq!(programs(plane), 5);
    });
}

#[test]
fn an_event_about_a_state_that_the_agent_has_changed_since_repairs_nothing() {
    with_bond("stale", |instances, plane, _| {
        attach(instances, "a").unwrap();
        let mut link = instances.tools().links.by_name("a").unwrap().unwrap();
        instances.tools().links.set_allmulti(link.ifindex, true).unwrap();
        plane.take_calls();
        // As it was before the port was attached.
        link.allmulti_flag = false;
        instances.on_port(NOW, FIRST, PortId(link.ifindex), &link);
        instances.settle(NOW);
        assert_eq!(programs(plane), 0);
        instances.tools().links.set_allmulti(link.ifindex, false).unwrap();
        instances.on_port(NOW, FIRST, PortId(link.ifindex), &link);
        instances.settle(NOW);
        assert_eq!(programs(plane), 1);
    });
}

#[test]
fn a_setting_of_a_port_that_the_plan_could_not_make_is_nobody_elses() {
    with_bond("refused-setting", |instances, plane, _| {
        attach(instances, "a").unwrap();
        let a = port(instances, "a");
        instances.settle(NOW);
        let look = |instances: &mut Change<'_>| {
            instances.look_at(FIRST, Look::Port(a));
            instances.settle(NOW);
        };
        let said = |instances: &Change<'_>| {
            let parts = instances.bonds[0].unfulfilled.report(NOW).into_iter();
            parts.map(|part| part.why).collect::<Vec<_>>()
        };
        ip("link set dev a mtu 1400 address 02:00:00:00:00:99");
        let told = |instances: &Change<'_>| instances.happened.len();
        let before = told(instances);
        for part in [PlanPart::Mtu(a), PlanPart::PortMac(a)] {
            plane.fail_part(part, refusal());
            instances.repair(FIRST);
            instances.ask_rests();
            look(instances);
            let said = said(instances);
            assert!(!said[0].contains("another program"), "{said:?}");
            let others = |what: &str| said.iter().filter(|why| why.contains(what)).count();
            let is_mtu = part == PlanPart::Mtu(a);
            assert_eq!(
                (others("lowered its MTU"), others("gave it another one")),
                (usize::from(!is_mtu), usize::from(is_mtu)),
                "{said:?}"
            );
        }
        assert_eq!(told(instances) - before, 1);
    });
}

//! The rules of active-backup about addresses and announcements, one test a rule.

use std::net::{IpAddr, Ipv4Addr};

use bond_modes::{LocalAddress, Machine, Notice};
use bond_monitors::Carrier::{Off, On};
use bond_monitors::MacAddr;
use bond_monitors::wire::ethernet::Tag;
use bondd_tests::sim::{PlanFailures, SetsMac, Undone, World};

const USER: MacAddr = MacAddr([6, 0, 0, 0, 0, 1]);

fn permanent(w: &World, name: &str) -> MacAddr {
    w.status(name).permanent_mac
}

fn mac(w: &World, name: &str) -> MacAddr {
    w.plan().ports[&w.port(name)].mac
}

fn announced(options: &str) -> World {
    let mut w = World::with_carrier(options, ["a", "b"]);
    w.at_ms(0).addresses(vec![address(&[])]).at_ms(10_000).clear();
    w
}

fn address(tags: &[Tag]) -> LocalAddress {
    LocalAddress {
        ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)),
        mac: None,
        tags: tags.to_vec(),
        router: false,
    }
}

fn times(w: &World) -> Vec<u64> {
    w.sent.iter().map(|sent| w.ms(sent.at) - 10_000).collect()
}

#[test]
fn the_first_port_donates_its_address_to_the_bond_and_later_ports_get_it() {
    let w = World::with_carrier("miimon=100", ["a", "b"]);
    assert_eq!(w.plan().mac, permanent(&w, "a"));
    assert_eq!(mac(&w, "b"), permanent(&w, "a"));
}

#[test]
fn an_address_set_by_the_operator_is_given_to_all_ports_and_kept() {
    let mut w = World::empty("miimon=100");
    w.set_mac(USER).plug("a").carrier("a", On).attach("a");
    assert_eq!((w.plan().mac, mac(&w, "a")), (USER, USER));
    w.detach("a");
    assert_eq!(w.plan().mac, USER);
}

#[test]
fn an_address_set_later_reaches_all_ports() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    w.set_mac(USER);
    assert_eq!((mac(&w, "a"), mac(&w, "b")), (USER, USER));
}

#[test]
fn the_last_port_takes_its_address_along() {
    let mut w = World::empty("miimon=100");
    let born = w.plan().mac;
    w.plug("a").carrier("a", On).attach("a").detach("a");
    assert_eq!(w.plan().mac, born);
    w.plug("b").carrier("b", On).attach("b");
    assert_eq!(w.plan().mac, permanent(&w, "b"));
}

#[test]
fn an_address_that_a_detached_port_shares_with_the_bond_is_told() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    let shared = w.plan().mac;
    w.detach("a");
    assert!(w.saw(|n| matches!(n, Notice::MacStillInUse { port, mac } if port == "a" && *mac == shared)));
    assert_eq!(w.plan().mac, shared);
}

#[test]
fn a_plan_that_failed_does_not_turn_the_old_address_into_the_operators_wish() {
    let mut w = World::empty("miimon=100");
    w.plug("a")
        .carrier("a", On)
        .fail(1, true)
        .attach("a")
        .up(true)
        .after_ms(100);
    assert_eq!(w.plan().mac, permanent(&w, "a"));
}

#[test]
fn an_address_of_the_operator_counts_also_after_a_failure_of_something_else() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    // Nothing will bring that plan about, so none is tried after it.
    w.fail(1, false).carrier("a", Off).set_mac(USER).after_ms(500);
    assert_eq!(w.plan().mac, USER);
    assert_eq!(w.kernel.device.mac, USER);
}

#[test]
fn an_address_that_the_operator_sets_while_something_else_fails_is_taken_on_or_put_back() {
    for (options, taken_on) in [("miimon=100", true), ("miimon=100 fail_over_mac=active", false)] {
        let mut w = World::with_carrier(options, ["a", "b"]);
        w.after_ms(10);
        w.kernel.failures = PlanFailures {
            left: 2,
            undone: Undone::Else,
            retry: true,
        };
        w.operator = Some(SetsMac { after: 0, mac: USER });
        w.set_port("b", "queue_id=3").unwrap();
        w.after_ms(500);
        assert!(w.programmed && w.kernel.failures.left == 0);
        let expected = if taken_on { USER } else { permanent(&w, "a") };
        assert_eq!(
            (w.kernel.device.mac, w.bond.plan().mac),
            (expected, expected),
            "{options}"
        );
    }
}

#[test]
fn an_address_that_a_failed_plan_left_is_foreign_once_the_interface_had_the_plans() {
    let mut w = World::with_carrier("miimon=100 fail_over_mac=active", ["a", "b"]);
    let [a, b] = ["a", "b"].map(|name| permanent(&w, name));
    w.fail(1, false).set("active_slave=b");
    assert_eq!((w.kernel.device.mac, w.bond.plan().mac), (a, b));
    w.set_mac(b).set_mac(a);
    assert_eq!(w.kernel.device.mac, b, "it is put back");
}

#[test]
fn an_address_of_the_operator_counts_also_where_the_agents_own_could_not_be_set() {
    let mut w = World::empty("miimon=100");
    w.plug("a").carrier("a", On).fail(1, false).attach("a").up(true);
    assert_ne!(w.kernel.device.mac, w.bond.plan().mac, "it kept the old one");
    w.set_mac(USER).after_ms(500);
    assert_eq!(w.plan().mac, USER);
}

#[test]
fn with_fail_over_mac_active_the_bond_takes_the_active_ports_address() {
    let mut w = World::with_carrier("fail_over_mac=active", ["a", "b"]);
    assert_eq!(w.plan().mac, permanent(&w, "a"));
    w.carrier("a", Off);
    assert_eq!(w.plan().mac, permanent(&w, "b"));
    assert_eq!((mac(&w, "a"), mac(&w, "b")), (permanent(&w, "a"), permanent(&w, "b")));
    w.clear().detach("b").carrier("a", On);
    assert_eq!(w.plan().mac, permanent(&w, "a"));
    assert!(!w.saw(|n| matches!(n, Notice::MacStillInUse { .. })));
}

#[test]
fn with_fail_over_mac_active_an_address_set_by_the_operator_is_ignored() {
    let mut w = World::with_carrier("fail_over_mac=active", ["a"]);
    w.set_mac(USER);
    assert_eq!(w.plan().mac, permanent(&w, "a"));
    assert_eq!(w.kernel.device.mac, permanent(&w, "a"));
}

#[test]
fn with_fail_over_mac_active_an_earlier_address_of_the_operator_comes_back_after_the_last_port() {
    let mut w = World::empty("miimon=100");
    w.set_mac(USER)
        .set("fail_over_mac=active")
        .plug("a")
        .carrier("a", On)
        .attach("a");
    assert_eq!(w.plan().mac, permanent(&w, "a"));
    w.detach("a");
    assert_eq!(w.plan().mac, USER);
}

#[test]
fn with_fail_over_mac_follow_the_bonds_address_moves_and_the_ports_swap() {
    let mut w = World::with_carrier("fail_over_mac=follow", ["a", "b"]);
    let (own_a, own_b) = (permanent(&w, "a"), permanent(&w, "b"));
    assert_eq!((w.plan().mac, mac(&w, "a"), mac(&w, "b")), (own_a, own_a, own_b));
    w.carrier("a", Off);
    assert_eq!((w.plan().mac, mac(&w, "a"), mac(&w, "b")), (own_a, own_b, own_a));
    w.carrier("a", On).carrier("b", Off);
    assert_eq!((w.plan().mac, mac(&w, "a"), mac(&w, "b")), (own_a, own_a, own_b));
}

#[test]
fn with_fail_over_mac_follow_the_next_port_gets_the_bonds_address_when_the_active_one_is_detached() {
    let mut w = World::with_carrier("fail_over_mac=follow", ["a", "b"]);
    let bond = w.plan().mac;
    w.detach("a");
    assert_eq!((w.plan().mac, mac(&w, "b")), (bond, bond));
    w.attach("a");
    assert_ne!(
        mac(&w, "a"),
        bond,
        "a port that comes with the bond's address gets another one"
    );
    assert_eq!(w.status("a").permanent_mac, bond);
}

#[test]
fn addresses_are_announced_exactly_as_often_as_num_grat_arp_says_at_even_intervals() {
    for (options, expected) in [
        ("num_grat_arp=1", vec![0]),
        ("num_grat_arp=3", vec![0, 100, 200]),
        ("num_grat_arp=3 peer_notif_delay=300", vec![0, 300, 600]),
        ("num_grat_arp=0", vec![]),
    ] {
        let mut w = announced(options);
        w.carrier("a", Off).at_ms(20_000);
        assert_eq!(times(&w), expected, "{options}");
        let b = w.port("b");
        assert!(w.sent.iter().all(|sent| sent.port == b));
    }
}

#[test]
fn another_failover_starts_the_announcements_anew_through_the_new_port() {
    let mut w = announced("num_grat_arp=3");
    w.carrier("a", Off)
        .carrier("a", On)
        .at_ms(10_050)
        .carrier("b", Off)
        .at_ms(20_000);
    assert_eq!(times(&w), [0, 50, 150, 250]);
    assert_eq!(w.sent[1].port, w.port("a"));
}

#[test]
fn a_bond_that_goes_down_drops_its_announcements() {
    let mut w = announced("num_grat_arp=5");
    w.carrier("a", Off)
        .at_ms(10_050)
        .up(false)
        .at_ms(10_500)
        .up(true)
        .at_ms(20_000);
    assert_eq!(times(&w), [0]);
    w.carrier("a", On)
        .up(false)
        .clear()
        .set("active_slave=a")
        .up(true)
        .at_ms(30_000);
    assert!(w.sent.is_empty());
}

#[test]
fn announcements_carry_the_bonds_address_and_the_vlan_tags() {
    let mut w = announced("num_grat_arp=1");
    w.addresses(vec![
        address(&[]),
        address(&[Tag::c(7)]),
        address(&[Tag::s(9), Tag::c(7)]),
    ])
    .carrier("a", Off);
    let [plain, tagged, stacked] = w.sent.as_slice() else {
        panic!("one frame an address: {:?}", w.sent)
    };
    assert_eq!(plain.frame[..6], MacAddr::BROADCAST.0);
    assert_eq!(plain.frame[6..12], w.plan().mac.0);
    assert_eq!(plain.frame[12..14], [0x08, 0x06]);
    assert_eq!(tagged.frame[12..18], [0x81, 0x00, 0, 7, 0x08, 0x06]);
    assert_eq!(tagged.frame.len(), plain.frame.len() + 4);
    assert_eq!(stacked.frame[12..22], [0x88, 0xa8, 0, 9, 0x81, 0x00, 0, 7, 0x08, 0x06]);
}

#[test]
fn an_address_with_a_mac_of_its_own_is_announced_with_it() {
    let mut w = announced("num_grat_arp=1");
    let mac = Some(USER);
    w.addresses(vec![LocalAddress { mac, ..address(&[]) }])
        .carrier("a", Off);
    assert_eq!(w.sent[0].frame[22..28], USER.0);
}

#[test]
fn a_restart_between_two_announcements_loses_none() {
    let mut w = announced("num_grat_arp=3");
    w.carrier("a", Off).at_ms(10_050);
    let saved = w.bond.saved();
    w.restart(Some(saved)).at_ms(20_000);
    assert_eq!(times(&w), [0, 100, 200]);
}

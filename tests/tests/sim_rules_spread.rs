//! The rules of the modes that spread traffic: balance-rr, balance-xor, broadcast.

use bond_modes::{Accept, LinkWord, Machine, Notice, OptionError, PortId, Role, Spread, Tx, XmitHashPolicy};
use bond_monitors::Carrier::{Off, On};
use bondd_tests::sim::World;

fn senders(w: &World) -> Vec<PortId> {
    w.plan().tx.ports.clone()
}

fn ids<const N: usize>(w: &World, names: [&str; N]) -> Vec<PortId> {
    names.map(|name| w.port(name)).to_vec()
}

#[test]
fn each_mode_sends_through_all_ports_in_the_order_of_attaching() {
    for (mode, policy) in [("balance-rr", 0), ("balance-xor", 1), ("broadcast", 2)] {
        let w = World::with_carrier(&format!("mode={mode} miimon=100"), ["b", "a", "c"]);
        assert_eq!(senders(&w), ids(&w, ["b", "a", "c"]), "{mode}");
        let kind = match w.plan().tx.kind {
            Spread::RoundRobin { .. } => 0,
            Spread::Hash(_) => 1,
            Spread::All => 2,
            ref other => panic!("{mode}: {other:?}"),
        };
        assert_eq!(kind, policy);
    }
}

#[test]
fn a_port_that_fails_leaves_the_list_at_once_and_comes_back_to_its_place() {
    let mut w = World::with_carrier("mode=2 miimon=100", ["a", "b", "c"]);
    w.carrier("b", Off);
    assert_eq!(senders(&w), ids(&w, ["a", "c"]));
    w.carrier("b", On);
    assert_eq!(senders(&w), ids(&w, ["a", "b", "c"]));
}

#[test]
fn a_port_that_joins_is_logged_as_active_only_if_it_sends() {
    let active = |w: &World, name: &str| {
        let found = w.notices.iter().find_map(|(_, notice)| match notice {
            Notice::Attached { port, active, .. } if port == name => Some(*active),
            _ => None,
        });
        found.expect("it was attached")
    };
    for mode in ["balance-rr", "balance-xor", "broadcast"] {
        let mut w = World::empty(&format!("mode={mode} miimon=100 updelay=500"));
        w.plug("dark").attach("dark");
        assert!(!active(&w, "dark"), "{mode}: without carrier");
        w.plug("first").carrier("first", On).attach("first");
        assert!(active(&w, "first"), "{mode}: no other port is usable");
        w.plug("second").carrier("second", On).attach("second");
        assert!(!active(&w, "second"), "{mode}: waits in updelay");
        let roles = ["dark", "first", "second"].map(|name| w.status(name).role);
        assert_eq!(roles, [Role::Backup, Role::Active, Role::Backup], "{mode}");
    }
}

#[test]
fn a_port_in_downdelay_sends_only_while_no_link_is_up() {
    for mode in ["0", "2", "3"] {
        let mut w = World::with_carrier(&format!("mode={mode} miimon=100 downdelay=500"), ["a", "b"]);
        w.carrier("a", Off);
        assert_eq!(w.link("a"), LinkWord::GoingDown);
        assert_eq!(senders(&w), ids(&w, ["b"]), "mode {mode}");
        let shown = |w: &World| {
            ["a", "b"]
                .map(|port| w.status(port))
                .map(|port| (port.usable, port.sends))
        };
        assert_eq!(shown(&w), [(true, false), (true, true)], "mode {mode}");
        w.carrier("b", Off);
        assert_eq!(senders(&w), ids(&w, ["a", "b"]), "mode {mode}");
        assert_eq!(shown(&w), [(true, true); 2], "mode {mode}");
        assert_eq!(
            w.plan().carrier,
            On,
            "the last port keeps the carrier for its downdelay"
        );
        w.at_ms(5_000);
        assert_eq!((w.plan().tx.is_nowhere(), w.plan().carrier), (true, Off));
    }
}

#[test]
fn a_port_in_updelay_does_not_send_unless_nothing_else_does() {
    for mode in ["0", "2", "3"] {
        let mut w = World::with_carrier(&format!("mode={mode} miimon=100 updelay=1000"), ["a", "b"]);
        w.at_ms(2_000).carrier("a", Off).carrier("a", On);
        assert_eq!(senders(&w), ids(&w, ["b"]), "mode {mode}");
        w.carrier("b", Off);
        assert_eq!(senders(&w), ids(&w, ["a"]), "mode {mode}");
    }
}

#[test]
fn every_port_lets_everything_in_whatever_its_link() {
    let mut w = World::with_carrier("mode=0 miimon=100", ["a", "b"]);
    w.carrier("b", Off);
    assert!(w.plan().ports.len() == 2 && w.plan().ports.values().all(|port| port.accept == Accept::All));
}

#[test]
fn without_a_monitor_a_port_without_carrier_does_not_send_but_the_bond_keeps_its_carrier() {
    let mut w = World::with_carrier("mode=0 miimon=0", ["a", "b"]);
    w.carrier("a", Off);
    assert_eq!((w.link("a"), senders(&w)), (LinkWord::Up, ids(&w, ["b"])));
    w.carrier("b", Off);
    assert_eq!((w.plan().tx.is_nowhere(), w.plan().carrier), (true, On));
}

#[test]
fn igmp_leaves_through_the_current_port_which_is_the_first_until_it_fails() {
    let mut w = World::with_carrier("mode=0 miimon=100 packets_per_slave=4", ["a", "b", "c"]);
    let igmp = |w: &World| match w.plan().tx.kind {
        Spread::RoundRobin {
            igmp: Some(igmp),
            packets_per_port: 4,
        } => igmp,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(igmp(&w), w.port("a"));
    w.carrier("a", Off);
    assert_eq!(igmp(&w), w.port("b"));
    w.carrier("a", On);
    assert_eq!(igmp(&w), w.port("b"), "it stays where it is");
    w.detach("b");
    assert_eq!(igmp(&w), w.port("a"));
}

#[test]
fn the_policy_may_change_while_traffic_flows() {
    let mut w = World::with_carrier("mode=2 miimon=100", ["a", "b"]);
    w.set("xmit_hash_policy=3");
    assert_eq!(w.plan().tx.kind, Spread::Hash(XmitHashPolicy::Encap23));
}

#[test]
fn nobody_is_announced_and_nobody_becomes_active_where_no_port_is_the_active_one() {
    let mut w = World::with_carrier("mode=2 miimon=100 num_grat_arp=3", ["a", "b"]);
    w.carrier("a", Off).carrier("a", On).at_ms(2_000);
    assert!(w.sent.is_empty());
    assert!(
        !w.notices
            .iter()
            .any(|(_, notice)| matches!(notice, Notice::ActiveChanged { .. }))
    );
    assert_eq!(w.bond.active(), None);
    let status = w.bond.status(w.now());
    assert!(status.ports.iter().all(|port| port.role == Role::Active));
    assert_eq!(status.bond.active_port, None);
}

#[test]
fn options_of_another_mode_are_refused_before_anything_else_is_looked_at() {
    let mut w = World::with_carrier("mode=2 miimon=100", ["a", "b"]);
    for option in [
        "primary=a",
        "active_slave=b",
        "packets_per_slave=2",
        "primary=//",
        "active_slave=zz",
    ] {
        assert!(
            matches!(w.try_set(option), Err(OptionError::WrongMode { .. })),
            "{option}"
        );
    }
    let mut w = World::with_carrier("mode=1 miimon=100", ["a"]);
    assert!(matches!(
        w.try_set("packets_per_slave=x"),
        Err(OptionError::WrongMode { .. })
    ));
}

#[test]
fn fail_over_mac_is_only_stored_outside_active_backup() {
    let w = World::with_carrier("mode=0 miimon=100 fail_over_mac=active", ["a", "b"]);
    assert!(w.plan().ports.values().all(|port| port.mac == w.plan().mac));
    assert_eq!(w.bond.options().fail_over_mac.name(), "active");
}

#[test]
fn the_mode_changes_only_while_the_bond_is_down_and_empty() {
    let mut w = World::empty("mode=0 miimon=100");
    assert!(matches!(
        w.try_set("mode=1"),
        Err(OptionError::BondUp { option: "mode" })
    ));
    w.up(false).set("mode=1").up(true);
    w.plug("a").carrier("a", On).attach("a");
    assert_eq!(w.plan().tx, Tx::one(Some(w.port("a"))));
    w.up(false);
    assert!(matches!(
        w.try_set("mode=0"),
        Err(OptionError::HasPorts { option: "mode" })
    ));
}

#[test]
fn without_a_monitor_a_port_without_carrier_counts_as_up_and_is_not_sent_through() {
    for mode in ["0", "2", "3"] {
        let mut w = World::with_carrier(&format!("mode={mode} miimon=0"), ["a", "b"]);
        w.carrier("a", Off).at_ms(5000);
        let status = w.status("a");
        assert_eq!((status.link, status.usable), (LinkWord::Up, true), "mode {mode}");
        assert_eq!(senders(&w), ids(&w, ["b"]), "mode {mode}");
        assert!(w.bond.status(w.now()).bond.carrier, "mode {mode}");
    }
}

#[test]
fn a_restart_while_no_port_sends_is_silent() {
    for mode in [
        "mode=balance-rr packets_per_slave=3",
        "mode=balance-xor xmit_hash_policy=layer3+4",
        "mode=broadcast",
    ] {
        let mut w = World::with_carrier(&format!("{mode} miimon=100"), ["a", "b"]);
        w.at_ms(500).carrier("a", Off).carrier("b", Off).at_ms(1000);
        assert!(w.plan().tx.is_nowhere(), "{mode}");
        for saved in [Some(w.bond.saved()), None] {
            w.clear().restart(saved);
            assert_eq!(w.plans, [], "{mode}");
        }
        w.carrier("b", On).at_ms(2000);
        assert_eq!(w.plans.last().unwrap().1, *w.bond.plan(), "{mode}");
        assert_eq!(senders(&w), ids(&w, ["b"]), "{mode}");
    }
}

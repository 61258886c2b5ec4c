//! Rules of the ARP monitor, each told as a story in a simulated network. [bonding.rst: ARP monitor operation]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use bond_modes::plan::{Match, Steer};
use bond_modes::{HostBehind, LinkWord, Machine, Notice, Reach, SwitchReason, Warning};
use bond_monitors::wire::arp::Arp;
use bond_monitors::wire::ethernet::{Tag, strip};
use bond_monitors::{Carrier, MacAddr, SignOfLife};
use bondd_tests::sim::World;
use bondd_tests::sim::arp::{ARP, VALIDATE, host, kill, mend, world};

fn active(world: &World) -> Option<String> {
    world.active()
}

#[test]
fn only_the_active_port_is_probed_and_the_backup_listens() {
    let mut w = world(&format!("{ARP} arp_validate=all"));
    w.after_ms(1000);
    let a = w.port("a");
    assert!(w.probes.iter().all(|sent| sent.port == a));
    assert_eq!(w.probes.len(), 10);
    assert_eq!((w.link("a"), w.link("b")), (LinkWord::Up, LinkWord::Up));
}

#[test]
fn a_dead_path_with_carrier_is_left_within_the_missed_intervals_and_one() {
    for validate in VALIDATE {
        for missed in [1, 2, 5] {
            let mut w = world(&format!("{ARP} arp_validate={validate} arp_missed_max={missed}"));
            kill(&mut w, "a");
            let died = w.now();
            w.after_ms(3000);
            let (at, _) = w
                .notices
                .iter()
                .find(|(_, notice)| matches!(notice, Notice::ActiveChanged { to: Some(to), reason: SwitchReason::LinkDown, .. } if to == "b"))
                .unwrap_or_else(|| panic!("{validate} {missed}: stays on {:?}", active(&w)));
            let limit = Duration::from_millis(100 * (missed + 1));
            assert!(at.since(died) <= limit, "{validate} {missed}: {:?}", at.since(died));
            assert_eq!(w.status("a").link_failures, 1, "{validate}");
            let expected = w.bond.options().arp_validate.counts(true);
            assert!(w.saw(
                |notice| matches!(notice, Notice::Silent { port, counts, .. } if port == "a" && *counts == expected)
            ));
        }
    }
}

#[test]
fn a_port_of_which_nothing_can_be_read_is_not_called_silent() {
    for mode in [1, 2] {
        for validate in VALIDATE {
            let mut w = world(&format!("{ARP} mode={mode} arp_validate={validate}"));
            let (a, b) = (w.port("a"), w.port("b"));
            // Answers are seen by the agent itself.
            let validated = w.bond.options().arp_validate.counts(true) == SignOfLife::Validated;
            kill(&mut w, "a");
            w.unread.insert(a);
            w.after_ms(3000);
            let expected = if validated { LinkWord::Down } else { LinkWord::Up };
            assert_eq!(w.link("a"), expected, "mode {mode} {validate}");
            assert_eq!(w.link("b"), LinkWord::Up, "mode {mode} {validate}");
            w.unread = BTreeSet::from([b]);
            w.after_ms(1000);
            assert_eq!(w.link("a"), LinkWord::Down, "mode {mode} {validate}: read again");
            assert_eq!(w.link("b"), LinkWord::Up, "mode {mode} {validate}");
        }
    }
}

#[test]
fn a_dead_target_does_not_make_the_ports_take_turns_on_each_others_probes() {
    for validate in VALIDATE {
        let mut w = world(&format!("{ARP} arp_validate={validate}"));
        w.net.hosts.clear();
        w.after_ms(60_000);
        let switches = w
            .notices
            .iter()
            .filter(|(_, notice)| matches!(notice, Notice::ActiveChanged { .. }));
        assert!(switches.count() <= 3, "{validate}: {:?}", w.notices);
        assert_eq!(active(&w), None, "{validate}");
        w.net.hosts.insert(host(2));
        w.after_ms(1000);
        assert!(active(&w).is_some(), "{validate}: found again when it answers");
    }
}

#[test]
fn without_an_active_port_candidates_are_tried_one_a_tick_and_shown_as_going_back() {
    let mut w = world(&format!("{ARP} arp_validate=all"));
    w.net.hosts.clear();
    w.after_ms(2000).clear();
    let mut tried = Vec::new();
    for _ in 0..4 {
        w.after_ms(100);
        let back: Vec<&str> = ["a", "b"]
            .into_iter()
            .filter(|port| w.link(port) == LinkWord::GoingBack)
            .collect();
        assert_eq!(back.len(), 1);
        tried.extend(back);
    }
    assert_eq!(tried[..2], tried[2..]);
    assert_ne!(tried[0], tried[1]);
}

#[test]
fn a_lost_carrier_does_not_wait_for_the_windows() {
    let mut w = world(ARP);
    w.carrier("a", Carrier::Off);
    assert_eq!(active(&w).as_deref(), Some("b"));
    w.carrier("a", Carrier::On).after_ms(30);
    assert_eq!(w.link("a"), LinkWord::Down, "carrier alone does not bring it back");
}

#[test]
fn every_port_of_a_spreading_mode_needs_answers_of_its_own() {
    for mode in [0, 2, 3] {
        for validate in ["none", "all", "filter"] {
            let mut w = world(&format!(
                "mode={mode} arp_interval=100 arp_ip_target=10.0.0.2 arp_validate={validate}"
            ));
            assert_eq!((w.link("a"), w.link("b")), (LinkWord::Up, LinkWord::Up));
            kill(&mut w, "b");
            w.after_ms(500);
            assert_eq!(
                (w.link("a"), w.link("b")),
                (LinkWord::Up, LinkWord::Down),
                "{mode} {validate}"
            );
            mend(&mut w, "b");
            w.after_ms(500);
            assert_eq!(w.link("b"), LinkWord::Up, "{mode} {validate}");
        }
    }
}

#[test]
fn with_all_targets_one_that_is_silent_takes_the_port_down_and_with_any_it_does_not() {
    let two = "mode=1 arp_interval=100 arp_ip_target=10.0.0.2,10.0.0.3 arp_validate=active";
    for (all, up) in [("any", true), ("all", false)] {
        let mut w = World::with_carrier(&format!("{two} arp_all_targets={all}"), ["a", "b"]);
        w.net.hosts.extend([host(2), host(3)]);
        w.after_ms(2000);
        assert_eq!(active(&w).as_deref(), Some("a"));
        w.net.hosts.remove(&host(3));
        w.after_ms(2000);
        assert_eq!(active(&w).is_some(), up, "{all}");
    }
}

#[test]
fn all_targets_without_validation_and_two_monitors_are_refused() {
    let mut w = world(ARP);
    let refused = |w: &mut World, options: &str| w.try_set(options).unwrap_err().to_string();
    assert!(refused(&mut w, "arp_all_targets=all").contains("validated"));
    assert!(refused(&mut w, "arp_interval=100 miimon=100").contains("one monitor"));
    assert_eq!(w.bond.status(w.now()).bond.monitor.as_deref(), Some("arp"));
    w.set("miimon=50");
    assert_eq!(w.bond.status(w.now()).bond.monitor.as_deref(), Some("mii"));
    w.set("arp_interval=50");
    assert_eq!(w.bond.status(w.now()).bond.monitor.as_deref(), Some("arp"));
}

#[test]
fn a_target_that_is_reached_elsewhere_does_not_count() {
    let mut w = World::with_carrier("mode=1 arp_interval=100", ["a", "b"]);
    w.net.hosts.insert(host(2));
    let elsewhere = Reach::Elsewhere {
        device: "eth9".to_owned(),
    };
    w.routes.insert(IpAddr::from([10, 9, 9, 9]), elsewhere.clone());
    w.set("arp_ip_target=10.0.0.2,10.9.9.9 arp_validate=all arp_all_targets=all")
        .after_ms(3000);
    assert_eq!(active(&w).as_deref(), Some("a"));
    assert!(!w.bond.status(w.now()).bond.unmonitored);
    assert!(w.saw(
        |notice| matches!(notice, Notice::Warning { about: Warning::TargetElsewhere { target, device }, .. } if target.to_string() == "10.9.9.9" && device == "eth9")
    ));

    w.routes.insert(host(2), elsewhere);
    w.clear().after_ms(3000);
    assert!(w.bond.status(w.now()).bond.unmonitored, "nobody can be asked");
    let unmonitored = |n: &Notice| {
        matches!(
            n,
            Notice::Warning {
                about: Warning::NoTarget | Warning::Unmonitored,
                ..
            }
        )
    };
    assert!(w.saw(unmonitored));
    assert_eq!(active(&w).as_deref(), Some("a"), "carrier is all there is to go by");
    w.carrier("a", Carrier::Off);
    assert_eq!(active(&w).as_deref(), Some("b"));

    w.routes.clear();
    w.clear().after_ms(3000);
    for target in [host(2), IpAddr::from([10, 9, 9, 9])] {
        assert!(w.saw(|n| *n == Notice::TargetCounts { target }), "{target}");
    }
    assert!(w.saw(|n| matches!(n, Notice::Monitored { targets: true })));
    w.clear().set("arp_ip_target=none").after_ms(3000);
    assert!(w.saw(unmonitored), "also without a target at all");
    w.clear().after_ms(3000);
    assert!(!w.saw(unmonitored), "once");
}

#[test]
fn a_bond_that_waited_for_targets_gives_its_ports_time_when_it_gets_one() {
    let mut w = World::with_carrier("mode=0 arp_interval=100", ["a", "b"]);
    w.after_ms(5000);
    assert!(w.bond.status(w.now()).bond.unmonitored);
    w.net.hosts.insert(host(2));
    w.clear().set("arp_ip_target=+10.0.0.2").after_ms(2000);
    assert!(
        !w.saw(|notice| matches!(notice, Notice::Down { .. })),
        "{:?}",
        w.notices
    );
    assert_eq!(w.link("b"), LinkWord::Up);
}

#[test]
fn probes_bear_the_source_address_and_the_tags_of_their_way() {
    let mut w = World::with_carrier("mode=1 arp_interval=100", ["a"]);
    let way = Reach::Through {
        source: None,
        tags: vec![Tag::s(5), Tag::c(7)],
    };
    w.routes.insert(host(2), way);
    w.set("arp_ip_target=10.0.0.2").after_ms(100);
    let frame = &w.probes[0].frame;
    assert_eq!(frame[12..22], [0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, 8, 6]);
    let arp = Arp::parse(frame).unwrap();
    assert_eq!((arp.sender_ip.is_unspecified(), arp.target_ip.into()), (true, host(2)));
    assert_eq!(arp.sender_mac, w.plan().mac);
}

#[test]
fn neighbour_solicitations_follow_the_same_rules() {
    let target = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]);
    let mut w = World::with_carrier(
        "mode=1 arp_interval=100 ns_ip6_target=fd00::2 arp_validate=all",
        ["a", "b"],
    );
    w.net.hosts.insert(target);
    w.after_ms(2000);
    assert_eq!((w.link("a"), w.link("b")), (LinkWord::Up, LinkWord::Up));
    kill(&mut w, "a");
    w.after_ms(300);
    assert_eq!(active(&w).as_deref(), Some("b"));
}

#[test]
fn what_a_verdict_rests_on_is_told_by_target_and_age() {
    let mut w = world(&format!("{ARP} arp_validate=all"));
    w.after_ms(40);
    let (a, b) = (w.status("a").evidence.unwrap(), w.status("b").evidence.unwrap());
    let told = |evidence: &bond_modes::EvidenceStatus| serde_json::to_value(evidence).unwrap();
    let (a, b) = (told(&a), told(&b));
    assert_eq!(a["counts"], "validated");
    assert_eq!(a["answers"][0]["target"], "10.0.0.2");
    assert_eq!(
        (&a["answers"][0]["by"], &b["answers"][0]["by"]),
        (&"reply".into(), &"request".into())
    );
    assert!(a["answers"][0]["ms_ago"].as_u64().unwrap() <= 100);
    let targets = serde_json::to_value(w.bond.status(w.now()).bond.targets).unwrap();
    assert_eq!(
        (&targets[0]["monitored"], &targets[0]["source"]),
        (&true.into(), &"10.0.0.1".into())
    );
}

#[test]
fn a_restart_after_a_long_pause_takes_no_port_down() {
    let mut w = world(&format!("{ARP} arp_validate=all"));
    let saved = w.bond.saved();
    let later = w.now() + Duration::from_secs(600);
    w.skip_to(later);
    w.restart(Some(saved)).after_ms(2000);
    assert!(
        !w.saw(|notice| matches!(notice, Notice::Down { .. } | Notice::ActiveChanged { .. })),
        "{:?}",
        w.notices
    );
}

/// The driver's own rule on the active port: windows of arp_missed_max, one probe an interval.
/// [bond_main.c: bond_ab_arp_inspect]
fn driver_failures(world: &World, ticks: u64, missed: u64) -> u64 {
    let (mut silent, mut failures) = (0, 0);
    for tick in 0..ticks {
        // Now is `silent` intervals after the last answer.
        if 2 * silent > 2 * missed + 1 {
            failures += 1;
            silent = 0;
        }
        let lost = world.net.loses(world.now() + Duration::from_millis(100 * tick));
        silent = if lost { silent + 1 } else { 1 };
    }
    failures
}

#[test]
fn an_hour_with_a_fifth_of_the_answers_lost_sees_no_failover() {
    const HOUR: u64 = 36_000;
    let (mut ours, mut drivers) = (0, 0);
    for seed in 1..=4 {
        let mut w = world(&format!("{ARP} arp_missed_max=5 arp_validate=all"));
        w.net.loss = 20;
        w.net.seed = seed;
        drivers += driver_failures(&w, HOUR, 5);
        w.after_ms(HOUR * 100);
        let downs = |notice: &Notice| matches!(notice, Notice::Down { .. } | Notice::ActiveChanged { .. });
        ours += w.notices.iter().filter(|(_, notice)| downs(notice)).count();
    }
    println!(
        "four hours at 100 ms, 20 % of the answers lost, arp_missed_max=5: bondd {ours} failovers, the driver's rule {drivers}"
    );
    assert_eq!(ours, 0);
    assert!(drivers > 0, "the losses are too few to show anything");
}

#[test]
fn overdue_answers_are_asked_for_again_within_the_interval_and_only_then() {
    let mut w = world(ARP);
    w.after_ms(1000);
    assert_eq!(w.probes.len(), 10, "one an interval while answers come");
    w.clear().net.hosts.clear();
    w.after_ms(274);
    let in_last_interval = w
        .probes
        .iter()
        .filter(|sent| w.now().since(sent.at) < Duration::from_millis(100));
    assert_eq!(in_last_interval.count(), 3);
    assert_eq!(w.active().as_deref(), Some("a"));
    w.after_ms(1);
    assert_eq!(
        w.active().as_deref(),
        Some("b"),
        "the verdict does not wait for the tick"
    );
}

#[test]
fn memberships_are_reported_as_often_as_resend_igmp_says() {
    let mut w = World::with_carrier("mode=1 miimon=100 resend_igmp=3", ["a", "b"]);
    w.after_ms(1000).clear();
    let start = w.now();
    w.carrier("a", Carrier::Off).after_ms(2000);
    let b = w.port("b");
    let times: Vec<_> = w
        .rejoined
        .iter()
        .map(|(at, port)| (at.since(start).as_millis(), *port))
        .collect();
    assert_eq!(times, [(4, b), (204, b), (404, b)]);
}

#[test]
fn addresses_behind_the_bond_are_announced_once_each_and_not_all_at_once() {
    let mut w = World::with_carrier("mode=1 miimon=100 num_grat_arp=0", ["a", "b"]);
    w.hosts_behind = (0..200)
        .map(|n| HostBehind {
            mac: MacAddr([2, 1, 0, 0, 0, n]),
            tags: vec![Tag::c(7)],
        })
        .collect();
    w.after_ms(1000).clear();
    let start = w.now();
    w.carrier("a", Carrier::Off).after_ms(2000);
    let mut sources: Vec<MacAddr> = w.sent.iter().map(|sent| strip(&sent.frame).unwrap().source).collect();
    assert_eq!(sources.len(), 200);
    sources.sort();
    sources.dedup();
    assert_eq!(sources.len(), 200);
    assert!(
        w.sent
            .iter()
            .all(|sent| sent.port == w.port("b") && sent.frame[..6] == [0xff; 6])
    );
    let last = w.sent.iter().map(|sent| sent.at.since(start)).max().unwrap();
    assert!(last <= Duration::from_millis(250), "{last:?}");
    let most = w.sent.iter().filter(|sent| sent.at == start).count();
    assert!(most <= 32, "{most} at once");

    w.clear()
        .set("learn_packets=0")
        .carrier("a", Carrier::On)
        .carrier("b", Carrier::Off)
        .after_ms(1000);
    assert!(w.sent.is_empty());
}

#[test]
fn a_queue_is_bound_to_a_port_while_its_link_is_up() {
    let mut w = World::with_carrier("mode=1 miimon=100", ["a", "b"]);
    let b = w.port("b");
    w.set_port("b", "queue_id=2").unwrap();
    let what = Match::Queue(2);
    assert_eq!(w.plan().steer, [Steer { what, to: b }]);
    assert!(
        w.set_port("a", "queue_id=2")
            .unwrap_err()
            .to_string()
            .contains("b already")
    );
    assert!(w.set_port("a", "queue_id=17").is_err());
    w.carrier("b", Carrier::Off);
    assert!(w.plan().steer.is_empty());
}

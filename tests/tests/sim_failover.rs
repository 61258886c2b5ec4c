//! Failovers that the data plane makes by itself: what is prepared, and that what it did and what the bond concludes agree.

use bond_modes::{Accept, ForwardingPlan, Machine, NoFailover, Notice, Tx};
use bond_monitors::Carrier::{Off, On};
use bondd_tests::sim::World;
use bondd_tests::sim::rng::Rng;

/// A bond with carrier on these ports whose plane fails over by itself.
fn world<const N: usize>(options: &str, ports: [&str; N]) -> World {
    let mut w = World::with_carrier(options, ports);
    w.fails_over(true).after_ms(1);
    w.forget()
}

/// The port that would carry everything after the loss of this one.
fn after(w: &World, lost: &str) -> Option<String> {
    let failover = w.plan().if_lost.get(&w.port(lost))?;
    let [next] = failover.tx.ports[..] else {
        panic!("{:?}", failover.tx)
    };
    w.bond.ports().name(next)
}

#[test]
fn the_port_that_would_become_active_is_prepared_by_the_rules_of_the_bond() {
    let mut w = world("miimon=100", ["a", "b", "c"]);
    assert_eq!(after(&w, "a").as_deref(), Some("b"));
    assert_eq!(after(&w, "b"), None, "it is not in use");
    w.set("primary=c primary_reselect=failure").set("active_slave=a");
    assert_eq!(after(&w, "a").as_deref(), Some("c"), "the primary comes first");
    w.set("primary=").prio("b", 5);
    w.set("active_slave=a");
    assert_eq!(after(&w, "a").as_deref(), Some("b"), "the higher prio comes first");
    w.carrier("b", Off);
    assert_eq!(after(&w, "a").as_deref(), Some("c"));
    w.carrier("c", Off);
    assert_eq!(after(&w, "a"), None, "no port is left");
}

#[test]
fn a_port_that_waits_in_updelay_takes_over_if_no_other_is_left() {
    let mut w = world("miimon=100 updelay=1000", ["a", "b"]);
    w.carrier("b", Off).after_ms(500).carrier("b", On);
    assert_eq!(after(&w, "a").as_deref(), Some("b"));
}

#[test]
fn nothing_is_prepared_where_something_else_than_carrier_decides() {
    for (options, why) in [
        ("arp_interval=100 arp_ip_target=10.0.0.2", NoFailover::ArpMonitor),
        ("miimon=0", NoFailover::NoMonitor),
        ("miimon=100 use_carrier=0", NoFailover::UseCarrier),
        ("miimon=100 downdelay=200", NoFailover::Downdelay),
        ("miimon=100 fail_over_mac=active", NoFailover::Otherwise),
        ("miimon=100 fail_over_mac=follow", NoFailover::Otherwise),
    ] {
        let w = world(options, ["a", "b"]);
        assert!(w.plan().if_lost.is_empty(), "{options}: {:?}", w.plan().if_lost);
        assert_eq!(w.bond.why_no_failover(), Some(why), "{options}");
    }
    let mut w = world("miimon=100", ["a", "b"]);
    assert_eq!(w.bond.why_no_failover(), None);
    w.up(false);
    assert_eq!(w.bond.why_no_failover(), Some(NoFailover::BondDown));
    w.up(true).carrier("b", Off);
    assert_eq!(w.bond.why_no_failover(), Some(NoFailover::NoOtherPort));
    let w = world("mode=0 miimon=100", ["a", "b", "c", "d", "e"]);
    assert_eq!(w.bond.why_no_failover(), Some(NoFailover::ManyPorts));
}

#[test]
fn nothing_is_prepared_where_frames_of_a_queue_would_have_to_move_as_well() {
    for mode in ["mode=1", "mode=0"] {
        let mut w = world(&format!("{mode} miimon=100"), ["a", "b", "c"]);
        w.set_port("a", "queue_id=2").unwrap();
        let lost: Vec<_> = w.plan().if_lost.keys().copied().collect();
        let others = [w.port("b"), w.port("c")];
        assert_eq!(lost, if mode == "mode=1" { &[][..] } else { &others[..] }, "{mode}");
        w.set_port("a", "queue_id=0").unwrap();
        assert!(w.plan().if_lost.contains_key(&w.port("a")), "{mode}");
    }
}

#[test]
fn modes_that_spread_traffic_go_on_with_the_others() {
    for mode in ["mode=0", "mode=2 xmit_hash_policy=layer3+4", "mode=3"] {
        let w = world(&format!("{mode} miimon=100"), ["a", "b", "c"]);
        let lost: Vec<_> = w.plan().if_lost.keys().copied().collect();
        assert_eq!(lost, ["a", "b", "c"].map(|port| w.port(port)), "{mode}");
        let failover = &w.plan().if_lost[&w.port("a")];
        assert_eq!(failover.tx, w.plan().tx.among(|port| port != w.port("a")), "{mode}");
        assert!(failover.accept.is_empty(), "{mode}");
    }
}

#[test]
fn what_the_plane_noted_comes_before_the_link_event_and_counts_once() {
    let mut w = world("miimon=100", ["a", "b"]);
    w.events_late = true;
    w.set_carrier(w.port("a"), Off);
    assert_eq!(w.plan().tx, Tx::one(Some(w.port("b"))), "the plane did it");
    assert_eq!(
        (w.lets_in("b"), w.lets_in("a")),
        (Some(Accept::All), Some(Accept::Unicast))
    );
    assert_eq!(w.active().as_deref(), Some("a"), "nobody told the bond yet");
    w.deliver_losses();
    assert_eq!(w.active().as_deref(), Some("b"));
    w.after_ms(2).deliver_events();
    w.after_ms(500);
    assert_eq!(w.status("a").link_failures, 1);
    let noted = w.notices.iter().filter(|(_, n)| matches!(n, Notice::FailedOver { .. }));
    assert_eq!(noted.count(), 1);
}

#[test]
fn a_carrier_that_is_back_when_the_note_is_read_was_lost_all_the_same() {
    let mut w = world("miimon=100 primary=a", ["a", "b"]);
    w.events_late = true;
    for carrier in [Off, On] {
        w.set_carrier(w.port("a"), carrier);
    }
    assert_eq!(w.plan().tx, Tx::one(Some(w.port("b"))), "the plane did it");
    w.deliver_losses().after_ms(300);
    assert_eq!((w.active().as_deref(), w.status("a").link_failures), (Some("a"), 1));
    assert_eq!(w.plan().tx, Tx::one(Some(w.port("a"))));
}

/// The kernel tells of both changes together, as the carrier is by then.
#[test]
fn a_carrier_whose_return_was_told_before_the_note_is_asked_for_and_not_polled_for() {
    let mut w = world("miimon=60000", ["a", "b"]);
    w.after_ms(10);
    (w.events_late, w.reads_anew) = (true, true);
    for carrier in [Off, On] {
        w.set_carrier(w.port("a"), carrier);
    }
    w.deliver_events().after_ms(10);
    assert_eq!(w.active().as_deref(), Some("b"), "it was lost all the same");
    assert!(w.status("a").carrier);
}

#[test]
fn a_note_from_before_the_agent_started_takes_no_port_down() {
    let mut w = world("miimon=60000", ["a", "b"]);
    let saved = w.bond.saved();
    for carrier in [Off, On] {
        let (now, a) = (w.after_ms(10).now(), w.port("a"));
        w.kernel.set_carrier(now, a, carrier);
    }
    w.after_ms(10).forget_events().clear();
    w.restart(Some(saved));
    assert!(w.status("a").carrier && w.status("a").usable, "it has its carrier");
    let took_down = |notice: &Notice| matches!(notice, Notice::Down { .. });
    assert!(!w.saw(took_down), "{:?}", w.notices);
    assert_eq!(w.active().as_deref(), Some("b"));
}

/// Whatever happened while no agent ran, the next one agrees with the kernel about where the traffic is.
#[test]
fn after_any_faults_without_an_agent_bond_and_plane_agree() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let options = OPTIONS[rng.below(OPTIONS.len() as u64) as usize];
        let mut w = world(options, PORTS);
        for _ in 0..3 {
            w.after_ms(1000);
            let saved = w.bond.saved();
            for _ in 0..200 {
                let then = w.now() + std::time::Duration::from_millis(1 + rng.below(5000));
                let port = w.port(PORTS[rng.below(PORTS.len() as u64) as usize]);
                let carrier = bond_monitors::Carrier::from_bool(rng.below(2) == 0);
                w.skip_to(then);
                w.kernel.set_carrier(then, port, carrier);
            }
            assert!(w.kernel.losses.len() <= 1, "one note for all that was prepared");
            w.forget_events().restart(Some(saved)).after_ms(1000);
            let on: Vec<&str> = PORTS
                .into_iter()
                .filter(|port| w.kernel.nics[&w.port(port)].report.carrier.is_on())
                .collect();
            for port in PORTS {
                assert_eq!(
                    w.status(port).carrier,
                    on.contains(&port),
                    "{options}, seed {seed}: {port}"
                );
            }
            let sends = |port: &&str| w.plan().tx.named().any(|named| named == w.port(port));
            let sending: Vec<&str> = PORTS.into_iter().filter(sends).collect();
            if let Some(active) = w.active() {
                assert_eq!(sending, [active.as_str()], "{options}, seed {seed}");
            }
            if !on.is_empty() {
                assert!(
                    !sending.is_empty() && sending.iter().all(|port| on.contains(port)),
                    "{options}, seed {seed}: {sending:?} of {on:?}"
                );
            }
            assert_eq!(traffic(w.bond.plan()), traffic(w.plan()), "{options}, seed {seed}");
        }
    }
}

#[test]
fn a_loss_that_was_learned_from_its_event_is_none_again_when_the_note_is_read() {
    let mut w = world("miimon=100", ["a", "b"]);
    let a = w.port("a");
    w.after_ms(10);
    w.events_late = true;
    w.set_carrier(a, Off);
    let losses = std::mem::take(&mut w.kernel.losses);
    w.after_ms(1);
    w.events_late = false;
    w.deliver_events();
    w.after_ms(5).carrier("a", On).after_ms(200);
    w.kernel.losses = losses;
    w.deliver_losses().run_due();
    assert_eq!(w.status("a").link_failures, 1);
    assert!(w.status("a").carrier, "the old note says nothing of it");
}

#[test]
fn the_loss_of_a_port_that_waits_ends_what_was_prepared_until_the_bond_knows() {
    let mut w = world("miimon=100", ["a", "b", "c"]);
    w.events_late = true;
    w.set_carrier(w.port("b"), Off);
    w.set_carrier(w.port("a"), Off);
    assert_eq!(w.plan().tx, Tx::one(Some(w.port("a"))), "b would have been wrong");
    w.deliver_events();
    assert_eq!(w.plan().tx, Tx::one(Some(w.port("c"))));
}

#[test]
fn an_agent_that_was_away_for_an_hour_goes_on_from_what_the_plane_did() {
    let mut w = world("miimon=100 num_grat_arp=3", ["a", "b", "c"]);
    w.addresses(vec![bond_modes::LocalAddress {
        ip: [10, 0, 0, 1].into(),
        mac: None,
        tags: vec![],
        router: false,
    }]);
    w.clear();
    let saved = w.bond.saved();
    let (a, b) = (w.port("a"), w.port("b"));
    for (ms, port, carrier) in [
        (600_000, a, Off),
        (1_200_000, a, On),
        (1_800_000, b, Off),
        (3_600_000, b, On),
    ] {
        let then = w.now() + std::time::Duration::from_millis(ms) / 4;
        w.skip_to(then);
        w.kernel.set_carrier(then, port, carrier);
    }
    assert_eq!(
        w.plan().tx,
        Tx::one(Some(b)),
        "the first loss was answered, nobody answered the second"
    );
    w.forget_events().restart(Some(saved)).after_ms(1000);
    assert_eq!(
        w.active().as_deref(),
        Some("b"),
        "it carries the traffic and has its carrier"
    );
    assert_eq!(
        (w.status("a").link_failures, w.status("b").link_failures),
        (0, 0),
        "it saw no port without its carrier"
    );
    assert!(w.saw(|n| matches!(n, Notice::FailedOver { port, ago } if port == "a" && ago.as_secs() > 1000)));
    assert!(
        !w.sent.is_empty() && w.sent.iter().all(|sent| sent.port == b),
        "announced through b"
    );
}

/// The same faults, each known at once, with a plane that fails over by itself and with one that does not.
#[test]
fn with_and_without_the_plane_a_bond_does_and_says_the_same() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let options = OPTIONS[rng.below(OPTIONS.len() as u64) as usize];
        let mut worlds = [false, true].map(|fails_over| {
            let mut w = World::with_carrier(options, PORTS);
            w.fails_over(fails_over);
            w.forget()
        });
        for _ in 0..60 {
            let (port, wait) = (PORTS[rng.below(PORTS.len() as u64) as usize], 1 + rng.below(300));
            for w in &mut worlds {
                let carrier = !w.kernel.nics[&w.port(port)].report.carrier.is_on();
                w.carrier(port, bond_monitors::Carrier::from_bool(carrier))
                    .after_ms(wait);
            }
            let [without, with] = &worlds;
            assert_eq!(traffic(without.plan()), traffic(with.plan()), "{options}, seed {seed}");
            let said = |w: &World| -> Vec<Notice> {
                let all = w.notices.iter().map(|(_, notice)| notice.clone());
                all.filter(|notice| !matches!(notice, Notice::FailedOver { .. }))
                    .collect()
            };
            assert_eq!(said(without), said(with), "{options}, seed {seed}");
        }
    }
}

fn traffic(plan: &ForwardingPlan) -> ForwardingPlan {
    ForwardingPlan {
        if_lost: Default::default(),
        ..plan.clone()
    }
}

const PORTS: [&str; 3] = ["a", "b", "c"];
const OPTIONS: [&str; 7] = [
    "miimon=100",
    "miimon=50 updelay=200 primary=a",
    "miimon=100 downdelay=100",
    "miimon=100 fail_over_mac=follow",
    "mode=0 miimon=100 updelay=200",
    "mode=2 miimon=100",
    "mode=3 miimon=100 updelay=300 downdelay=200",
];

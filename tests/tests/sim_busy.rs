//! Turns of the agent that block, or that follow each other without a gap: no port is blamed for them, and what is due is done in
//! bounded time.

use std::time::Duration;

use bond_modes::{HostBehind, LocalAddress, Machine, Notice};
use bond_monitors::wire::ethernet::strip;
use bond_monitors::{Carrier, MacAddr, Time};
use bondd_tests::sim::arp::{ARP, VALIDATE, host, kill, world};
use bondd_tests::sim::{Slow, World};

/// Whether a port is called dead.
fn is_blame(notice: &Notice) -> bool {
    matches!(notice, Notice::Silent { .. } | Notice::Down { .. })
}

#[test]
fn an_agent_that_was_held_up_does_not_blame_the_ports() {
    let mut w = world(ARP);
    let later = w.now() + Duration::from_secs(5);
    w.skip_to(later);
    w.run_due().after_ms(2000);
    assert!(!w.saw(is_blame), "{:?}", w.notices);
}

#[test]
fn no_port_is_blamed_for_a_call_that_blocked_the_agent() {
    for mode in [0, 1] {
        for validate in ["none", "all", "filter"] {
            for missed in [1, 2] {
                // Wherever in a turn it blocks: before what arrived is read, while probes are sent, or after all.
                for after in 0..6 {
                    let options = format!("{ARP} mode={mode} arp_validate={validate} arp_missed_max={missed}");
                    let mut w = world(&options);
                    w.net.chatter = Duration::from_millis(20);
                    for takes in [60, 99, 100, 170, 300, 2000] {
                        let takes = Duration::from_millis(takes);
                        w.slow = Some(Slow { after, takes });
                        w.after_ms(130);
                    }
                    assert!(!w.saw(is_blame), "{options}, after {after} actions: {:?}", w.notices);
                }
            }
        }
    }
}

/// Three ports, of which the last two hear the questions of the first.
fn three_ports(more: &str) -> World {
    let mut world = World::with_carrier(
        &format!("{ARP} arp_validate=all arp_missed_max=1 {more}"),
        ["a", "b", "c"],
    );
    world.net.hosts.extend([host(2), host(3)]);
    world.after_ms(1000).clear();
    world
}

#[test]
fn a_turn_that_blocks_between_two_frames_does_not_hide_what_a_backup_port_hears() {
    for takes in [60, 99, 160, 300, 480] {
        let mut w = three_ports("");
        for _ in 0..10 {
            while w.net.poll_timeout().is_none() {
                let due = w.bond.poll_timeout().unwrap();
                w.at(due.max(w.now()));
            }
            // The turn that reads the first frame of the round; the others are read by the next turn, and there the answer to the
            // active port comes last.
            w.slow = Some(Slow {
                after: 0,
                takes: Duration::from_millis(takes),
            });
            w.after_ms(1);
            assert_eq!(w.slow, None, "a frame was read");
        }
        assert!(!w.saw(is_blame), "turns of {takes} ms: {:?}", w.notices);
    }
}

#[test]
fn a_turn_that_blocks_before_an_overheard_question_counts_does_not_make_it_old() {
    for takes in [60, 99, 160, 300, 480] {
        let mut w = three_ports("arp_ip_target=10.0.0.2,10.0.0.3 arp_all_targets=all");
        let a = w.port("a");
        let slow = |after| {
            let takes = Duration::from_millis(takes);
            Some(Slow { after, takes })
        };
        // The tick's turn blocks between its two questions, so that the frames of the first one are read alone; then the turn of a
        // link event blocks before those of the second one are read.
        w.after_ms(99);
        w.slow = slow(2);
        w.after_ms(1);
        w.slow = slow(1);
        w.link_event(a);
        w.after_ms(1000);
        assert!(!w.saw(is_blame), "turns of {takes} ms: {:?}", w.notices);
    }
}

/// Turns that follow each other without a gap: how long each takes, in microseconds, with which `arp_interval`.
const BUSY: [(u64, u64); 7] = [
    (1_300, 10),
    (3_000, 10),
    (15_000, 10),
    (13_000, 100),
    (70_000, 100),
    (100_000, 100),
    (170_000, 100),
];

#[test]
fn a_busy_agent_sends_probes_every_interval_or_every_turn() {
    for (takes, interval) in BUSY {
        let (takes, interval) = (Duration::from_micros(takes), Duration::from_millis(interval));
        let mut w = world(&format!("{ARP} arp_interval={}", interval.as_millis()));
        let begun = w.now();
        w.busy_for_ms(Slow { after: 1, takes }, 3000);
        // A tick waits for the turn that runs when it is due, and its probes may leave at the end of its own turn.
        let longest = interval + takes * 2;
        let mut last = begun;
        for sent in &w.probes {
            let gap = sent.at.since(last);
            assert!(gap <= longest, "turns of {takes:?}, every {interval:?}: {gap:?}");
            last = sent.at;
        }
        assert!(
            w.now().since(last) <= longest,
            "turns of {takes:?}, every {interval:?}: none after {last:?}"
        );
    }
}

#[test]
fn a_busy_agent_finds_a_dead_path_in_bounded_time() {
    for (takes, interval) in BUSY {
        for (mode, validate) in [0, 1]
            .into_iter()
            .flat_map(|mode| VALIDATE.map(|validate| (mode, validate)))
        {
            for after in [0, 1, 2, 5] {
                let takes = Duration::from_micros(takes);
                let round = Duration::from_millis(interval).max(takes);
                let options = format!("{ARP} mode={mode} arp_validate={validate} arp_interval={interval}");
                let mut w = world(&options);
                w.busy_for_ms(Slow { after, takes }, (round * 12).as_millis() as u64);
                let what = format!("{options}, turns of {takes:?} that block after {after} actions");
                assert!(!w.saw(is_blame), "{what}: {:?}", w.notices);
                kill(&mut w, "a");
                let died = w.now();
                w.busy_for_ms(Slow { after, takes }, (round * 12).as_millis() as u64);
                let found = w.notices.iter().find(|(_, notice)| is_blame(notice));
                let (at, _) = found.unwrap_or_else(|| panic!("{what}: never found"));
                // Two intervals may be missed, one more has begun; where an interval is shorter than a turn, turns count, and answers
                // are read a turn later.
                let found_after = at.since(died);
                let rounds = if takes * 2 < Duration::from_millis(interval) {
                    6
                } else {
                    10
                };
                assert!(found_after <= round * rounds, "{what}: {found_after:?}");
            }
        }
    }
}

#[test]
fn a_busy_agent_finds_a_dead_target_among_others_that_answer() {
    for (takes, interval) in BUSY {
        let takes = Duration::from_micros(takes);
        let mut w = World::with_carrier(
            &format!(
                "mode=1 arp_interval={interval} arp_ip_target=10.0.0.2,10.0.0.3 arp_validate=active arp_all_targets=all"
            ),
            ["a", "b"],
        );
        w.net.hosts.extend([host(2), host(3)]);
        let slow = Slow { after: 1, takes };
        w.busy_for_ms(slow, 3000);
        assert!(!w.saw(is_blame), "{takes:?} {interval}: {:?}", w.notices);
        w.net.hosts.remove(&host(3));
        let round = Duration::from_millis(interval).max(takes);
        w.busy_for_ms(slow, (round * 10).as_millis() as u64);
        assert!(w.saw(is_blame), "{takes:?} {interval}");
    }
}

/// A bond with an address and several rounds of announcements.
fn announcing() -> World {
    let mut w = World::with_carrier("mode=1 miimon=100 num_grat_arp=3 resend_igmp=3", ["a", "b"]);
    w.addresses(vec![LocalAddress {
        ip: host(1),
        mac: None,
        tags: Vec::new(),
        router: false,
    }]);
    w
}

#[test]
fn a_busy_agent_sends_all_that_is_announced() {
    for takes in [3, 13, 70, 170] {
        let mut w = announcing();
        w.hosts_behind = (0..100)
            .map(|n| HostBehind {
                mac: MacAddr([2, 1, 0, 0, 0, n]),
                tags: Vec::new(),
            })
            .collect();
        w.after_ms(1000).clear();
        w.carrier("b", Carrier::Off).carrier("b", Carrier::On).clear();
        let slow = Slow {
            after: 1,
            takes: Duration::from_millis(takes),
        };
        w.slow = Some(slow);
        // A port that is left although its link is good lets frames in for a second.
        w.set("active_slave=b");
        let a = w.port("a");
        let accepts = |w: &World| w.plan().ports[&a].accept;
        let just_left = accepts(&w);
        let begun = w.now();
        w.busy_for_ms(slow, 2000);
        let (of_stations, rounds): (Vec<_>, Vec<_>) = w
            .sent
            .iter()
            .partition(|sent| strip(&sent.frame).unwrap().source.0[..2] == [2, 1]);
        assert_eq!(of_stations.len(), 100, "turns of {takes} ms");
        assert_eq!(rounds.len(), 3, "turns of {takes} ms");
        assert_eq!(w.rejoined.len(), 3, "turns of {takes} ms");
        // Each may wait for the turn in which the one before left and for the one that runs when it is due.
        let within = |at: Time, regular: u64| {
            let took = at.since(begun).as_millis() as u64;
            assert!(
                took <= regular + 8 * takes,
                "turns of {takes} ms: {took} ms instead of {regular}"
            );
        };
        within(rounds[2].at, 200);
        within(w.rejoined[2].0, 404);
        within(of_stations[99].at, 4 + 3 * 10);
        assert_ne!(accepts(&w), just_left, "turns of {takes} ms");
    }
}

#[test]
fn announcements_keep_their_distance_when_the_agent_is_held_up() {
    let mut w = announcing();
    w.after_ms(1000).clear();
    w.slow = Some(Slow {
        after: 1,
        takes: Duration::from_millis(450),
    });
    w.carrier("a", Carrier::Off).after_ms(2000);
    let gaps = |times: Vec<Time>| -> Vec<u128> {
        let pairs = times.windows(2);
        pairs.map(|pair| pair[1].since(pair[0]).as_millis()).collect()
    };
    assert_eq!(gaps(w.sent.iter().map(|sent| sent.at).collect()), [100, 100]);
    assert_eq!(gaps(w.rejoined.iter().map(|(at, _)| *at).collect()), [200, 200]);
}

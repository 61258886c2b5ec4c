//! The rules of active-backup with the MII monitor, one test a rule: delays, selection, options, restart.

use std::time::Duration;

use bond_modes::{Accept, LinkWord, Machine, Notice, OptionError, Saved, SwitchReason, Tx, Warning};
use bond_monitors::Carrier::{Off, On};
use bondd_tests::sim::World;

fn active(world: &World) -> String {
    world.active().unwrap_or_default()
}

#[test]
fn without_delays_a_carrier_event_moves_the_traffic_at_once() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    w.at_ms(30).carrier("a", Off);
    assert_eq!(w.plan().tx, Tx::one(Some(w.port("b"))));
    assert_eq!(w.plans.len(), 1, "one plan says it all");
    assert!(w.saw(|n| matches!(
        n,
        Notice::ActiveChanged {
            reason: SwitchReason::LinkDown,
            ..
        }
    )));
}

#[test]
fn a_poll_finds_within_miimon_what_events_missed() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    w.events_seen = false;
    w.at_ms(130).carrier("a", Off).at_ms(199);
    assert_eq!(active(&w), "a");
    w.at_ms(200);
    assert_eq!(active(&w), "b");
}

#[test]
fn polls_rest_while_the_agent_says_so_and_the_bond_itself_is_looked_at_ten_times_a_second() {
    let mut w = World::with_carrier("miimon=1", ["a", "b"]);
    w.at_ms(1000).clear().at_ms(2000);
    assert_eq!((w.polls, w.looks), (2000, 10));
    w.hold_polls_until_ms(2500).clear().at_ms(2499);
    assert_eq!((w.polls, w.looks), (0, 0));
    w.at_ms(2500);
    assert_eq!((w.polls, w.looks), (2, 1));
}

#[test]
fn with_use_carrier_off_the_driver_is_asked_whatever_the_event_says() {
    let mut w = World::with_carrier("miimon=100 use_carrier=0", ["a", "b"]);
    let a = w.port("a");
    w.at_ms(10);
    w.kernel.nics.get_mut(&a).unwrap().driver = Off;
    w.clear().link_event(a);
    assert_eq!(w.polls, 1, "the event asks");
    assert_eq!(active(&w), "b");
}

#[test]
fn a_port_is_used_only_after_updelay() {
    let mut w = World::with_carrier("miimon=100 updelay=300", ["a"]);
    w.plug("b").attach("b").at_ms(1000).carrier("b", On).set("primary=b");
    assert_eq!(w.link("b"), LinkWord::GoingBack);
    w.at_ms(1299);
    assert_eq!(active(&w), "a");
    w.at_ms(1300);
    assert_eq!(active(&w), "b");
}

#[test]
fn carrier_lost_within_updelay_starts_the_wait_anew_and_counts_as_a_failure() {
    let mut w = World::with_carrier("miimon=100 updelay=300", ["a"]);
    w.plug("b").attach("b").at_ms(0).carrier("b", On);
    w.at_ms(200).carrier("b", Off).at_ms(250).carrier("b", On).at_ms(549);
    assert_eq!(w.link("b"), LinkWord::GoingBack);
    assert_eq!(w.status("b").link_failures, 1);
    assert_eq!(w.at_ms(550).link("b"), LinkWord::Up);
}

#[test]
fn updelay_is_skipped_when_all_ports_are_down() {
    let mut w = World::new("miimon=100 updelay=300", ["a", "b"]);
    w.at_ms(10).carrier("b", On);
    assert_eq!(active(&w), "b");
    assert!(w.saw(|n| matches!(n, Notice::UpdelaySkipped { port, .. } if port == "b")));
}

#[test]
fn updelay_is_skipped_for_one_port_only() {
    let mut w = World::new("miimon=100 updelay=300", ["a", "b"]);
    w.at_ms(10).carrier("a", On).carrier("b", On);
    assert_eq!((w.link("a"), w.link("b")), (LinkWord::Up, LinkWord::GoingBack));
}

#[test]
fn the_longest_waiting_port_is_used_when_the_last_good_one_fails() {
    let mut w = World::with_carrier("miimon=100 updelay=300", ["a"]);
    w.plug("b").attach("b").plug("c").attach("c");
    w.at_ms(10).carrier("c", On).at_ms(20).carrier("b", On);
    w.at_ms(100).carrier("a", Off);
    assert_eq!(active(&w), "c");
    assert_eq!(w.link("b"), LinkWord::GoingBack);
}

#[test]
fn the_longest_waiting_port_is_used_when_the_active_one_is_detached() {
    let mut w = World::with_carrier("miimon=100 updelay=300", ["a"]);
    w.plug("b").attach("b").at_ms(10).carrier("b", On).clear().detach("a");
    assert_eq!(active(&w), "b");
    let gone = |n: &Notice| matches!(n, Notice::ActiveChanged { from: Some(from), to: Some(to), reason: SwitchReason::PortGone } if from == "a" && to == "b");
    assert!(w.saw(gone));
}

#[test]
fn a_port_that_waits_with_carrier_comes_before_one_in_downdelay() {
    let mut w = World::with_carrier("miimon=100 downdelay=500", ["a", "b"]);
    w.set("updelay=300").plug("c").attach("c").at_ms(0).carrier("c", On);
    w.at_ms(10).carrier("b", Off).detach("a");
    assert_eq!(active(&w), "c");
}

#[test]
fn a_carrier_that_comes_back_within_downdelay_changes_nothing() {
    let mut w = World::with_carrier("miimon=100 downdelay=200", ["a", "b"]);
    w.at_ms(0).carrier("a", Off).at_ms(199).carrier("a", On).at_ms(1000);
    assert!(w.plans.is_empty(), "{:?}", w.plans);
    assert_eq!(w.status("a").link_failures, 0);
    assert!(w.saw(|n| matches!(n, Notice::UpAgain { .. })));
}

#[test]
fn downdelay_holds_the_traffic_until_its_end() {
    let mut w = World::with_carrier("miimon=100 downdelay=200", ["a", "b"]);
    w.at_ms(50).carrier("a", Off).at_ms(249);
    assert_eq!(active(&w), "a");
    w.at_ms(250);
    assert_eq!(active(&w), "b");
    assert_eq!(w.status("a").link_failures, 1);
}

#[test]
fn downdelay_of_the_last_usable_port_keeps_the_carrier() {
    let mut w = World::with_carrier("miimon=100 downdelay=200", ["a"]);
    w.at_ms(0).carrier("a", Off).at_ms(199);
    assert_eq!(
        (w.plan().carrier, w.plan().tx.clone()),
        (On, Tx::one(Some(w.port("a"))))
    );
    w.at_ms(200);
    assert_eq!((w.plan().carrier, w.plan().tx.is_nowhere()), (Off, true));
}

#[test]
fn a_port_in_downdelay_is_used_when_nothing_else_is_left() {
    let mut w = World::with_carrier("miimon=100 downdelay=500", ["a", "b"]);
    w.at_ms(0).carrier("b", Off).at_ms(10).detach("a");
    assert_eq!((active(&w).as_str(), w.plan().carrier), ("b", On));
    w.set("active_slave=");
    assert_eq!(active(&w), "b");
    assert_eq!(w.at_ms(500).active(), None);
}

#[test]
fn a_recovering_backup_of_equal_rank_does_not_move_the_active_port() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    w.carrier("a", Off).at_ms(100).clear().carrier("a", On).at_ms(500);
    assert_eq!(active(&w), "b");
}

#[test]
fn the_primary_is_taken_back_as_primary_reselect_says() {
    for (reselect, back) in [("always", "a"), ("failure", "b"), ("better", "b")] {
        let mut w = World::with_carrier(&format!("primary=a primary_reselect={reselect}"), ["a", "b"]);
        w.carrier("a", Off).at_ms(100).carrier("a", On);
        assert_eq!(active(&w), back, "{reselect}");
        w.carrier("b", Off);
        assert_eq!(active(&w), "a", "{reselect}");
    }
}

#[test]
fn a_faster_primary_is_better() {
    let mut w = World::with_carrier("primary=a primary_reselect=better", ["a", "b"]);
    w.carrier("a", Off);
    let a = w.port("a");
    w.kernel.nics.get_mut(&a).unwrap().report.speed.0 = Some(10_000);
    w.at_ms(100).carrier("a", On);
    assert_eq!(active(&w), "a");
}

#[test]
fn a_primary_named_just_now_is_taken_whatever_primary_reselect_says_but_once() {
    let mut w = World::with_carrier("primary_reselect=failure", ["a", "b"]);
    w.set("primary=b");
    assert_eq!(active(&w), "b");
    w.carrier("b", Off).at_ms(100).carrier("b", On);
    assert_eq!(active(&w), "a");
}

#[test]
fn a_primary_that_is_attached_later_is_forced_then() {
    let mut w = World::with_carrier("primary=b primary_reselect=failure", ["a"]);
    w.plug("b").carrier("b", On).attach("b");
    assert_eq!(active(&w), "b");
}

#[test]
fn the_primary_goes_by_name() {
    let mut w = World::with_carrier("primary=p", ["a", "b", "c"]);
    w.rename("c", "p");
    assert_eq!(active(&w), "p");
    w.set("active_slave=a").rename("b", "z");
    assert_eq!(active(&w), "a", "the name of another port is no reason to choose again");
    w.rename("p", "c").prio("z", 5);
    assert_eq!(active(&w), "z", "without its name it is no primary");
}

#[test]
fn without_a_primary_the_highest_prio_is_active() {
    let mut w = World::with_carrier("miimon=100", ["a", "b", "c"]);
    w.prio("b", 1).prio("c", 2);
    assert_eq!(active(&w), "c");
    w.carrier("c", Off);
    assert_eq!(active(&w), "b");
    w.at_ms(100).carrier("c", On);
    assert_eq!(active(&w), "c");
    assert!(w.saw(|n| matches!(
        n,
        Notice::ActiveChanged {
            reason: SwitchReason::Priority,
            ..
        }
    )));
}

#[test]
fn prio_has_no_effect_while_a_primary_is_attached_and_a_warning_says_so() {
    let mut w = World::with_carrier("primary=a", ["a", "b"]);
    w.prio("b", 9);
    assert_eq!(active(&w), "a");
    assert!(w.saw(|n| matches!(n, Notice::Warning { .. })));
    w.carrier("a", Off).carrier("a", On);
    assert_eq!(active(&w), "a");
}

#[test]
fn the_operators_choice_is_no_pin() {
    let mut w = World::with_carrier("primary=a", ["a", "b", "c"]);
    w.set("active_slave=b");
    assert_eq!(active(&w), "b");
    assert!(w.saw(|n| matches!(
        n,
        Notice::ActiveChanged {
            reason: SwitchReason::Manual,
            ..
        }
    )));
    w.at_ms(100).carrier("c", Off).carrier("c", On);
    assert_eq!(active(&w), "b", "another port's recovery does not matter");
    w.carrier("a", Off).carrier("a", On);
    assert_eq!(active(&w), "a", "the primary's does");
}

#[test]
fn the_operator_can_choose_only_an_attached_port_whose_link_is_up() {
    let mut w = World::with_carrier("miimon=100", ["a"]);
    w.plug("b").attach("b").plug("x");
    assert!(matches!(w.try_set("active_slave=b"), Err(OptionError::PortDown { .. })));
    assert!(matches!(w.try_set("active_slave=x"), Err(OptionError::NotAPort { .. })));
    assert_eq!(active(&w), "a");
}

#[test]
fn a_manual_choice_and_a_primary_in_one_set_are_taken_in_the_drivers_order() {
    let mut w = World::with_carrier("miimon=100", ["a", "b", "c"]);
    w.set("primary=c active_slave=b");
    assert_eq!(active(&w), "c");
    w.set("primary=").carrier("c", Off).set("active_slave=b primary=c");
    assert_eq!(active(&w), "b", "a primary that is down is no choice");
}

#[test]
fn no_manual_choice_lets_the_bond_choose_again() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    w.set("active_slave=b").set("active_slave=");
    assert_eq!(active(&w), "a");
}

#[test]
fn attaching_a_port_does_not_move_the_active_one() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    w.set("active_slave=b").clear().plug("c").carrier("c", On).attach("c");
    assert_eq!(active(&w), "b");
    assert!(w.plans.iter().all(|(_, plan)| plan.tx == Tx::one(Some(w.port("b")))));
}

#[test]
fn detaching_the_active_port_moves_the_traffic_in_one_plan() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    let a = w.port("a");
    w.detach("a");
    assert_eq!(w.plans.len(), 1);
    assert_eq!(active(&w), "b");
    assert!(!w.plan().ports.contains_key(&a));
    assert!(w.saw(|n| matches!(n, Notice::Detached { was_active: true, .. })));
    w.detach("b");
    assert_eq!((w.plan().tx.is_nowhere(), w.plan().carrier), (true, Off));
}

#[test]
fn backup_ports_let_nothing_in_unless_all_slaves_active() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    assert_eq!((w.lets_in("a"), w.lets_in("b")), (Some(Accept::All), None));
    w.set("all_slaves_active=1");
    assert_eq!(w.lets_in("b"), Some(Accept::All));
}

#[test]
fn a_port_that_was_left_lets_unicast_in_for_one_second() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    w.at_ms(0).set("active_slave=b").at_ms(999);
    assert_eq!(w.lets_in("a"), Some(Accept::Unicast));
    assert_eq!(w.at_ms(1000).lets_in("a"), None);
}

#[test]
fn a_port_that_is_down_or_going_back_lets_unicast_in() {
    let mut w = World::with_carrier("miimon=100 updelay=300", ["a"]);
    w.plug("b").attach("b");
    assert_eq!(w.lets_in("b"), Some(Accept::Unicast));
    w.at_ms(0).carrier("b", On).at_ms(299);
    assert_eq!(w.lets_in("b"), Some(Accept::Unicast));
    assert_eq!(w.at_ms(300).lets_in("b"), None);
}

#[test]
fn without_a_monitor_links_freeze_and_a_warning_says_so() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    w.set("miimon=0");
    assert!(w.saw(|n| matches!(
        n,
        Notice::Warning {
            about: Warning::Unmonitored,
            ..
        }
    )));
    w.clear().carrier("a", Off).at_ms(10_000);
    assert_eq!((active(&w).as_str(), w.polls), ("a", 0));
    w.plug("c").attach("c");
    assert_eq!(w.link("c"), LinkWord::Up, "a new port counts as up");
    w.clear().set("miimon=100");
    assert!(w.saw(|n| *n == Notice::Monitored { targets: false }));
    assert_eq!(active(&w), "b", "what was missed counts when the monitor is back");
}

#[test]
fn links_freeze_while_the_bond_is_down_and_are_judged_anew_when_it_comes_up() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    w.up(false).clear().carrier("a", Off).at_ms(5000);
    assert_eq!((active(&w).as_str(), w.polls), ("a", 0));
    assert!(w.bond.poll_timeout().is_none());
    w.up(true);
    assert_eq!(active(&w), "b");
}

#[test]
fn a_plan_that_failed_is_tried_again_ever_more_slowly_until_it_comes_about() {
    let mut w = World::with_carrier("miimon=1000", ["a", "b"]);
    w.at_ms(10).fail(4, true).carrier("a", Off).at_ms(900);
    let times: Vec<u64> = w.plans.iter().map(|(at, _)| w.ms(*at)).collect();
    assert_eq!(times, [10, 20, 40, 80, 160]);
    assert_eq!(w.plan().tx, Tx::one(Some(w.port("b"))));
}

#[test]
fn the_pause_between_two_tries_stays_below_two_seconds() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    w.at_ms(0).fail(u32::MAX, true).carrier("a", Off).at_ms(20_000);
    let times: Vec<u64> = w.plans.iter().map(|(at, _)| w.ms(*at)).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] < 2000), "{times:?}");
}

#[test]
fn a_plan_for_which_trying_again_cannot_help_is_not_tried_again() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    w.at_ms(0).fail(1, false).carrier("a", Off).at_ms(5000);
    assert_eq!(w.plans.len(), 1);
}

#[test]
fn a_set_of_options_is_taken_whole_or_not_at_all() {
    let mut w = World::with_carrier("miimon=100", ["a", "b"]);
    let before = w.bond.saved();
    for bad in [
        "updelay=300 downdelay=x",
        "num_grat_arp=3 active_slave=nobody",
        "primary=b fail_over_mac=active",
    ] {
        assert!(w.try_set(bad).is_err(), "{bad}");
        assert_eq!(w.bond.saved(), before, "{bad}");
    }
    assert!(w.notices.is_empty() && w.plans.is_empty());
}

#[test]
fn each_option_that_changes_is_told_once_by_each_of_its_names() {
    let mut w = World::with_carrier("miimon=100", ["a"]);
    w.set("updelay=250 miimon=100 num_grat_arp=2");
    let mut told: Vec<String> = Vec::new();
    for (_, notice) in &w.notices {
        if let Notice::OptionChanged { option, value, .. } = notice {
            told.push(format!("{option}={value}"));
        }
    }
    assert_eq!(told, ["num_grat_arp=2", "num_unsol_na=2", "updelay=200"]);
    assert!(w.saw(|n| matches!(
        n,
        Notice::Warning {
            about: Warning::DelayRounded { .. },
            ..
        }
    )));
}

#[test]
fn a_restart_keeps_the_active_port_its_counts_and_running_delays() {
    let mut w = World::with_carrier("miimon=100 updelay=300", ["a", "b"]);
    w.at_ms(400).carrier("a", Off).at_ms(500).carrier("a", On).at_ms(600);
    let saved = w.bond.saved();
    w.clear().restart(Some(saved));
    assert!(w.plans.is_empty());
    assert_eq!((active(&w).as_str(), w.status("a").link_failures), ("b", 1));
    assert_eq!(w.at_ms(799).link("a"), LinkWord::GoingBack);
    assert_eq!(w.at_ms(800).link("a"), LinkWord::Up);
}

#[test]
fn a_restart_without_saved_state_keeps_the_active_port() {
    let mut w = World::with_carrier("miimon=100 updelay=300", ["a", "b"]);
    w.at_ms(400).set("active_slave=b").at_ms(2000).clear().restart(None);
    assert!(w.plans.is_empty(), "{:?}", w.plans);
    assert_eq!(active(&w), "b");
}

#[test]
fn a_port_that_went_away_during_a_restart_is_told_and_gives_its_address_back() {
    let mut w = World::with_carrier("miimon=100", ["a"]);
    let a = w.port("a");
    let saved = w.bond.saved();
    w.kernel.unplug(a);
    w.restart(Some(saved));
    assert!(w.saw(|n| matches!(n, Notice::Detached { was_active: false, .. })));
    w.plug("b").carrier("b", On).attach("b");
    assert_eq!(w.plan().mac, w.status("b").permanent_mac);
}

/// The state that [`saved_state_of_an_earlier_version_still_loads`] reads, made anew. `UPDATE_GOLDEN=1` writes it; a file of a
/// released version is never written again, the next one gets a file of its own.
fn golden() -> World {
    let mut w = World::with_carrier(
        "miimon=100 updelay=300 downdelay=200 primary=a num_grat_arp=3",
        ["a", "b", "c"],
    );
    w.prio("b", 5).at_ms(400).carrier("a", Off).at_ms(600).carrier("a", On);
    w.carrier("c", Off).at_ms(650);
    w
}

#[test]
fn saved_state_of_an_earlier_version_still_loads() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../modes/testdata");
    let newest = format!("{folder}/saved-v2.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(&golden().bond.saved()).unwrap();
        std::fs::write(&newest, text + "\n").unwrap();
    }
    for file in [&format!("{folder}/saved-v1.json"), &newest] {
        let mut w = golden();
        let old: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let saved: Saved = serde_json::from_value(old.clone()).unwrap();
        let now = serde_json::to_value(w.bond.saved()).unwrap();
        for state in [&now, &serde_json::to_value(&saved).unwrap()] {
            assert!(holds(state, &old), "{file}: {state:#}");
        }
        w.clear().restart(Some(saved));
        assert!(w.plans.is_empty(), "{file}");
        assert_eq!(w.status("a").link_failures, 1, "{file}");
    }
}

/// Whether everything that an old state says is said by a new one, which may say more.
fn holds(new: &serde_json::Value, old: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Object};
    match (new, old) {
        (Object(new), Object(old)) => old
            .iter()
            .all(|(name, old)| new.get(name).is_some_and(|new| holds(new, old))),
        (Array(new), Array(old)) => new.len() == old.len() && new.iter().zip(old).all(|(new, old)| holds(new, old)),
        _ => new == old,
    }
}

#[test]
fn saved_state_with_fields_that_nobody_knows_loads() {
    let saved = golden().bond.saved();
    let mut json = serde_json::to_value(&saved).unwrap();
    for place in ["", "/options", "/device", "/ports/0", "/mode", "/notifier"] {
        let object = json
            .pointer_mut(place)
            .and_then(serde_json::Value::as_object_mut)
            .unwrap();
        object.insert("of_a_later_version".to_owned(), 1.into());
    }
    assert_eq!(serde_json::from_value::<Saved>(json).unwrap(), saved);
}

#[test]
fn a_delay_does_not_end_before_the_events_that_wait_are_read() {
    let mut w = World::with_carrier("mode=1 miimon=200 downdelay=200", ["a", "b"]);
    w.after_ms(100).carrier("a", Off).carrier("b", Off);
    // Both are back in time, but the agent is held up and reads of it when the delays are over, one event after the other.
    w.events_late = true;
    w.after_ms(100).carrier("a", On).carrier("b", On);
    let later = w.now() + Duration::from_millis(400);
    w.skip_to(later);
    w.deliver_events().run_due();
    let down = |notice: &Notice| matches!(notice, Notice::Down { .. } | Notice::ActiveChanged { .. });
    assert!(!w.saw(down), "{:?}", w.notices);
    assert_eq!((w.link("a"), w.link("b")), (LinkWord::Up, LinkWord::Up));
}

#[test]
fn a_delay_that_ends_with_a_poll_waits_for_its_answer() {
    let mut w = World::with_carrier("mode=1 miimon=100 downdelay=200", ["a", "b"]);
    w.events_seen = false;
    w.after_ms(100);
    w.carrier("a", Off).carrier("b", Off).after_ms(150);
    assert_eq!(w.link("a"), LinkWord::GoingDown);
    w.carrier("a", On).carrier("b", On);
    let later = w.now() + Duration::from_millis(1000);
    w.skip_to(later);
    w.run_due();
    assert!(
        !w.saw(|notice| matches!(notice, Notice::Down { .. })),
        "{:?}",
        w.notices
    );
    assert_eq!((w.link("a"), w.link("b")), (LinkWord::Up, LinkWord::Up));
}

#[test]
fn an_address_that_a_failed_plan_left_behind_is_nobody_elses() {
    let mut w = World::with_carrier("miimon=100 fail_over_mac=active", ["a", "b"]);
    let [a, b] = ["a", "b"].map(|name| w.kernel.named(name).unwrap().permanent_mac);
    assert_eq!([a, b].map(|mac| w.bond.is_foreign_mac(mac)), [false, true]);
    w.kernel.failures.left = 1;
    w.kernel.failures.retry = true;
    w.at_ms(500).set("active_slave=b");
    assert!(!w.programmed);
    assert_eq!([a, b].map(|mac| w.bond.is_foreign_mac(mac)), [false, false]);
    w.at_ms(600);
    assert!(w.programmed);
    assert_eq!([a, b].map(|mac| w.bond.is_foreign_mac(mac)), [true, false]);
}

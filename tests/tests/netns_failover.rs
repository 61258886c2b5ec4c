//! How much a failover and a way back cost, in frames of counted traffic.

use std::time::Duration;

use bondd_tests::daemon::{LIMIT, Settings};
use bondd_tests::machine::Machine;
use bondd_tests::pulls::{median, ten_pulls};
use bondd_tests::traffic::TEN_THOUSAND;
use bondd_tests::{BondAndSwitch, TwoBonds, wait_for};

#[test]
fn a_pulled_cable_costs_at_most_a_millisecond_of_traffic_once_the_kernel_has_reported_it() {
    let pair = TwoBonds::new(Machine::alone(), "miimon=100");
    pair.wait_active("eth0");
    // The machine may be busy with something else for a while: the best of five series counts.
    let mut medians = Vec::new();
    while medians.len() < 5 && medians.last().is_none_or(|median| *median > 10) {
        let pulls = ten_pulls(&pair);
        let after_reports: Vec<u64> = pulls.iter().map(|pull| pull.after_report).collect();
        medians.push(median(&after_reports));
        println!("frames lost of 10,000 a second by each of ten pulls: {pulls:?}, medians {medians:?}");
    }
    assert!(medians.last().is_some_and(|median| *median <= 10), "{medians:?}");
}

#[test]
fn polling_alone_costs_at_most_one_interval() {
    // Nor does the kernel answer by itself.
    let by_bondd = Settings::args(&["--in-kernel-failover", "off"]);
    let pair = TwoBonds::with(Machine::alone(), by_bondd, "miimon=100");
    pair.unsubscribe_from_links();
    pair.wait_active("eth0");
    let lost: Vec<u64> = ten_pulls(&pair).iter().map(|pull| pull.lost).collect();
    println!(
        "frames lost without link events and with miimon=100: {lost:?}, median {}",
        median(&lost)
    );
    // 1,000 frames are 100 ms; the rest is the time it takes to act.
    assert!(median(&lost) <= 1_010, "{lost:?}");
    // Without events a pull goes unseen for a while, or this would not have tested polling.
    assert!(median(&lost) > 10, "{lost:?}: link events still came");
}

#[test]
fn the_primary_returns_after_updelay_and_nothing_is_lost() {
    let bench = BondAndSwitch::new(Machine::alone(), "miimon=100 updelay=300 primary=eth0");
    let daemon = &bench.host.daemon;
    daemon.wait_active("bond0", "eth0");
    bench.cables[0].pull();
    daemon.wait_active("bond0", "eth1");
    let (out, back) = (bench.flow(TEN_THOUSAND), bench.flow_back(TEN_THOUSAND));
    out.pass(1_000);
    let monitor = daemon.monitor();
    // Until the switch has learned the way through the other port, it sends frames to the pulled one.
    let arrived = back.arrived();
    wait_for("the switch uses the other port", LIMIT, || {
        back.arrived() > arrived + 500
    });
    let (out_from, back_from) = (out.sent(), back.sent());
    bench.cables[0].plug();
    daemon.wait_active("bond0", "eth0");
    out.pass(1_000);
    let (out_to, back_to) = (out.sent(), back.sent());

    let kind = |kind: &'static str| {
        monitor
            .wait(LIMIT, move |event| event["notice"]["kind"] == kind)
            .expect(kind)
    };
    let waited =
        kind("active_changed").event["time"].as_f64().unwrap() - kind("going_back").event["time"].as_f64().unwrap();
    println!("back to eth0 {:.0} ms after its carrier", waited * 1e3);
    assert!((0.299..0.420).contains(&waited), "{waited} s");
    assert_eq!(kind("active_changed").event["notice"]["reason"], "primary");

    let (out, back) = (
        out.finish().between(out_from..out_to),
        back.finish().between(back_from..back_to),
    );
    println!("from the bond: {out:?}\nto the bond: {back:?}");
    assert_eq!((out.lost, out.doubled), (0, 0), "{out:?}");
    // The switch sends to the old port until it sees the first frame from the new one; that port still lets them in.
    assert_eq!((back.lost, back.doubled), (0, 0), "{back:?}");
}

#[test]
fn two_bonds_that_go_back_in_different_moments_lose_nothing() {
    let pair = TwoBonds::new(Machine::alone(), "miimon=100 updelay=300 primary=eth0");
    pair.wait_active("eth0");
    pair.cables[0].pull();
    pair.wait_active("eth1");
    let flow = pair.flow(TEN_THOUSAND);
    flow.pass(1_000);
    let from = flow.sent();
    pair.cables[0].plug();
    pair.wait_active("eth0");
    flow.pass(1_000);
    let to = flow.sent();
    let tally = flow.finish().between(from..to);
    assert_eq!((tally.lost, tally.doubled), (0, 0), "{tally:?}");
}

#[test]
fn a_failover_by_the_operator_loses_nothing_and_is_explained() {
    let bench = BondAndSwitch::new(Machine::alone(), "miimon=100");
    let daemon = &bench.host.daemon;
    daemon.wait_active("bond0", "eth0");
    let monitor = daemon.monitor();
    let flow = bench.flow(TEN_THOUSAND);
    flow.pass(500);
    daemon.ctl("active bond0 eth1");
    assert_eq!(daemon.active("bond0"), "eth1");
    flow.pass(500);
    let tally = flow.finish().tally();
    assert_eq!((tally.lost, tally.doubled), (0, 0), "{tally:?}");
    let seen = monitor
        .wait(LIMIT, |event| event["notice"]["kind"] == "active_changed")
        .expect("an event");
    assert_eq!(seen.event["notice"]["reason"], "manual");
    assert_eq!(
        (&seen.event["notice"]["from"], &seen.event["notice"]["to"]),
        (&"eth0".into(), &"eth1".into())
    );
}

#[test]
fn with_both_ports_down_the_bond_has_no_carrier_and_the_first_back_is_used_at_once() {
    let bench = BondAndSwitch::new(Machine::alone(), "miimon=100 updelay=3000");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    daemon.wait_active("bond0", "eth0");
    bench.cables[0].pull();
    bench.cables[1].pull();
    wait_for("NO-CARRIER on bond0", LIMIT, || {
        netns.ip("link show bond0").contains("NO-CARRIER")
    });
    assert_eq!(daemon.bond("bond0")["carrier"], false);
    assert_eq!(daemon.bond("bond0")["mii_status"], "down");
    assert_eq!(daemon.active("bond0"), "");

    bench.cables[1].plug();
    let waited = wait_for("carrier on bond0", LIMIT, || netns.running("bond0"));
    println!("bond0 has carrier {waited:?} after its first port, updelay being 3 s");
    assert!(waited < Duration::from_millis(500), "{waited:?}");
    daemon.wait_active("bond0", "eth1");
    let flow = bench.flow(TEN_THOUSAND);
    flow.pass(100);
    assert_eq!(flow.finish().tally().lost, 0);

    // The second one has to wait: something is usable now.
    bench.cables[0].plug();
    daemon.wait_link("bond0", "eth0", "going back");
    assert_eq!(daemon.active("bond0"), "eth1");
}

#[test]
fn downdelay_keeps_the_last_port_and_the_carrier_until_it_ends() {
    let bench = BondAndSwitch::new(Machine::alone(), "miimon=100 downdelay=1000");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    bench.cables[1].pull();
    daemon.wait_link("bond0", "eth1", "down");
    bench.cables[0].pull();
    daemon.wait_link("bond0", "eth0", "going down");
    assert!(netns.running("bond0"));
    bench.cables[0].plug();
    daemon.wait_link("bond0", "eth0", "up");
    assert_eq!(daemon.port("bond0", "eth0")["link_failures"], 0);
}

//! The modes that spread traffic, with real frames: who carries what, and nothing lost while ports come and go.

use bondd_tests::daemon::LIMIT;
use bondd_tests::machine::Machine;
use bondd_tests::traffic::{TEN_THOUSAND, Tally};
use bondd_tests::{BondAndSwitch, wait_for};

const SPREADING: [&str; 3] = ["balance-rr", "balance-xor", "broadcast"];

fn bench(machine: Machine, mode: &str) -> BondAndSwitch {
    BondAndSwitch::new(machine, &format!("mode={mode} miimon=100 xmit_hash_policy=layer3+4"))
}

/// In broadcast the switch gets every frame once a port, so copies are no fault there.
fn nothing_lost(mode: &str, what: &str, tally: &Tally) {
    println!("{mode}, {what}: {tally:?}");
    assert_eq!((tally.lost, tally.failed_send), (0, 0), "{mode}: {tally:?}");
    assert!(mode == "broadcast" || tally.doubled == 0, "{mode}: {tally:?}");
}

fn sent(bench: &BondAndSwitch, port: &str) -> u64 {
    bench.host.daemon.port("bond0", port)["tx_frames"]
        .as_u64()
        .expect("a number")
}

#[test]
fn ports_that_leave_and_join_under_load_cost_and_double_no_frame() {
    for mode in SPREADING {
        let bench = bench(Machine::alone(), mode);
        let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
        // Up before it is attached, a port stays up when it leaves: its carrier, and the switch, play no part.
        for port in ["eth0", "eth1"] {
            daemon.ctl(&format!("port del bond0 {port}"));
            netns.ip(&format!("link set {port} up"));
            wait_for("a port in service", LIMIT, || netns.running(port));
            daemon.ctl(&format!("port add bond0 {port}"));
            daemon.wait_link("bond0", port, "up");
        }
        let flow = bench.flow(TEN_THOUSAND);
        for round in 0..10 {
            let port = ["eth0", "eth1"][round % 2];
            flow.pass(300);
            daemon.ctl(&format!("port del bond0 {port}"));
            flow.pass(300);
            daemon.ctl(&format!("port add bond0 {port}"));
        }
        flow.pass(300);
        nothing_lost(mode, "ten ports left and joined", &flow.finish().tally());
    }
}

#[test]
fn a_killed_agent_loses_nothing_and_keeps_the_ports_it_spreads_over() {
    for mode in SPREADING {
        let mut bench = bench(Machine::alone(), mode);
        let flow = bench.flow(TEN_THOUSAND);
        for _ in 0..3 {
            flow.pass(500);
            bench.host.daemon.sigkill();
            flow.pass(500);
            bench.host.daemon.launch();
        }
        let before = [sent(&bench, "eth0"), sent(&bench, "eth1")];
        flow.pass(1_000);
        nothing_lost(mode, "killed three times", &flow.finish().tally());
        let after = [sent(&bench, "eth0"), sent(&bench, "eth1")];
        let grown = [after[0] > before[0], after[1] > before[1]];
        // One flow has one port in balance-xor.
        assert!(
            grown.contains(&true) && (mode == "balance-xor" || grown == [true, true]),
            "{mode}: {before:?} {after:?}"
        );
    }
}

#[test]
fn round_robin_gives_both_ports_the_same_share() {
    let bench = bench(Machine::alone(), "balance-rr");
    let before = [sent(&bench, "eth0"), sent(&bench, "eth1")];
    let flow = bench.flow(TEN_THOUSAND);
    flow.pass(4_000);
    nothing_lost("balance-rr", "spread", &flow.finish().tally());
    let share = [sent(&bench, "eth0") - before[0], sent(&bench, "eth1") - before[1]];
    assert!(share[0].abs_diff(share[1]) <= 20, "{share:?}");
}

#[test]
fn a_pulled_cable_leaves_the_list_and_traffic_goes_on_over_the_other() {
    for mode in SPREADING {
        let bench = bench(Machine::alone(), mode);
        bench.cables[0].pull();
        bench.host.daemon.wait_link("bond0", "eth0", "down");
        let before = sent(&bench, "eth0");
        let flow = bench.flow(TEN_THOUSAND);
        flow.pass(1_000);
        nothing_lost(mode, "one cable pulled", &flow.finish().tally());
        assert_eq!(sent(&bench, "eth0"), before, "{mode}");
        assert_eq!(bench.host.daemon.bond("bond0")["carrier"], true);
    }
}

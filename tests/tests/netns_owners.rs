//! Two agents in one network namespace, each on a run directory of its own: a port has one owner.

use bondd_tests::daemon::{LIMIT, refused};
use bondd_tests::machine::Machine;
use bondd_tests::traffic::TEN_THOUSAND;
use bondd_tests::{BondAndSwitch, Daemon, Settings, wait_for};
use serde_json::Value;

/// What of a port another agent could change.
fn state(bench: &BondAndSwitch, port: &str) -> [Value; 5] {
    let link = bench.host.netns.link(port).expect("it is there");
    ["ifindex", "ifalias", "address", "mtu", "flags"].map(|key| link[key].clone())
}

/// Tries to attach a port of the first agent's bond to a bond of the other, and expects that nothing comes of it.
fn refuse_to_share(bench: &BondAndSwitch, other: &Daemon) {
    let before = state(bench, "eth0");
    let (code, why) = refused(&other.bondctl(&["port", "add", "bond1", "eth0"]));
    assert_eq!(code, 1, "{why}");
    assert!(why.contains("eth0 is a port of bond0 already"), "{why}");
    assert!(why.contains("bondctl --run-dir DIRECTORY port del bond0 eth0"), "{why}");
    assert!(why.contains("ip link del bond0"), "{why}");
    assert_eq!(state(bench, "eth0"), before);
}

#[test]
fn a_port_of_another_agent_is_refused_also_after_that_has_crashed() {
    let mut bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    bench.host.daemon.wait_active("bond0", "eth0");
    let other = Daemon::start(&bench.host.netns);
    other.ctl("add bond1 mode active-backup miimon 100");
    let flow = bench.flow(TEN_THOUSAND);
    refuse_to_share(&bench, &other);
    bench.host.daemon.sigkill();
    refuse_to_share(&bench, &other);
    bench.host.daemon.launch();
    refuse_to_share(&bench, &other);
    flow.pass(500);
    let tally = flow.finish().tally();
    assert_eq!((tally.lost, tally.doubled), (0, 0), "{tally:?}");
    for words in [
        &["add", "bond0"][..],
        &["del", "bond0"],
        &["port", "del", "bond0", "eth0"],
    ] {
        refused(&other.bondctl(words));
    }
    // Let go by its owner, it may be taken.
    bench.host.daemon.ctl("port del bond0 eth0");
    other.ctl("port add bond1 eth0");
    let (_, why) = refused(&bench.host.daemon.bondctl(&["port", "add", "bond0", "eth0"]));
    assert!(why.contains("eth0 is a port of bond1 already"), "{why}");
    other.ctl("del bond1");
    bench.host.daemon.ctl("port add bond0 eth0");
}

#[test]
fn option_files_wait_for_a_port_of_another_agent_and_say_so() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    bench.host.daemon.wait_active("bond0", "eth0");
    let text = "alias bond1 bonding\noptions bond1 mode=active-backup miimon=100 slaves=eth0\n";
    let before = state(&bench, "eth0");
    let other = Daemon::start_with(&bench.host.netns, Settings::config(text));
    let port = other.port("bond1", "eth0");
    assert!(
        port["attach_error"]
            .to_string()
            .contains("eth0 is a port of bond0 already"),
        "{port}"
    );
    assert_eq!(state(&bench, "eth0"), before);
    bench.host.daemon.ctl("port del bond0 eth0");
    wait_for("it joins", LIMIT, || other.port("bond1", "eth0")["state"] == "attached");
    other.ctl("del bond1");
}

#[test]
fn the_mark_of_a_bond_that_is_gone_keeps_no_port_from_another() {
    let mut bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let netns = bench.host.netns.clone();
    bench.host.daemon.wait_active("bond0", "eth0");
    bench.host.daemon.sigkill();
    netns.ip("link del bond0");
    // It is no bond.
    netns.ip("link add bond0 type veth peer name far");
    assert_eq!(netns.link("eth0").unwrap()["ifalias"], "port of bond0");
    let other = Daemon::start(&netns);
    other.ctl("add bond1 mode active-backup miimon 100");
    other.ctl("port add bond1 eth0");
    assert_eq!(netns.link("eth0").unwrap()["ifalias"], "port of bond1");
    other.ctl("del bond1");
}

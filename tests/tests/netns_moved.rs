//! Ports that are moved to another network namespace leave as their own selves.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::thread;

use bondd_tests::daemon::LIMIT;
use bondd_tests::machine::Machine;
use bondd_tests::traffic::TEN_THOUSAND;
use bondd_tests::{BondAndSwitch, Netns, wait_for};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

/// What a port had before its bond gave it something else.
fn own(netns: &Netns, port: &str) -> (Vec<Value>, [bool; 2]) {
    let link = netns.link(port).expect("it is there");
    let flags = link["flags"].to_string();
    let settings = ["address", "mtu", "ifalias"].map(|key| link[key].clone());
    (
        settings.into(),
        ["ALLMULTI", "PROMISC"].map(|flag| flags.contains(flag)),
    )
}

fn presence(bench: &BondAndSwitch, port: &str) -> String {
    let port = bench.host.daemon.port("bond0", port);
    port["state"].as_str().unwrap_or_default().to_owned()
}

/// A bond of MTU 1450 over two ports, and what the second one was before.
fn bond() -> (BondAndSwitch, (Vec<Value>, [bool; 2])) {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    daemon.ctl("port del bond0 eth1");
    netns.ip("link set eth1 alias uplink");
    let before = own(netns, "eth1");
    daemon.ctl("port add bond0 eth1");
    daemon.wait_link("bond0", "eth1", "up");
    daemon.wait_active("bond0", "eth0");
    netns.ip("link set bond0 mtu 1450");
    wait_for("the port has the MTU", LIMIT, || own(netns, "eth1").0[1] == 1450);
    assert_ne!(own(netns, "eth1"), before);
    (bench, before)
}

#[test]
fn a_port_that_is_moved_is_itself_there_and_rejoins_when_it_is_back() {
    let (bench, before) = bond();
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    let elsewhere = Netns::new("elsewhere");
    elsewhere.set_sysctl("ipv6/conf/default/disable_ipv6", "0");
    let flow = bench.flow(TEN_THOUSAND);
    for _ in 0..3 {
        netns.ip(&format!("link set eth1 netns {}", elsewhere.name()));
        wait_for("it is itself again", LIMIT, || own(&elsewhere, "eth1") == before);
        assert_eq!(elsewhere.sysctl("ipv6/conf/eth1/disable_ipv6"), "0");
        assert_eq!(elsewhere.link("eth1").unwrap()["operstate"], "DOWN", "nobody set it up");
        wait_for("it is absent", LIMIT, || presence(&bench, "eth1") == "absent");
        let file = daemon.dir().join("state/bond0.json");
        wait_for("nothing is kept of it", LIMIT, || {
            let state: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            !state["vanished"].to_string().contains("eth1")
        });
        elsewhere.ip(&format!("link set eth1 netns {}", netns.name()));
        wait_for("it is a port again", LIMIT, || presence(&bench, "eth1") == "attached");
        daemon.wait_link("bond0", "eth1", "up");
    }
    let tally = flow.finish().tally();
    assert_eq!((tally.lost, tally.doubled), (0, 0), "{tally:?}");
    let said = daemon
        .log()
        .matches("eth1 has its own settings again in the network")
        .count();
    assert_eq!(said, 3, "{}", daemon.log());
    daemon.ctl("port del bond0 eth1");
    assert_eq!(own(netns, "eth1"), before);
}

#[test]
fn what_others_gave_a_port_before_it_was_moved_stays() {
    let (bench, before) = bond();
    let elsewhere = Netns::new("elsewhere");
    let netns = &bench.host.netns;
    netns.ip("link set eth1 address 02:99:00:00:00:01 mtu 1300");
    netns.ip(&format!("link set eth1 netns {} name eth7", elsewhere.name()));
    wait_for("it has no mark", LIMIT, || own(&elsewhere, "eth7").0[2] == before.0[2]);
    let ([mac, mtu, _], flags) = (<[Value; 3]>::try_from(own(&elsewhere, "eth7").0).unwrap(), before.1);
    assert_eq!((mac, mtu), ("02:99:00:00:00:01".into(), 1300.into()));
    assert_eq!(own(&elsewhere, "eth7").1, flags);
}

#[test]
fn a_port_of_a_bond_of_that_name_in_the_other_namespace_is_left_to_that() {
    let (bench, _) = bond();
    let right = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    netns.ip(&format!("link set eth1 netns {} name eth7", right.host.netns.name()));
    let said = || {
        let log = daemon.log();
        log.contains("eth1 keeps the settings of a port") && log.contains("there is a bond bond0 there")
    };
    wait_for("it is told", LIMIT, said);
    right.host.daemon.ctl("port add bond0 eth7");
    right.host.daemon.wait_link("bond0", "eth7", "up");
}

#[test]
fn a_port_that_cannot_be_reached_is_told_once_with_what_gives_it_back() {
    let (bench, before) = bond();
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    // It has no name and no process: only this descriptor.
    let alone = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may");
        File::open("/proc/thread-self/ns/net").expect("it is there")
    });
    let alone = alone.join().expect("it ends");
    let path = format!("/proc/{}/fd/{}", std::process::id(), alone.as_raw_fd());
    netns.ip(&format!("link set eth1 netns {path}"));
    let mac = before.0[0].as_str().expect("an address");
    let said = format!("ip link set eth1 address {mac} mtu 1500 allmulticast off promisc off alias 'uplink'");
    wait_for("it is told", LIMIT, || daemon.log().contains(&said));
    assert_eq!(daemon.log().matches("keeps the settings of a port").count(), 1);
    daemon.ctl("port del bond0 eth1");
    let state = std::fs::read_to_string(daemon.dir().join("state/bond0.json")).unwrap();
    assert!(!state.contains(mac), "{state}");
}

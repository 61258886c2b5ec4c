//! Bonds that are put under a port of their own: the kernel's driver refuses that, bondd lets the port go before frames circle.

use bondd_tests::daemon::LIMIT;
use bondd_tests::machine::Machine;
use bondd_tests::{BondAndSwitch, wait_for};

/// Frames that an interface has sent.
fn sent(bench: &BondAndSwitch, name: &str) -> u64 {
    let link = bench.host.netns.link(name).expect("it is there");
    link["stats64"]["tx"]["packets"].as_u64().expect("a number")
}

/// `eth0`, `eth1` and a bridge with a carrier are ports, and the bridge is the active one.
fn bench() -> BondAndSwitch {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    for line in [
        "link add guest type veth peer name inside",
        "link add brx type bridge",
        "link set guest master brx up",
        "link set inside up",
        "link set brx up",
    ] {
        netns.ip(line);
    }
    netns.ip("addr add 10.77.1.1/24 dev brx");
    daemon.ctl("port add bond0 brx");
    daemon.wait_link("bond0", "brx", "up");
    daemon.ctl("active bond0 brx");
    bench
}

/// The bridge is no port and says why; a request that goes out there is sent by the bond a few times at most.
fn does_not_circle(bench: &BondAndSwitch, lower: &str) {
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    daemon.wait_active("bond0", "eth0");
    let before = sent(bench, "bond0");
    netns.try_exec(&["ping", "-c1", "-W1", "10.77.1.9"]);
    let frames = sent(bench, "bond0") - before;
    assert!(frames < 100, "one request became {frames} frames");
    let said =
        format!("because {lower} belongs to brx, and frames would circle; `ip link set {lower} nomaster` ends that");
    let port = daemon.port("bond0", "brx");
    assert!(
        port["attach_error"].as_str().is_some_and(|why| why.ends_with(&said)),
        "{port}"
    );
    let health = daemon.bondctl(&["health"]);
    let text = String::from_utf8_lossy(&health.stdout);
    assert!(health.status.code() == Some(1) && text.contains(&said), "{text}");
    let state = netns.link("brx").expect("it stays");
    assert!(
        state["ifalias"].is_null() && state["flags"].to_string().contains("\"UP\""),
        "{state}"
    );
    let master = netns.link(lower).expect("it stays")["master"].clone();
    assert_eq!(master, "brx", "what the operator made stays");
}

#[test]
fn a_bridge_leaves_the_bond_that_is_put_into_it_and_joins_again_when_the_bond_has_left_it() {
    let mut bench = bench();
    let is_back = |bench: &BondAndSwitch| {
        wait_for("it is a port again", LIMIT, || {
            bench.host.daemon.port("bond0", "brx")["state"] == "attached"
        });
        bench.host.daemon.wait_link("bond0", "brx", "up");
        bench.host.daemon.ctl("active bond0 brx");
    };
    for lower in ["bond0", "upper"] {
        if lower == "upper" {
            bench.host.netns.ip("link add link bond0 name upper type macvlan");
            bench.host.netns.ip("link set upper up");
        }
        bench.host.netns.ip(&format!("link set {lower} master brx"));
        does_not_circle(&bench, lower);
        let said = format!(
            "brx was taken out of the bond, and joins again when that has ended: brx stands on bond0 itself, because {lower} "
        );
        assert_eq!(
            bench.host.daemon.log().matches(&said).count(),
            1,
            "{}",
            bench.host.daemon.log()
        );
        bench.host.netns.ip(&format!("link set {lower} nomaster"));
        is_back(&bench);
    }
    bench.host.netns.ip("link del upper");
    // Nobody follows events meanwhile.
    bench.host.daemon.sigkill();
    bench.host.netns.ip("link set bond0 master brx");
    bench.host.daemon.launch();
    does_not_circle(&bench, "bond0");
    bench.host.netns.ip("link set bond0 nomaster");
    is_back(&bench);
}

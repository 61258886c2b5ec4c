//! Ports come, go, vanish and return; what they were before is given back.

use bondd_tests::daemon::LIMIT;
use bondd_tests::machine::Machine;
use bondd_tests::proof::{PortState, bpf_objects, link_names, pins};
use bondd_tests::traffic::TEN_THOUSAND;
use bondd_tests::{BondAndSwitch, Daemon, Netns, Settings, Switch, wait_for};

fn presence(daemon: &Daemon, port: &str) -> String {
    daemon.port("bond0", port)["state"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Deletes one end of the cable, makes it anew and waits until it is a port again; returns frames lost until it was gone,
/// and from then on.
fn delete_and_make(bench: &BondAndSwitch, cable: usize, other: &str) -> (u64, u64) {
    let (daemon, name) = (&bench.host.daemon, bench.cables[cable].near_name().to_owned());
    let flow = bench.flow(TEN_THOUSAND);
    flow.pass(1_000);
    bench.cables[cable].delete();
    wait_for("the port is absent", LIMIT, || presence(daemon, &name) == "absent");
    daemon.wait_active("bond0", other);
    flow.pass(1_000);
    let gone = flow.sent();
    bench.cables[cable].create();
    bench.switch.adopt(&format!("p{cable}"));
    wait_for("the port is back", LIMIT, || presence(daemon, &name) == "attached");
    daemon.wait_link("bond0", &name, "up");
    flow.pass(1_000);
    let end = flow.sent();
    let record = flow.finish();
    assert_eq!(record.tally().doubled, 0);
    (record.between(0..gone).lost, record.between(gone..end).lost)
}

#[test]
fn a_backup_port_that_is_deleted_and_made_anew_rejoins_and_disturbs_nothing() {
    let bench = BondAndSwitch::new(Machine::alone(), "miimon=100");
    bench.host.daemon.wait_active("bond0", "eth0");
    let untouched = bench.host.netns.link("eth0").unwrap()["ifindex"].clone();
    assert_eq!(delete_and_make(&bench, 1, "eth0"), (0, 0));
    assert_eq!(bench.host.daemon.active("bond0"), "eth0");
    assert_eq!(bench.host.daemon.port("bond0", "eth0")["ifindex"], untouched);
    // It is a whole port again.
    bench.cables[0].pull();
    bench.host.daemon.wait_active("bond0", "eth1");
    let flow = bench.flow(TEN_THOUSAND);
    flow.pass(100);
    assert_eq!(flow.finish().tally().lost, 0);
}

#[test]
fn an_active_port_that_is_deleted_hands_over_and_rejoins_as_a_backup() {
    let bench = BondAndSwitch::new(Machine::alone(), "miimon=100");
    bench.host.daemon.wait_active("bond0", "eth0");
    let log = bench.host.daemon.log();
    let (handing_over, afterwards) = delete_and_make(&bench, 0, "eth1");
    println!("frames lost when the active port's device was deleted: {handing_over}");
    assert!(handing_over <= 1_000, "{handing_over}");
    assert_eq!(afterwards, 0);
    assert_eq!(bench.host.daemon.active("bond0"), "eth1");
    let log = bench.host.daemon.log()[log.len()..].to_owned();
    assert!(
        !log.contains("left with address"),
        "there is no device to give another address to: {log}"
    );
    let mac = bench.host.netns.mac("bond0");
    wait_for("the new device has the bond's address", LIMIT, || {
        bench.host.netns.mac("eth0") == mac
    });
}

#[test]
fn a_configured_port_that_is_missing_is_absent_and_joins_when_it_appears() {
    let _machine = Machine::shared();
    let (host, switch) = (Netns::new("host"), Switch::new());
    let _first = switch.connect(&host, "eth0", "p0");
    let text = "alias bond0 bonding\noptions bond0 mode=active-backup miimon=100 slaves=eth0,eth1\n";
    let daemon = Daemon::start_with(&host, Settings::config(text));
    host.ip("link set bond0 up");
    daemon.wait_active("bond0", "eth0");
    assert_eq!(presence(&daemon, "eth1"), "absent");
    assert_eq!(daemon.port("bond0", "eth1")["link"], serde_json::Value::Null);
    let _second = switch.connect(&host, "eth1", "p1");
    wait_for("it joins", LIMIT, || presence(&daemon, "eth1") == "attached");
    daemon.wait_link("bond0", "eth1", "up");
    assert_eq!(daemon.active("bond0"), "eth0");
}

#[test]
fn configured_ports_join_in_the_order_of_their_list_and_the_first_gives_the_bond_its_address() {
    let _machine = Machine::shared();
    let (host, switch) = (Netns::new("host"), Switch::new());
    let _cables = [("eth0", "p0"), ("eth1", "p1")].map(|(name, port)| switch.connect(&host, name, port));
    let first = host.mac("eth1");
    let text = "alias bond0 bonding\noptions bond0 mode=active-backup miimon=100 slaves=eth1,eth0\n";
    let daemon = Daemon::start_with(&host, Settings::config(text));
    let names = daemon.bond("bond0")["ports"].as_array().unwrap().clone();
    let names: Vec<_> = names.iter().map(|port| port["name"].clone()).collect();
    assert_eq!((names, host.mac("bond0")), (vec!["eth1".into(), "eth0".into()], first));
    assert_eq!(daemon.active("bond0"), "eth1");
}

#[test]
fn a_restart_with_the_same_options_file_changes_nothing() {
    let _machine = Machine::shared();
    let (host, switch) = (Netns::new("host"), Switch::new());
    let _cables = [("eth0", "p0"), ("eth1", "p1")].map(|(name, port)| switch.connect(&host, name, port));
    let text = "alias bond0 bonding\noptions bond0 mode=active-backup miimon=100 slaves=eth0,eth1\n";
    let mut daemon = Daemon::start_with(&host, Settings::config(text));
    host.ip("link set bond0 up");
    daemon.wait_active("bond0", "eth0");
    daemon.ctl("active bond0 eth1");
    let before = daemon.bond("bond0");
    daemon.sigkill();
    daemon.launch();
    let after = daemon.bond("bond0");
    for key in ["ifindex", "mac", "active_port", "options", "carrier"] {
        assert_eq!(after[key], before[key], "{key}");
    }
}

#[test]
fn a_port_given_back_leaves_the_traffic_of_the_others_alone() {
    let bench = BondAndSwitch::new(Machine::alone(), "miimon=100");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    daemon.wait_active("bond0", "eth0");
    let permanent = daemon.port("bond0", "eth1")["permanent_mac"]
        .as_str()
        .unwrap()
        .to_owned();
    let flow = bench.flow(TEN_THOUSAND);
    flow.pass(500);
    daemon.ctl("port del bond0 eth1");
    assert_eq!(netns.mac("eth1"), permanent);
    flow.pass(500);
    daemon.ctl("port add bond0 eth1");
    daemon.wait_link("bond0", "eth1", "up");
    flow.pass(500);
    let tally = flow.finish().tally();
    assert_eq!((tally.lost, tally.doubled), (0, 0), "{tally:?}");
}

#[test]
fn a_port_that_was_in_another_namespace_is_given_back_as_it_was() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    daemon.wait_active("bond0", "eth0");
    netns.ip("link set bond0 mtu 1450");
    let permanent = daemon.port("bond0", "eth1")["permanent_mac"].clone();
    let elsewhere = Netns::new("elsewhere");
    netns.ip(&format!("link set eth1 netns {}", elsewhere.name()));
    wait_for("it is absent", LIMIT, || presence(daemon, "eth1") == "absent");
    elsewhere.ip(&format!("link set eth1 netns {}", netns.name()));
    wait_for("it is a port again", LIMIT, || presence(daemon, "eth1") == "attached");
    daemon.ctl("del bond0");
    let state = netns.link("eth1").expect("it stays");
    assert_eq!(state["address"], permanent);
    assert_eq!(state["mtu"], 1500);
    assert!(state["ifalias"].is_null(), "{state}");
    assert!(!state["flags"].to_string().contains("ALLMULTI"), "{state}");
}

#[test]
fn what_another_program_changes_is_put_back_or_shown() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    daemon.wait_active("bond0", "eth0");
    let wire = link_names(netns).into_iter().find(|name| name.starts_with("wire"));
    netns.ip(&format!("link set {} down", wire.expect("the bond has a wire")));
    wait_for("the carrier is back", LIMIT, || netns.running("bond0"));
    netns.ip("link set eth1 allmulticast off");
    wait_for("the port hears every group again", LIMIT, || {
        let flags = netns.link("eth1").expect("it is there")["flags"].clone();
        flags.as_array().expect("flags").iter().any(|flag| flag == "ALLMULTI")
    });
    // These are the operator's to change: nothing reverts them.
    let shared = netns.mac("bond0");
    netns.ip("link set eth1 address 02:99:00:00:00:01 mtu 1400");
    wait_for("the address is shown", LIMIT, || {
        daemon.port("bond0", "eth1")["mac"] == "02:99:00:00:00:01"
    });
    assert_eq!(netns.mac("eth1"), "02:99:00:00:00:01");
    assert_eq!(netns.link("eth1").unwrap()["mtu"], 1400);
    assert_eq!(daemon.log().matches("changed to 02:99:00:00:00:01").count(), 1);
    let undone = || daemon.bond("bond0")["unfulfilled"].to_string();
    wait_for("what mends both is shown", LIMIT, || {
        let said = undone();
        said.contains(&format!("`ip link set eth1 address {shared}`")) && said.contains("`ip link set eth1 mtu 1500`")
    });
    let health = String::from_utf8(daemon.bondctl(&["health"]).stdout).expect("text");
    assert!(
        health.contains("WARNING") && health.contains("send frames of 1500 bytes"),
        "{health}"
    );
    netns.ip(&format!("link set eth1 address {shared} mtu 1500"));
    wait_for("nothing is left to mend", LIMIT, || undone() == "[]");
    wait_for("the bond's address is shown again", LIMIT, || {
        daemon.port("bond0", "eth1")["mac"] == shared.as_str()
    });
}

#[test]
fn a_port_that_others_put_under_a_bridge_leaves_the_bond_and_stays_in_the_bridge() {
    let mut bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    bench.host.daemon.wait_active("bond0", "eth0");
    bench.host.netns.ip("link add bry type bridge");
    bench.host.netns.ip("link set bry up");
    bench.host.netns.ip("link set eth0 master bry");
    bench.host.daemon.wait_active("bond0", "eth1");
    let is_let_go = |bench: &BondAndSwitch, port: &str| {
        let said = format!("{port} was taken out of the bond by another program, it belongs to bry now");
        wait_for("what became of it is told", LIMIT, || {
            bench.host.daemon.log().contains(&said)
        });
        let state = || bench.host.netns.link(port).expect("it is there");
        wait_for("it is given back", LIMIT, || state()["ifalias"].is_null());
        let state = state();
        assert_eq!(
            (&state["master"], &state["operstate"]),
            (&"bry".into(), &"UP".into()),
            "{state}"
        );
        let ports = bench.host.daemon.bond("bond0")["ports"].to_string();
        assert!(!ports.contains(port), "{ports}");
    };
    is_let_go(&bench, "eth0");
    bench.host.daemon.sigkill();
    bench.host.netns.ip("link set eth1 master bry");
    bench.host.daemon.launch();
    is_let_go(&bench, "eth1");
}

#[test]
fn ipv6_that_others_switch_on_at_ports_is_switched_off_and_not_for_ever() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    daemon.wait_active("bond0", "eth0");
    let is_off = |port: &str| netns.sysctl(&format!("ipv6/conf/{port}/disable_ipv6")) == "1";
    netns.exec(&["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0"]);
    wait_for("it is off again on both", LIMIT, || is_off("eth0") && is_off("eth1"));
    for port in ["eth0", "eth1"] {
        let said = format!("another program switched IPv6 on at {port}, switching it off");
        assert_eq!(daemon.log().matches(&said).count(), 1, "{}", daemon.log());
    }
    assert_eq!(daemon.bond("bond0")["unfulfilled"].to_string(), "[]");
    let insists = || {
        netns.exec(&["sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0"]);
        daemon.bond("bond0")["unfulfilled"]
            .to_string()
            .contains("keep IPv6 off on eth0")
    };
    wait_for("it is left and shown", LIMIT, insists);
}

#[test]
fn a_port_whose_address_others_change_again_and_again_does_not_fill_the_log() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    daemon.wait_active("bond0", "eth0");
    let said = |words: &str| daemon.log().matches(words).count();
    for turn in 1..=20 {
        let mac = format!("02:99:00:00:00:{turn:02x}");
        netns.ip(&format!("link set eth1 address {mac}"));
        wait_for("the address is shown", LIMIT, || {
            daemon.port("bond0", "eth1")["mac"] == mac.as_str()
        });
    }
    let times = said("its address was changed to 02:99:");
    assert!((5..=5).contains(&times), "{times} lines: {}", daemon.log());
    assert_eq!(said("cannot use the address of bond0"), 0, "{}", daemon.log());
    assert_eq!(
        said("changes the address of eth1 again and again"),
        1,
        "{}",
        daemon.log()
    );
}

/// Adds a bond over two ports that each differ from the default in every way, takes it away and compares.
fn given_back_as_before(settings: Settings, crash: bool) {
    let _machine = Machine::alone();
    let (host, switch) = (Netns::new("host"), Switch::new());
    let _cables = [("eth0", "p0"), ("eth1", "p1")].map(|(name, port)| switch.connect(&host, name, port));
    host.ip("link set eth0 alias uplink-one mtu 1400 promisc on");
    host.exec(&["tc", "qdisc", "add", "dev", "eth0", "clsact"]);
    host.set_sysctl("ipv6/conf/eth0/disable_ipv6", "1");
    host.ip("link set eth1 down mtu 2000 allmulticast on");
    let mut daemon = Daemon::start_with(&host, settings);
    let (links, objects) = (link_names(&host), bpf_objects());
    let state = || ["eth0", "eth1"].map(|port| PortState::of(&host, port));
    let before = state();

    daemon.ctl("add bond0 mode=active-backup miimon=100");
    daemon.ctl("port add bond0 eth0 eth1");
    host.ip("link set bond0 up");
    daemon.wait_link("bond0", "eth0", "up");
    daemon.wait_link("bond0", "eth1", "up");
    let made: Vec<_> = bpf_objects().difference(&objects).copied().collect();
    assert!(!made.is_empty(), "the bond has programs and maps");
    assert!(!pins(&host, daemon.dir(), daemon.pid()).is_empty(), "the bond has pins");
    assert_ne!(state(), before);
    if crash {
        daemon.sigkill();
        daemon.launch();
    }
    daemon.ctl("del bond0");

    assert_eq!(link_names(&host), links);
    wait_for("flags as before", LIMIT, || {
        state() == before || state()[0] == before[0]
    });
    assert_eq!(state(), before);
    assert_eq!(
        pins(&host, daemon.dir(), daemon.pid()),
        Vec::<std::path::PathBuf>::new()
    );
    wait_for("no program, map or link of the bond", LIMIT, || {
        let now = bpf_objects();
        made.iter().all(|object| !now.contains(object))
    });
    assert!(!daemon.dir().join("proc/net/bonding/bond0").exists());
    assert!(!daemon.dir().join("state/bond0.json").exists());
    assert_eq!(daemon.show()["bonds"], serde_json::json!([]));
}

#[test]
fn del_gives_ports_back_as_they_were_and_leaves_nothing() {
    given_back_as_before(Settings::default(), false);
}

#[test]
fn del_after_a_crash_gives_ports_back_as_they_were_too() {
    given_back_as_before(Settings::default(), true);
}

#[test]
fn del_with_the_clsact_hook_gives_ports_back_as_they_were() {
    given_back_as_before(Settings::args(&["--tc-hook", "clsact"]), false);
}

#[test]
fn del_with_the_clsact_hook_after_a_crash_gives_ports_back_as_they_were() {
    given_back_as_before(Settings::args(&["--tc-hook", "clsact"]), true);
}

#[test]
fn an_address_that_fail_over_mac_forbids_is_put_back_with_a_word_and_not_for_ever() {
    let netns = Netns::new("host");
    netns.ip("link add eth0 type veth peer name p0");
    netns.ip("link set p0 up");
    let daemon = Daemon::start(&netns);
    daemon.ctl("add bond0 mode active-backup miimon 100 fail_over_mac active plane tc");
    daemon.ctl("port add bond0 eth0");
    netns.ip("link set bond0 up");
    let address = || netns.link("bond0").unwrap()["address"].as_str().unwrap().to_owned();
    let own = address();
    let said = |words: &str| daemon.log().matches(words).count();
    for turn in 1..=5 {
        netns.ip(&format!("link set bond0 address 02:00:00:00:07:0{turn}"));
        wait_for("it is put back", LIMIT, || address() == own);
        let words = format!("another program changed its address to 02:00:00:00:07:0{turn}, putting it back");
        assert_eq!(said(&words), 1, "{}", daemon.log());
    }
    netns.ip("link set bond0 address 02:00:00:00:07:06");
    wait_for("that is enough", LIMIT, || {
        said("again and again, leaving it for a minute") == 1
    });
    assert_eq!(address(), "02:00:00:00:07:06");
    // Any other plan is programmed as a whole.
    netns.ip("link add eth1 type veth peer name p1");
    netns.ip("link set p1 up");
    daemon.ctl("port add bond0 eth1");
    daemon.wait_link("bond0", "eth1", "up");
    assert_eq!(address(), own);
}

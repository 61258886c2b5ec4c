//! The agent is killed, stopped and started under load; forwarding and what it knows stay.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use bondd_tests::bins::root;
use bondd_tests::daemon::{LIMIT, refused};
use bondd_tests::machine::Machine;
use bondd_tests::proof::{PortState, pins};
use bondd_tests::traffic::TEN_THOUSAND;
use bondd_tests::{BondAndSwitch, Daemon, Netns, Rate, Settings, TwoBonds, wait_for};
use serde_json::Value;

/// State that must be the same before and after: everything except the counters, which only grow, and how often it is polled, which
/// depends on how busy the machine is.
fn identity(daemon: &Daemon) -> Value {
    let mut bond = daemon.bond("bond0");
    bond["polled_every_ms"].take();
    // What the kernel is to do by itself is prepared a moment later.
    bond["failover"].take();
    for port in bond["ports"].as_array_mut().expect("ports") {
        for counter in COUNTERS {
            port[counter].take();
        }
    }
    bond
}

fn counters(daemon: &Daemon, port: &str) -> Vec<u64> {
    let port = daemon.port("bond0", port);
    COUNTERS
        .iter()
        .map(|&counter| port[counter].as_u64().unwrap_or_else(|| panic!("{counter} of {port}")))
        .collect()
}

/// Restarts ten times at full send rate, after one failover, and checks all that must stay.
fn ten_restarts(settings: Settings, stop: impl Fn(&mut Daemon)) {
    let mut pair = TwoBonds::with(Machine::alone(), settings, "miimon=100");
    pair.wait_active("eth0");
    pair.cables[0].pull();
    pair.wait_active("eth1");
    pair.cables[0].plug();
    pair.left.daemon.wait_link("bond0", "eth0", "up");
    pair.right.daemon.wait_link("bond0", "eth0", "up");
    let before = [identity(&pair.left.daemon), identity(&pair.right.daemon)];
    assert_eq!(pair.left.daemon.port("bond0", "eth0")["link_failures"], 1);

    let flow = pair.flow(Rate::Full);
    for round in 0..10 {
        let daemon = if round % 2 == 0 {
            &mut pair.left.daemon
        } else {
            &mut pair.right.daemon
        };
        let counted = counters(daemon, "eth1");
        stop(daemon);
        flow.pass(5_000);
        daemon.launch();
        flow.pass(5_000);
        assert!(
            counters(daemon, "eth1")
                .iter()
                .zip(counted)
                .all(|(after, before)| *after >= before),
            "counters went back"
        );
    }
    let total = flow.finish().tally();
    println!("ten restarts at full rate: {total:?}");
    assert_eq!((total.lost, total.failed_send, total.doubled), (0, 0, 0), "{total:?}");
    assert_eq!([identity(&pair.left.daemon), identity(&pair.right.daemon)], before);
    let sent = pair.left.daemon.port("bond0", "eth1")["tx_frames"].as_u64().unwrap();
    assert!(sent >= total.attempted, "{sent} counted, {} sent", total.attempted);

    // Adopted ports are watched like any other.
    pair.cables[1].pull();
    pair.wait_active("eth0");
}

#[test]
fn ten_kills_at_full_rate_lose_nothing_and_keep_port_counters_and_failures() {
    ten_restarts(Settings::default(), Daemon::sigkill);
}

#[test]
fn ten_orderly_stops_at_full_rate_lose_nothing_either() {
    ten_restarts(Settings::default(), |daemon| {
        assert!(daemon.sigterm(), "SIGTERM is an orderly end: status 0")
    });
}

#[test]
fn the_clsact_hook_survives_kills_at_full_rate_too() {
    ten_restarts(Settings::args(&["--tc-hook", "clsact"]), Daemon::sigkill);
}

#[test]
fn inside_ip_netns_exec_where_sys_is_mounted_anew_a_restart_loses_nothing() {
    ten_restarts(
        Settings {
            ip_netns_exec: true,
            ..Settings::default()
        },
        Daemon::sigkill,
    );
}

#[test]
fn forwarding_that_ends_with_the_mount_namespace_is_announced_at_start_stop_and_by_doctor() {
    let host = Netns::new("enclosed");
    let mut daemon = Daemon::start(&host);
    assert!(daemon.sigterm());
    let logged = daemon.log().len();
    daemon.enclose();
    daemon.launch();
    let why = "plane tc: they stop forwarding when the last process of this mount namespace ends";
    let since = |daemon: &Daemon| daemon.log()[logged..].to_owned();
    assert_eq!(since(&daemon).matches(why).count(), 1, "{}", since(&daemon));
    assert!(daemon.ctl("doctor").contains(why), "{}", daemon.ctl("doctor"));
    let point = daemon.dir().join("bpf");
    let remedy = format!("`mkdir -p {0} && mount -t bpf bpf {0}`", point.display());
    assert!(since(&daemon).contains(&remedy), "{}", since(&daemon));

    daemon.ctl("add bond0 mode active-backup plane tc");
    assert!(daemon.sigterm());
    let log = since(&daemon);
    assert!(log.contains(&format!("stopping; bonds on {why}")), "{log}");
    assert!(!log.contains("all bonds stay as they are"), "{log}");
}

#[test]
fn a_port_that_failed_while_the_agent_was_away_is_left_at_the_start() {
    let mut bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    bench.host.daemon.wait_active("bond0", "eth0");
    bench.host.daemon.sigkill();
    bench.cables[0].pull();
    bench.host.daemon.launch();
    bench.host.daemon.wait_active("bond0", "eth1");
    assert_eq!(bench.host.daemon.port("bond0", "eth0")["link_failures"], 1);
}

#[test]
fn settings_made_by_bondctl_outlive_a_kill_and_ports_are_given_back_as_they_were() {
    let mut bench = BondAndSwitch::new(
        Machine::shared(),
        "miimon=100 primary=eth1 primary_reselect=failure updelay=200",
    );
    let before = bench.host.daemon.bond("bond0")["options"].clone();
    let macs = ["eth0", "eth1"].map(|port| bench.host.daemon.port("bond0", port)["permanent_mac"].clone());
    bench.host.daemon.sigkill();
    bench.host.daemon.launch();
    assert_eq!(bench.host.daemon.bond("bond0")["options"], before);
    bench.host.daemon.ctl("del bond0");
    for (port, mac) in ["eth0", "eth1"].into_iter().zip(macs) {
        assert_eq!(bench.host.netns.mac(port), mac.as_str().unwrap());
    }
}

#[test]
fn a_bond_whose_saved_state_is_lost_is_adopted_and_can_be_deleted() {
    let mut bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    bench.host.daemon.wait_active("bond0", "eth0");
    bench.host.daemon.sigkill();
    fs::remove_dir_all(bench.host.daemon.dir().join("state")).expect("there is saved state");
    bench.host.daemon.launch();
    assert_eq!(bench.host.daemon.active("bond0"), "eth0");
    bench.host.daemon.ctl("del bond0");
    assert_eq!(bench.host.netns.link("bond0"), None);
    for port in ["eth0", "eth1"] {
        let link = bench.host.netns.link(port).expect("ports stay");
        assert!(link["ifalias"].is_null(), "{link}");
    }
}

#[test]
fn a_bond_whose_pins_are_gone_gets_its_programs_anew_and_the_log_says_why() {
    let mut bench = BondAndSwitch::new(Machine::shared(), "miimon=100 plane=tc");
    let daemon = &mut bench.host.daemon;
    daemon.wait_active("bond0", "eth0");
    let pinned = pins(daemon.netns(), daemon.dir(), std::process::id());
    assert!(!pinned.is_empty());
    let why = "bond0: its programs are gone, so its ports are attached anew";
    daemon.sigkill();
    daemon.launch();
    assert!(!daemon.log().contains(why), "{}", daemon.log());
    daemon.sigkill();
    let mut folders = pinned.iter().filter_map(|pin| pin.parent());
    // Beside the folders of bonds there may be one of what all of them share.
    let of_a_bond = |folder: &&Path| {
        folder
            .file_name()
            .is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok())
    };
    let folder = folders.find(of_a_bond).expect("pins are in a folder");
    fs::remove_dir_all(folder).expect("nothing holds it");
    daemon.launch();
    daemon.wait_active("bond0", "eth0");
    assert_eq!(daemon.log().matches(why).count(), 1, "{}", daemon.log());
}

#[test]
fn balance_xor_is_taken_over_with_its_usable_ports_as_it_has_no_active_one() {
    let mut bench = BondAndSwitch::new(Machine::shared(), "mode=balance-xor miimon=100");
    let daemon = &mut bench.host.daemon;
    for port in ["eth0", "eth1"] {
        daemon.wait_link("bond0", port, "up");
    }
    daemon.sigkill();
    daemon.launch();
    let log = daemon.log();
    assert!(log.contains("bond0: adopted with usable ports eth0, eth1\n"), "{log}");
}

#[test]
fn a_bond_renamed_while_the_agent_was_away_keeps_what_was_saved() {
    let mut bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let mac = bench.host.daemon.port("bond0", "eth1")["permanent_mac"].clone();
    bench.host.daemon.sigkill();
    bench.host.netns.ip("link set bond0 name uplink");
    bench.host.daemon.launch();
    bench.host.daemon.wait_active("uplink", "eth0");
    assert_eq!(bench.host.daemon.port("uplink", "eth1")["permanent_mac"], mac);
    bench.host.daemon.ctl("del uplink");
    assert_eq!(bench.host.netns.mac("eth1"), mac.as_str().unwrap());
}

#[test]
fn a_port_that_was_being_attached_when_the_agent_was_killed_is_set_up_and_one_that_an_operator_set_down_is_not() {
    for args in [&[][..], &["--tc-hook", "clsact"]] {
        let mut bench = BondAndSwitch::with(Machine::shared(), Settings::args(args), "miimon=100");
        let (daemon, netns) = (&mut bench.host.daemon, &bench.host.netns);
        daemon.wait_active("bond0", "eth0");
        netns.ip("link set eth0 down");
        daemon.wait_active("bond0", "eth1");
        daemon.sigkill();
        // As it is right before the last step of attaching.
        netns.ip("link set eth1 down");
        let path = daemon.dir().join("state/bond0.json");
        let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let ports = state["bond"]["ports"].as_array_mut().unwrap();
        ports.retain(|port| port["name"] != "eth1");
        assert_eq!(ports.len(), 1);
        fs::write(&path, state.to_string()).unwrap();
        daemon.launch();
        daemon.wait_link("bond0", "eth1", "up");
        daemon.wait_active("bond0", "eth1");
        let flags = |name| netns.link(name).unwrap()["flags"].to_string();
        assert!(flags("eth1").contains("\"UP\""), "{}", flags("eth1"));
        assert!(!flags("eth0").contains("\"UP\""), "{}", flags("eth0"));
        let said = daemon.log().matches("bond0: eth1: completing its attachment").count();
        assert_eq!(said, 1, "{}", daemon.log());
    }
}

#[test]
fn a_port_that_was_still_to_be_given_back_has_known_settings_when_its_bond_is_taken_over() {
    let mut bench = BondAndSwitch::with(Machine::shared(), Settings::default(), "miimon=100");
    let (daemon, netns) = (&mut bench.host.daemon, &bench.host.netns);
    daemon.wait_active("bond0", "eth0");
    let mac = daemon.port("bond0", "eth1")["permanent_mac"].clone();
    let index = daemon.port("bond0", "eth1")["ifindex"].to_string();
    daemon.sigkill();
    let saved = daemon.dir().join("state/bond0.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&saved).unwrap()).unwrap();
    let original = state["originals"].as_object_mut().unwrap().remove(&index).unwrap();
    state["unrestored"] = serde_json::json!({ index: original });
    fs::write(&saved, state.to_string()).unwrap();
    daemon.launch();
    daemon.wait_active("bond0", "eth0");
    let words = "does not say what this port was";
    assert!(!daemon.log().contains(words), "{}", daemon.log());
    daemon.ctl("port del bond0 eth1");
    assert_eq!(netns.mac("eth1"), mac.as_str().unwrap());
}

/// Deletes a bond while no agent runs, and one of its ports, whose name and index another interface gets. The saved state says that
/// both are to be given back; or the file of ports that bonds left behind does.
fn given_back_is_what_is_marked(settings: Settings, are_left: bool) {
    let mut bench = BondAndSwitch::with(Machine::shared(), settings, "miimon=100");
    let (daemon, netns) = (&mut bench.host.daemon, &bench.host.netns);
    daemon.wait_active("bond0", "eth0");
    let mac = daemon.port("bond0", "eth1")["permanent_mac"].clone();
    let index = daemon.port("bond0", "eth0")["ifindex"].clone();
    daemon.sigkill();
    netns.ip("link del bond0");
    netns.ip("link del eth0");
    netns.ip(&format!(
        "link add eth0 index {index} address 02:77:00:00:00:01 mtu 1450 type veth peer name far0"
    ));
    netns.ip("link set eth0 up");
    netns.exec(&["tc", "qdisc", "add", "dev", "eth0", "clsact"]);
    if are_left {
        netns.ip("link add bond7 type veth peer name far7");
        netns.exec(&["ip", "link", "set", "eth0", "alias", "port of bond7"]);
        let saved = daemon.dir().join("state/bond0.json");
        let mut state: Value = serde_json::from_slice(&fs::read(&saved).unwrap()).unwrap();
        let mut ports = state["originals"].take();
        for port in ports.as_object_mut().unwrap().values_mut() {
            *port = serde_json::json!({"bond": "bond0", "plane": "tc", "original": port.take()});
        }
        let left = serde_json::json!({"boot_id": state["boot_id"], "netns": netns.inode(), "ports": ports});
        fs::write(daemon.dir().join("state/left-ports"), left.to_string()).unwrap();
        fs::remove_file(&saved).unwrap();
    }
    let before = PortState::of(netns, "eth0");
    daemon.launch();
    wait_for("the port is given back", LIMIT, || {
        netns.mac("eth1") == mac.as_str().unwrap()
    });
    wait_for("its mark is taken off", LIMIT, || {
        netns.link("eth1").unwrap()["ifalias"].is_null()
    });
    assert_eq!(PortState::of(netns, "eth0"), before, "{}", daemon.log());
    let words = "bond0: eth0 is not marked as its port, so its settings are left as they are";
    assert_eq!(daemon.log().matches(words).count(), 1, "{}", daemon.log());
    assert!(!daemon.log().contains("eth0: given back"), "{}", daemon.log());
    // That is settled: nothing tries again.
    assert!(!daemon.dir().join("state/bond0.json").exists());
    let left = || daemon.dir().join("state/left-ports").exists();
    wait_for("nothing is left to be given back", LIMIT, || !left());
}

#[test]
fn another_interface_with_the_index_of_a_former_port_is_left_as_it_is() {
    given_back_is_what_is_marked(Settings::default(), false);
    given_back_is_what_is_marked(Settings::args(&["--tc-hook", "clsact"]), false);
}

#[test]
fn another_interface_with_the_index_of_a_port_that_was_left_behind_is_left_as_it_is() {
    given_back_is_what_is_marked(Settings::default(), true);
    given_back_is_what_is_marked(Settings::args(&["--tc-hook", "clsact"]), true);
}

#[test]
fn a_second_agent_on_the_same_run_dir_refuses_and_the_first_goes_on() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let daemon = &bench.host.daemon;
    let second = daemon
        .command()
        .stdin(Stdio::null())
        .output()
        .expect("bondd can be run");
    let (code, why) = refused(&second);
    assert_eq!(code, 1, "{why}");
    assert!(why.contains(daemon.dir().to_str().unwrap()), "names the run dir: {why}");
    wait_for("the first one answers", LIMIT, || daemon.active("bond0") == "eth0");
    bench.cables[0].pull();
    daemon.wait_active("bond0", "eth1");
}

#[test]
fn the_rights_of_the_systemd_unit_are_enough() {
    let unit = fs::read_to_string(root().join("packaging/bondd.service")).unwrap();
    let rights = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    // The first agent has all rights, for it may have to mount a bpffs, which systemd does itself.
    let mut bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let (daemon, cables) = (&mut bench.host.daemon, &bench.cables);
    daemon.sigkill();
    daemon.limit(rights.expect("the unit limits the rights"));
    daemon.launch();
    cables[0].pull();
    daemon.wait_active("bond0", "eth1");
    for line in [
        "port del bond0 eth0",
        "port add bond0 eth0",
        "set bond0 miimon=50 all_slaves_active=1",
        "del bond0",
        "add bond1 mode=active-backup fail_over_mac=active",
        "port add bond1 eth0 eth1",
    ] {
        daemon.ctl(line);
    }
    daemon.wait_active("bond1", "eth1");
}

const COUNTERS: [&str; 5] = ["tx_frames", "tx_bytes", "rx_frames", "rx_bytes", "rx_dropped"];

#[test]
fn signals_that_do_not_ask_to_end_leave_the_agent_as_it_is() {
    let pair = TwoBonds::new(Machine::shared(), "miimon=100");
    pair.wait_active("eth0");
    let daemon = &pair.left.daemon;
    let before = identity(daemon);
    let flow = pair.flow(TEN_THOUSAND);
    flow.pass(500);
    let logged = [
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGVTALRM, "SIGVTALRM"),
        (libc::SIGPROF, "SIGPROF"),
        (libc::SIGIO, "SIGIO"),
        (libc::SIGPWR, "SIGPWR"),
        (libc::SIGSTKFLT, "SIGSTKFLT"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGRTMIN(), "SIGRTMIN+0"),
        (libc::SIGRTMAX(), "SIGRTMIN+30"),
    ];
    for (signal, name) in logged {
        let line = format!("info received {name}, which changes nothing");
        assert_eq!(daemon.log().matches(&line).count(), 0, "{line}");
        daemon.poke(signal);
        wait_for(&line, LIMIT, || daemon.log().contains(&line));
        assert_eq!(daemon.log().matches(&line).count(), 1, "{line}");
    }
    for signal in [libc::SIGPIPE, libc::SIGTTIN, libc::SIGTTOU, libc::SIGXFSZ] {
        daemon.poke(signal);
    }
    assert_eq!(identity(daemon), before);
    flow.pass(500);
    let total = flow.finish().tally();
    assert_eq!((total.lost, total.failed_send, total.doubled), (0, 0, 0), "{total:?}");
    // It goes on watching.
    pair.cables[0].pull();
    pair.wait_active("eth1");
}

#[test]
fn only_requests_to_end_and_faults_have_their_default_effect() {
    let netns = Netns::new("signals");
    let daemon = Daemon::start(&netns);
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    // One bit a signal, number 1 in bit 0; the library keeps the two between the last ordinary one and SIGRTMIN.
    let of_library = 32..libc::SIGRTMIN();
    let taken_over = mask("SigIgn:") | mask("SigCgt:");
    let left: Vec<i32> = (1..=libc::SIGRTMAX())
        .filter(|number| taken_over >> (number - 1) & 1 == 0 && !of_library.contains(number))
        .collect();
    let harmless = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
    let of_terminal = [libc::SIGQUIT, libc::SIGTSTP];
    let uncaught = [libc::SIGKILL, libc::SIGSTOP];
    // SIGSEGV and SIGBUS are those of Rust's guard against overflow of the stack.
    let faults = [libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGFPE, libc::SIGSYS];
    let mut expected = [&harmless[..], &of_terminal, &uncaught, &faults].concat();
    expected.sort_unstable();
    assert_eq!(left, expected);
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    assert!(open < 45, "{open} descriptors: one for each signal?");
}

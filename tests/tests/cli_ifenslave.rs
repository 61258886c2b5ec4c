//! The `ifenslave` command as old scripts use it.

use std::os::unix::fs::symlink;
use std::process::{Output, Stdio};

use bondd_tests::bins::bin;
use bondd_tests::daemon::{LIMIT, Settings, refused, succeeded};
use bondd_tests::machine::Machine;
use bondd_tests::{Cable, Daemon, Netns, Switch, wait_for};

struct Old {
    daemon: Daemon,
    host: Netns,
    _cables: [Cable; 2],
    _switch: Switch,
    _machine: Machine,
}

/// A bond without ports, up as the scripts have it, and two interfaces that are up.
fn old() -> Old {
    let machine = Machine::shared();
    let (host, switch) = (Netns::new("host"), Switch::new());
    let cables = [("eth0", "p0"), ("eth1", "p1")].map(|(name, port)| switch.connect(&host, name, port));
    let daemon = Daemon::start(&host);
    daemon.ctl("add bond0 mode=active-backup miimon=100");
    Old {
        daemon,
        host,
        _cables: cables,
        _switch: switch,
        _machine: machine,
    }
}

/// An agent that answers and has just begun to make 40 bonds, the last of which is bond39.
fn starting() -> Old {
    let machine = Machine::shared();
    let (host, switch) = (Netns::new("host"), Switch::new());
    let cables = [("eth0", "p0"), ("eth1", "p1")].map(|(name, port)| switch.connect(&host, name, port));
    let bonds: String = (0..40).map(|number| format!("alias bond{number} bonding\n")).collect();
    let settings = Settings::config(&format!("{bonds}options bonding mode=active-backup miimon=100\n"));
    let mut daemon = Daemon::prepare(&host, settings);
    daemon.spawn();
    wait_for("it answers", LIMIT, || daemon.try_show().is_some());
    Old {
        daemon,
        host,
        _cables: cables,
        _switch: switch,
        _machine: machine,
    }
}

impl Old {
    #[track_caller]
    fn does(&self, line: &str) -> String {
        succeeded(
            line,
            self.daemon.ifenslave(&line.split_whitespace().collect::<Vec<_>>()),
        )
    }

    #[track_caller]
    fn fails(&self, line: &str, status: i32, words: &[&str]) {
        let (code, said) = refused(&self.daemon.ifenslave(&line.split_whitespace().collect::<Vec<_>>()));
        println!("ifenslave {line}: {code}: {said}");
        assert_eq!(code, status, "ifenslave {line}: {said}");
        assert!(
            words.iter().all(|word| said.contains(word)),
            "ifenslave {line}: {words:?} in {said}"
        );
    }

    /// With the form of Debian's shell command.
    fn debian(&self, line: &str) -> Output {
        let mut command = self.host.command(bin("ifenslave"));
        command
            .args(line.split_whitespace())
            .env("BONDD_RUN_DIR", self.daemon.dir())
            .env("BONDD_IFENSLAVE", "debian")
            .stdin(Stdio::null());
        command.output().unwrap_or_else(|e| panic!("cannot run ifenslave: {e}"))
    }

    #[track_caller]
    fn debian_fails(&self, line: &str, status: i32, word: &str) {
        let (code, said) = refused(&self.debian(line));
        println!("debian: ifenslave {line}: {code}: {said}");
        assert_eq!(code, status, "ifenslave {line}: {said}");
        assert!(said.contains(word), "ifenslave {line}: {word} in {said}");
    }

    fn ports(&self) -> Vec<String> {
        let bond = self.daemon.bond("bond0");
        bond["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| port["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[test]
fn the_classic_sequence_enslaves_changes_and_detaches() {
    let old = old();
    old.host.ip("link set bond0 up");
    old.does("bond0 eth0 eth1");
    assert_eq!(old.ports(), ["eth0", "eth1"]);
    old.daemon.wait_link("bond0", "eth0", "up");
    old.daemon.wait_link("bond0", "eth1", "up");
    assert_eq!(old.daemon.active("bond0"), "eth0");
    old.does("-c bond0 eth1");
    assert_eq!(old.daemon.active("bond0"), "eth1");
    old.does("-d bond0 eth1");
    assert_eq!(old.ports(), ["eth0"]);
    old.daemon.wait_active("bond0", "eth0");
    old.does("--detach bond0 eth0");
    assert_eq!(old.ports(), Vec::<String>::new());
}

#[test]
fn addresses_on_a_new_slave_are_taken_away_as_ever() {
    let old = old();
    old.host.ip("link set bond0 up");
    old.host.ip("addr add 192.0.2.1/24 dev eth0");
    old.does("bond0 eth0");
    assert_eq!(old.host.ip("-4 addr show dev eth0"), "");
}

#[test]
fn a_bond_that_is_down_gives_and_takes_ports() {
    let old = old();
    old.does("bond0 eth0 eth1");
    old.daemon.wait_link("bond0", "eth1", "up");
    old.does("-c bond0 eth1");
    assert_eq!(old.daemon.active("bond0"), "eth1");
    old.does("-d bond0 eth1");
    assert_eq!(old.ports(), ["eth0"]);
}

#[test]
fn what_is_no_bond_is_refused_with_status_1_and_so_is_a_port_of_none() {
    let old = old();
    old.fails("bond9 eth0", 1, &["bond9"]);
    old.fails("eth1 eth0", 1, &["eth1"]);
    old.fails("-d bond0 eth0", 1, &["eth0"]);
    old.fails("-c bond0 eth0", 1, &["eth0"]);
}

#[test]
fn the_last_failing_slave_gives_the_status_and_the_others_are_enslaved() {
    let old = old();
    old.host.ip("link set bond0 up");
    // The errno of a missing device.
    old.fails("bond0 nosuch eth1", 19, &["nosuch"]);
    assert_eq!(old.ports(), ["eth1"]);
    old.fails("bond0 eth1", 1, &["eth1"]);
    old.fails("-d bond0 nosuch", 255, &["nosuch"]);
}

#[test]
fn wrong_usage_is_status_2_and_help_and_version_are_0() {
    let old = old();
    for line in [
        "",
        "-d bond0",
        "-c bond0",
        "-d -d bond0 eth0",
        "-a eth0",
        "-r bond0 eth0",
        "-?",
        "-d -c bond0 eth0",
    ] {
        old.fails(line, 2, &[]);
    }
    for line in ["-h", "--help", "-u", "--usage", "-V", "--version"] {
        assert!(!old.does(line).is_empty(), "{line} prints to standard output");
    }
}

#[test]
fn the_show_form_prints_flags_address_and_hardware_address() {
    let old = old();
    old.host.ip("link set bond0 up");
    old.host.ip("addr add 192.0.2.1/24 dev bond0");
    let shown = old.does("bond0");
    assert!(shown.contains("result of SIOCGIFFLAGS on bond0 is"), "{shown}");
    assert!(shown.contains("result of SIOCGIFADDR is 192.0.2.1"), "{shown}");
    assert!(shown.contains("result of SIOCGIFHWADDR is type 1  "), "{shown}");
    assert!(old.does("-a").contains("bond0"));
}

#[test]
fn without_an_agent_it_fails_with_status_1() {
    let mut old = old();
    old.host.ip("link set bond0 up");
    old.daemon.sigterm();
    old.fails("bond0 eth0", 1, &[]);
}

#[test]
fn a_bond_that_the_agent_is_still_to_make_is_waited_for() {
    let early = starting();
    let (status, said) = refused(&early.daemon.bondctl(&["show", "bond39"]));
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("bond39 is not made yet: bondd has just started"),
        "{said}"
    );
    early.does("bond39 eth0 eth1");
    let ports = early.daemon.bond("bond39")["ports"].as_array().map(Vec::len);
    assert_eq!(ports, Some(2));
    drop(early);
    let early = starting();
    succeeded("bond39 eth0 eth1", early.debian("bond39 eth0 eth1"));
    drop(early);
    assert!(starting().daemon.ctl("--wait 10 show bond39").contains("active-backup"));
}

#[test]
fn what_a_slave_had_is_given_back_and_a_refusal_leaves_it_alone() {
    let old = old();
    old.host.ip("link set bond0 up");
    old.host.ip("link set eth0 mtu 9000");
    let (mac, flags) = (old.host.mac("eth1"), |name| {
        old.host.link(name).unwrap()["flags"].clone()
    });
    let mtu = |name| old.host.link(name).unwrap()["mtu"].as_u64().unwrap();
    old.does("bond0 eth0 eth1");
    assert_eq!((mtu("eth0"), old.host.mac("eth1")), (1500, old.host.mac("bond0")));
    old.does("-d bond0 eth0 eth1");
    assert_eq!((mtu("eth0"), old.host.mac("eth1")), (9000, mac));
    old.host.ip("link add br7 type bridge");
    old.host.ip("link set eth1 master br7");
    old.host.ip("link set eth1 up");
    old.host.ip("addr add 192.0.2.7/24 dev eth1");
    let (before, bond) = (flags("eth1"), old.host.mac("bond0"));
    old.fails("bond0 eth1", 1, &["eth1", "br7", "enslave failed"]);
    assert!(before.as_array().unwrap().contains(&"UP".into()), "{before}");
    assert!(
        flags("eth1").as_array().unwrap().contains(&"UP".into()),
        "{}",
        flags("eth1")
    );
    assert!(old.host.ip("-4 addr show dev eth1").contains("192.0.2.7"));
    assert_eq!(old.host.mac("bond0"), bond);
}

#[test]
fn verbose_tells_every_step_and_what_bondd_changed() {
    let old = old();
    old.host.ip("link set bond0 mtu 1400");
    old.host.ip("link set bond0 up");
    old.does("bond0 eth0");
    let shown = old.does("eth1");
    let flags = shown
        .lines()
        .next()
        .and_then(|line| line.trim_end_matches('.').rsplit(' ').next());
    let flags = u16::from_str_radix(flags.unwrap(), 16).unwrap();
    let (mac, output) = (old.host.mac("bond0"), old.daemon.ifenslave(&["-v", "bond0", "eth1"]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{said}");
    assert!(output.status.success(), "{said}");
    assert!(output.stdout.starts_with(b"ifenslave.c:v1.1.0 ("));
    for line in [
        "ABI version 2".to_owned(),
        format!("Master 'bond0': hardware address {mac}, type 1"),
        format!("Slave 'eth1': flags set to {:04X}", flags & !1),
        "Slave 'eth1': MTU set to 1400".to_owned(),
        format!("Slave 'eth1': hardware address set to {mac}"),
        "Slave 'eth1': address cleared".to_owned(),
    ] {
        assert!(said.lines().any(|found| found == line), "{line:?} in\n{said}");
    }
}

#[test]
fn it_works_under_the_name_that_debian_gave_it() {
    let old = old();
    old.host.ip("link set bond0 up");
    let link = old.daemon.dir().join("ifenslave-2.6");
    symlink(bin("ifenslave"), &link).unwrap();
    let mut command = old.host.command(&link);
    let output = command
        .args(["bond0", "eth0"])
        .env("BONDD_RUN_DIR", old.daemon.dir())
        .output();
    succeeded("ifenslave-2.6", output.unwrap());
    assert_eq!(old.ports(), ["eth0"]);
}

#[test]
fn debians_form_takes_a_bond_that_is_down_skips_what_is_done_and_stops_at_a_failure() {
    let old = old();
    let does = |line: &str| succeeded(line, old.debian(line));
    old.host.ip("addr add 192.0.2.1/24 dev eth0");
    let attached = old.debian("bond0 eth0 eth1");
    assert!(attached.status.success(), "{attached:?}");
    assert!(
        String::from_utf8_lossy(&attached.stderr).contains("eth0 keeps its address 192.0.2.1"),
        "{attached:?}"
    );
    assert_eq!(old.ports(), ["eth0", "eth1"]);
    does("bond0 eth0 eth1");
    old.host.ip("link set bond0 up");
    old.daemon.wait_link("bond0", "eth1", "up");
    does("-c bond0 eth1");
    assert_eq!(old.daemon.active("bond0"), "eth1");
    old.debian_fails("-c bond0 eth0 eth1", 1, "only one");
    old.debian_fails("-d bond0 nosuch eth0", 1, "nosuch");
    assert_eq!(old.ports(), ["eth0", "eth1"]);
    does("-v -d bond0 eth0 eth1");
    does("-d bond0 eth0");
    assert_eq!(old.ports(), Vec::<String>::new());
    old.debian_fails("bond0", 1, "not enough arguments");
    old.debian_fails("-dv bond0 eth0", 1, "-dv");
    old.debian_fails("bond0 lo", 1, "lo");
    assert!(does("-a").contains("bond0: <"));
    assert!(does("-V").contains("Debian") && does("-u").starts_with("Usage: ") && does("-h").contains("Exit status"));
}

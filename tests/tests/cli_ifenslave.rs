//! The `ifenslave` command as old scripts use it.

use bondd_tests::daemon::{refused, succeeded};
use bondd_tests::machine::Machine;
use bondd_tests::{Cable, Daemon, Netns, Switch};

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
fn a_bond_that_is_down_or_missing_is_refused_with_status_1() {
    let old = old();
    old.fails("bond0 eth0", 1, &["bond0"]);
    assert_eq!(old.ports(), Vec::<String>::new());
    old.fails("bond9 eth0", 1, &["bond9"]);
    old.fails("eth1 eth0", 1, &["eth1"]);
    old.host.ip("link set bond0 up");
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

//! Option files that change between two starts: what left them is taken back, what an operator asked for stays.

use std::fs;

use bondd_tests::daemon::LIMIT;
use bondd_tests::machine::Machine;
use bondd_tests::{Cable, Daemon, Netns, Settings, Switch, wait_for};
use serde_json::{Value, json};

struct Host {
    daemon: Daemon,
    netns: Netns,
    _cables: [Cable; 4],
    _switch: Switch,
    _machine: Machine,
}

impl Host {
    /// With an agent that read this file, and four interfaces.
    fn new(text: &str) -> Host {
        let machine = Machine::shared();
        let (netns, switch) = (Netns::new("host"), Switch::new());
        let cables = ["eth0", "eth1", "eth2", "eth3"].map(|name| switch.connect(&netns, name, &format!("p-{name}")));
        let daemon = Daemon::start_with(&netns, Settings::config(text));
        Host {
            daemon,
            netns,
            _cables: cables,
            _switch: switch,
            _machine: machine,
        }
    }

    /// Stops the agent, and starts it with this file.
    fn restart(&mut self, text: &str) {
        assert!(self.daemon.sigterm());
        fs::write(self.daemon.dir().join("bondd.conf"), text).expect("the file can be written");
        self.daemon.launch();
    }

    fn options(&self, bond: &str, names: &[&str]) -> Vec<Value> {
        let shown = self.daemon.bond(bond);
        names.iter().map(|name| shown["options"][*name].clone()).collect()
    }

    fn origins(&self, bond: &str, names: &[&str]) -> Vec<Value> {
        let shown = self.daemon.bond(bond);
        names
            .iter()
            .map(|name| shown["option_origins"][*name].clone())
            .collect()
    }

    fn ports(&self, bond: &str) -> Vec<String> {
        let shown = self.daemon.bond(bond);
        let ports = shown["ports"].as_array().expect("a list").iter();
        ports
            .map(|port| port["name"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// How often the log says this.
    fn said(&self, words: &str) -> usize {
        self.daemon.log().matches(words).count()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let names: Vec<String> = self.daemon.ctl("list").lines().map(str::to_owned).collect();
        for name in names {
            self.daemon.ctl(&format!("del {name}"));
        }
    }
}

#[test]
fn options_and_ports_that_left_the_file_leave_the_bond_and_an_operators_own_stay() {
    let mut host = Host::new(
        "alias bond0 bonding\noptions bond0 mode=1 miimon=50 updelay=100 primary=eth1 slaves=eth0,eth1,eth3\n",
    );
    let mac = host.daemon.port("bond0", "eth1")["permanent_mac"].clone();
    host.daemon.ctl("set bond0 num_grat_arp 3");
    host.daemon.ctl("port add bond0 eth2");
    let names = ["miimon", "updelay", "primary", "num_unsol_na", "downdelay"];
    let wanted = ["file", "file", "file", "operator", "default"].map(Value::from);
    assert_eq!(host.origins("bond0", &names), wanted);
    assert!(
        host.daemon
            .ctl("show bond0")
            .contains("set by file: mode, miimon, updelay, primary; operator: num_grat_arp\n")
    );

    let less = "alias bond0 bonding\noptions bond0 mode=1 slaves=eth0,eth3\n";
    for _ in 0..2 {
        host.restart(less);
        let wanted = [json!(100), json!(0), Value::Null, json!(3), json!(0)];
        assert_eq!(host.options("bond0", &names), wanted);
        let wanted = ["default", "default", "default", "operator", "default"].map(Value::from);
        assert_eq!(host.origins("bond0", &names), wanted);
        assert_eq!(host.ports("bond0"), ["eth0", "eth3", "eth2"]);
        assert_eq!(host.netns.mac("eth1"), mac.as_str().unwrap());
        let link = host.netns.link("eth1").expect("it stays");
        assert!(link["ifalias"].is_null(), "{link}");
    }
    // Once, by the first of the two starts.
    assert_eq!(host.said("eth1 left the option files, giving it back"), 1);
    assert_eq!(
        host.said("miimon, updelay, primary left the option files, back to the default"),
        1
    );
}

#[test]
fn a_file_that_cannot_be_followed_is_tried_and_told_at_each_start_until_it_can() {
    let file = |options: &str| format!("alias bond0 bonding\noptions bond0 {options} slaves=eth0,eth1\n");
    let mut host = Host::new(&file("mode=1 miimon=50"));
    host.netns.ip("link set bond0 up");
    host.daemon.wait_active("bond0", "eth0");
    let failed =
        "bond0: the options file cannot be followed while it runs: bond0: mode cannot change while the bond has ports";
    for times in 1..=3 {
        host.restart(&file("mode=0 miimon=70"));
        assert_eq!(host.said(failed), times, "{}", host.daemon.log());
        assert_eq!(
            host.options("bond0", &["mode", "miimon"]),
            [json!("active-backup"), json!(50)]
        );
    }
    // When nothing is in its way any more it is followed.
    for port in ["eth0", "eth1"] {
        host.daemon.ctl(&format!("port del bond0 {port}"));
    }
    host.netns.ip("link set bond0 down");
    host.restart(&file("mode=0 miimon=70"));
    assert_eq!(host.said(failed), 3);
    assert_eq!(
        host.options("bond0", &["mode", "miimon"]),
        [json!("balance-rr"), json!(70)]
    );
    wait_for("the ports are attached", LIMIT, || {
        host.ports("bond0") == ["eth0", "eth1"]
    });
}

#[test]
fn a_bond_that_left_the_files_is_removed_unless_an_operator_has_a_hand_in_it() {
    let both = "alias bond0 bonding\noptions bond0 mode=1 slaves=eth0,eth1\n\
                alias bond1 bonding\noptions bond1 mode=1 miimon=50 slaves=eth2\n";
    let mut host = Host::new(both);
    let mac = host.daemon.port("bond0", "eth1")["permanent_mac"].clone();
    host.daemon.ctl("port add bond1 eth3");
    host.daemon.ctl("add bond2 mode=1");
    host.restart("# nothing\n");
    let list = host.daemon.ctl("list");
    assert_eq!(list, "bond1\nbond2\n", "{}", host.daemon.log());
    assert_eq!(host.netns.link("bond0"), None);
    assert_eq!(host.netns.mac("eth1"), mac.as_str().unwrap());
    assert_eq!(host.ports("bond1"), ["eth3"]);
    assert_eq!(
        host.options("bond1", &["mode", "miimon"]),
        [json!("active-backup"), json!(50)]
    );
    assert_eq!(
        host.origins("bond1", &["mode", "miimon"]),
        ["operator", "operator"].map(Value::from)
    );
    host.restart("# nothing\n");
    assert_eq!(host.daemon.ctl("list"), list);
    assert_eq!(host.said("bond1: it left the option files; it stays"), 1);
}

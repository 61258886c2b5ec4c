//! `modprobe bonding` without the kernel's module: the lines for modprobe.d that are shipped, under the real modprobe.

use std::fs;
use std::process::Stdio;

use bondd_tests::bins::{bin, root};
use bondd_tests::daemon::{refused, succeeded};
use bondd_tests::machine::Machine;
use bondd_tests::{Cable, Daemon, Netns, Switch};
use serde_json::json;

struct Host {
    daemon: Daemon,
    netns: Netns,
    _cables: [Cable; 2],
    _switch: Switch,
    _machine: Machine,
}

/// A running agent without bonds, and two interfaces.
fn host() -> Host {
    let machine = Machine::shared();
    let (netns, switch) = (Netns::new("host"), Switch::new());
    let cables = [("eth0", "p0"), ("eth1", "p1")].map(|(name, port)| switch.connect(&netns, name, port));
    let daemon = Daemon::start(&netns);
    let shipped = fs::read_to_string(root().join("packaging/modprobe.conf")).expect("there is a file for modprobe.d");
    assert_eq!(shipped.matches("/usr/sbin/bondctl").count(), 2, "{shipped}");
    let installed = shipped.replace("/usr/sbin/bondctl", bin("bondctl").to_str().expect("a plain path"));
    fs::create_dir(daemon.dir().join("modprobe.d")).expect("the run dir takes a folder");
    let host = Host {
        daemon,
        netns,
        _cables: cables,
        _switch: switch,
        _machine: machine,
    };
    host.modprobe_file("bondd.conf", &installed);
    host
}

impl Host {
    fn modprobe_file(&self, name: &str, text: &str) {
        fs::write(self.daemon.dir().join("modprobe.d").join(name), text).expect("the folder takes a file");
    }

    /// One shell session of an administrator. Nothing of the machine's modules is seen: modprobe reads our folder only, finds
    /// no tree of modules, and no module is loaded.
    fn session(&self, script: &str) -> std::process::Output {
        let dir = self.daemon.dir();
        let programs = bin("bondctl").parent().expect("it lies in a folder").to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = self.netns.command("unshare");
        shell
            .args([
                "--mount",
                "sh",
                "-c",
                "mount -t tmpfs none /sys/module && eval \"$1\"",
                "sh",
                script,
            ])
            .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", programs.display()))
            .env("BONDD_RUN_DIR", dir)
            .env("MODPROBE_OPTIONS", format!("-C {0}/modprobe.d -d {0}", dir.display()))
            .stdin(Stdio::null());
        shell.output().unwrap_or_else(|e| panic!("cannot run unshare: {e}"))
    }

    #[track_caller]
    fn does(&self, script: &str) -> String {
        succeeded(script, self.session(script))
    }

    /// Standard error of a session that must fail.
    #[track_caller]
    fn fails(&self, script: &str, words: &[&str]) {
        let (code, said) = refused(&self.session(script));
        println!("{script}: {code}: {said}");
        assert_eq!(code, 1, "{script}: {said}");
        assert!(
            words.iter().all(|word| said.contains(word)),
            "{script}: {words:?} in {said}"
        );
    }

    fn bonds(&self) -> Vec<String> {
        self.daemon.ctl("list").lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_module_is_loaded_ports_are_enslaved_and_the_status_is_read_in_one_session() {
    for form in ["1.1.0", "debian"] {
        let host = host();
        let script = "modprobe bonding max_bonds=2 mode=1 miimon=100 && ifenslave bond0 eth0 eth1 && \
                      cat $BONDD_RUN_DIR/proc/net/bonding/bond0";
        let status = host.does(&format!("export BONDD_IFENSLAVE={form}; {script}"));
        println!("$ {script}\n{status}");
        for line in [
            "Bonding Mode: fault-tolerance (active-backup)",
            "MII Polling Interval (ms): 100",
            "Slave Interface: eth0",
            "Slave Interface: eth1",
        ] {
            assert!(status.lines().any(|found| found == line), "{line:?} in\n{status}");
        }
        assert_eq!(host.bonds(), ["bond0", "bond1"]);
        let spare = host.daemon.bond("bond1");
        assert_eq!(
            (&spare["mode_number"], &spare["up"], &spare["ports"]),
            (&json!(1), &json!(false), &json!([]))
        );
    }
}

#[test]
fn unloading_removes_all_bonds_but_none_while_one_has_a_port() {
    let host = host();
    host.does("modprobe bonding max_bonds=2 mode=1");
    host.daemon.ctl("port add bond1 eth0");
    host.fails(
        "modprobe -r bonding",
        &["no bond was removed", "bond1 has eth0", "Error running remove command"],
    );
    assert_eq!(host.bonds(), ["bond0", "bond1"]);
    host.daemon.ctl("port del bond1 eth0");
    host.does("modprobe -r bonding");
    assert_eq!(host.bonds(), Vec::<String>::new());
    assert!(host.netns.link("bond0").is_none());
    host.does("modprobe -r bonding");
}

#[test]
fn names_and_parameters_of_the_files_of_modprobe_count() {
    let host = host();
    host.modprobe_file(
        "local.conf",
        "alias bond0 bonding\noptions bonding max_bonds=0 miimon=50\noptions bond0 max_bonds=1 mode=active-backup\n",
    );
    host.does("modprobe bonding");
    assert_eq!(host.bonds(), Vec::<String>::new());
    host.does("modprobe bond0 miimon=200");
    assert_eq!(host.bonds(), ["bond0"]);
    let bond = host.daemon.bond("bond0");
    assert_eq!(
        (&bond["mode"], &bond["options"]["miimon"]),
        (&json!("active-backup"), &json!(200))
    );
}

#[test]
fn a_second_load_changes_nothing() {
    let host = host();
    host.does("modprobe bonding mode=1 miimon=70");
    let bond = || {
        let mut bond = host.daemon.bond("bond0");
        // What the kernel is to do by itself is prepared a moment later.
        bond["failover"].take();
        bond
    };
    let before = bond();
    host.does("modprobe bonding && modprobe bonding mode=0");
    assert_eq!(bond(), before);
    assert_eq!(host.bonds(), ["bond0"]);
}

#[test]
fn what_is_refused_is_said_and_leaves_nothing() {
    let host = host();
    for (parameters, words) in [
        ("mode=9", &["mode=9"][..]),
        ("mdoe=1", &["mdoe"]),
        ("max_bonds=many", &["max_bonds=many", "expected a number"]),
        ("mode=1 miimon", &["miimon without a value"]),
    ] {
        host.fails(&format!("modprobe bonding {parameters}"), words);
    }
    host.netns.ip("link add bond1 type veth");
    host.fails("modprobe bonding max_bonds=3", &["bond1"]);
    assert_eq!(host.bonds(), Vec::<String>::new());
    assert!(host.netns.link("bond0").is_none());
}

#[test]
fn without_an_agent_modprobe_fails_and_says_so() {
    let mut host = host();
    host.daemon.sigterm();
    for line in ["modprobe bonding mode=1", "modprobe -r bonding"] {
        host.fails(line, &["no bondd answers at", "systemctl start bondd", "--run-dir"]);
    }
    assert!(host.netns.link("bond0").is_none());
}

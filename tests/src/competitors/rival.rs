//! In the lab's machine: what makes a bond of `eth0` and `eth1`.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::{Daemon, Settings};
use crate::netns::{Netns, run, unique};
use crate::wait::wait_for;

/// What a user may take. `eth0` is preferred by each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// One cable without a bond.
    Raw,
    /// The kernel's bonding driver.
    Kernel,
    /// The kernel's team driver with teamd.
    Teamd,
    /// A bridge of Open vSwitch with a bond.
    OpenVswitch,
    /// bondd on its data plane tc, with a veth pair.
    Tc,
    /// The same with a netkit device.
    Netkit,
    /// bondd on the kernel's team driver.
    Team,
}

impl Rival {
    /// In the order in which they are shown.
    pub const ALL: [Rival; 7] = [
        Rival::Raw,
        Rival::Kernel,
        Rival::Teamd,
        Rival::OpenVswitch,
        Rival::Tc,
        Rival::Netkit,
        Rival::Team,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Rival::Raw => "cable without a bond",
            Rival::Kernel => "kernel bonding",
            Rival::Teamd => "teamd",
            Rival::OpenVswitch => "Open vSwitch",
            Rival::Tc => "bondd, tc",
            Rival::Netkit => "bondd, tc with netkit",
            Rival::Team => "bondd, team",
        }
    }

    /// Whether it is one of ours.
    pub fn is_bondd(self) -> bool {
        matches!(self, Rival::Tc | Rival::Netkit | Rival::Team)
    }

    /// What finds a port without carrier, in its own words, see [`Bond::new`].
    pub fn watch(self) -> &'static str {
        match self {
            Rival::Raw | Rival::OpenVswitch => "",
            Rival::Kernel => "miimon 100",
            Rival::Teamd => r#"{"name": "ethtool"}"#,
            Rival::Tc | Rival::Netkit | Rival::Team => "miimon=100",
        }
    }

    /// The name of the interface that has the address.
    pub fn interface(self) -> &'static str {
        if self == Rival::Raw { "eth0" } else { "bond0" }
    }
}

/// How a bond chooses the port of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One port sends.
    ActiveBackup,
    /// By addresses and ports of the frame; of its Ethernet addresses with Open vSwitch, whose finer mode needs LACP.
    Spread,
}

/// A bond that is there.
#[derive(Debug)]
pub struct Bond {
    programs: Programs,
    agent: Option<Daemon>,
}

impl Bond {
    /// Makes `bond0` in this namespace, which has the ports; it is not up yet. `watch` says in each one's own words how a failure is
    /// found.
    #[track_caller]
    pub fn new(rival: Rival, netns: &Netns, mode: Mode, watch: &str) -> Bond {
        let (mut programs, mut agent) = (Programs(Vec::new()), None);
        match rival {
            Rival::Raw => {}
            Rival::Kernel => kernel(netns, mode, watch),
            Rival::Teamd => programs.0.push(teamd(netns, mode, watch)),
            Rival::OpenVswitch => programs = open_vswitch(netns, mode, watch),
            Rival::Tc => agent = Some(bondd(netns, &["--plane", "tc", "--tc-device", "veth"], mode, watch)),
            Rival::Netkit => agent = Some(bondd(netns, &["--plane", "tc", "--tc-device", "netkit"], mode, watch)),
            Rival::Team => agent = Some(bondd(netns, &["--plane", "team"], mode, watch)),
        }
        Bond { programs, agent }
    }

    /// Stops or continues its programs; what forwards goes on.
    pub fn signal(&self, signal: i32) {
        let agent = self.agent.iter().map(Daemon::pid);
        for pid in self.programs.0.iter().map(Child::id).chain(agent) {
            // SAFETY: kill(2) with numbers touches no memory of ours.
            let sent = unsafe { libc::kill(pid as libc::pid_t, signal) };
            assert_eq!(sent, 0, "a program of the bond has ended");
        }
    }

    /// The agent, if it is bondd that made it.
    pub fn agent(&self) -> Option<&Daemon> {
        self.agent.as_ref()
    }
}

/// They are ended with it.
#[derive(Debug)]
pub struct Programs(pub Vec<Child>);

impl Drop for Programs {
    fn drop(&mut self) {
        for program in self.0.iter_mut().rev() {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

#[track_caller]
fn kernel(netns: &Netns, mode: Mode, watch: &str) {
    let words = match mode {
        Mode::ActiveBackup => "active-backup",
        Mode::Spread => "balance-xor xmit_hash_policy layer3+4",
    };
    netns.ip(&format!("link add bond0 type bond mode {words} {watch}"));
    for port in PORTS {
        netns.ip(&format!("link set {port} down"));
        netns.ip(&format!("link set {port} master bond0"));
    }
    if mode == Mode::ActiveBackup {
        netns.ip("link set bond0 type bond primary eth0");
    }
}

#[track_caller]
fn bondd(netns: &Netns, arguments: &[&str], mode: Mode, watch: &str) -> Daemon {
    // What begins with dashes is the agent's, the rest the bond's.
    let (more, options): (Vec<&str>, Vec<&str>) = watch.split(' ').partition(|word| word.starts_with("--"));
    let more: Vec<&str> = more.iter().flat_map(|word| word.split('=')).collect();
    let daemon = Daemon::start_with(netns, Settings::args(&[arguments, &more].concat()));
    let words = match mode {
        Mode::ActiveBackup => "mode=active-backup",
        Mode::Spread => "mode=balance-xor xmit_hash_policy=layer3+4",
    };
    daemon.ctl(&format!("add bond0 {words} {}", options.join(" ")));
    daemon.ctl("port add bond0 eth0 eth1");
    if mode == Mode::ActiveBackup {
        daemon.ctl("set bond0 primary=eth0");
    }
    daemon
}

/// `watch` is the JSON text of its link watch.
#[track_caller]
fn teamd(netns: &Netns, mode: Mode, watch: &str) -> Child {
    let runner = match mode {
        Mode::ActiveBackup => json!({"name": "activebackup"}),
        Mode::Spread => json!({"name": "loadbalance", "tx_hash": ["ip", "l4"]}),
    };
    let watch: Value = serde_json::from_str(watch).expect("a link watch is JSON");
    let config = json!({
        "runner": runner,
        "link_watch": watch,
        "ports": {"eth0": {"prio": 100}, "eth1": {"prio": 10}},
    });
    for port in PORTS {
        netns.ip(&format!("link set {port} down"));
    }
    let _ = fs::remove_file("/run/teamd/bond0.pid");
    let mut command = netns.command("teamd");
    command.args(["-t", "bond0", "-c", &config.to_string()]);
    let child = started(command, "/tmp/teamd.log");
    wait_for("teamd has made bond0 with its ports", LIMIT, || {
        PORTS
            .iter()
            .all(|port| netns.link(port).is_some_and(|link| link["master"] == "bond0"))
    });
    child
}

/// `watch` is what ovs-vsctl is told besides.
#[track_caller]
fn open_vswitch(netns: &Netns, mode: Mode, watch: &str) -> Programs {
    let (programs, switch) = vswitchd(netns);
    let mode = match mode {
        Mode::ActiveBackup => "bond_mode=active-backup other_config:bond-primary=eth0",
        Mode::Spread => "bond_mode=balance-slb",
    };
    switch.tell(&format!(
        "add-br bond0 -- add-bond bond0 uplink eth0 eth1 {mode} {watch}"
    ));
    programs
}

/// How to speak to the switch of a namespace.
#[derive(Debug)]
struct Vswitch {
    folder: PathBuf,
}

impl Vswitch {
    /// ovs-vsctl with these words, until they are done.
    #[track_caller]
    fn tell(&self, words: &str) {
        let mut command = Command::new("ovs-vsctl");
        command.arg(format!("--db=unix:{}/db.sock", self.folder.display()));
        command.args(["--timeout", "60"]).args(words.split_whitespace());
        run(&mut command);
    }
}

/// Open vSwitch for a namespace, with folders of its own.
#[track_caller]
fn vswitchd(netns: &Netns) -> (Programs, Vswitch) {
    let folder = PathBuf::from("/run").join(unique("ovs"));
    fs::create_dir_all(&folder).expect("root may write to /run");
    let path = |name: &str| format!("{}/{name}", folder.display());
    run(Command::new("ovsdb-tool").args(["create", &path("conf.db"), "/usr/share/openvswitch/vswitch.ovsschema"]));
    let mut database = netns.command("ovsdb-server");
    database.arg(path("conf.db"));
    database.arg(format!("--remote=punix:{}", path("db.sock")));
    database.arg(format!("--unixctl={}", path("ovsdb.ctl")));
    let database = started(database, &path("ovsdb.log"));
    wait_for("ovsdb-server answers", LIMIT, || folder.join("db.sock").exists());
    let switch = Vswitch { folder: folder.clone() };
    switch.tell("--no-wait init");
    let mut vswitchd = netns.command("ovs-vswitchd");
    vswitchd.arg(format!("unix:{}", path("db.sock")));
    vswitchd.arg(format!("--unixctl={}", path("vswitchd.ctl")));
    let vswitchd = started(vswitchd, &path("vswitchd.log"));
    (Programs(vec![database, vswitchd]), switch)
}

fn started(mut command: Command, log: &str) -> Child {
    let log = File::create(log).expect("the guest's disk is ours");
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    child.unwrap_or_else(|e| panic!("cannot start {:?}: {e}", command.get_program()))
}

/// Of a bond.
pub const PORTS: [&str; 2] = ["eth0", "eth1"];
const LIMIT: Duration = Duration::from_secs(20);

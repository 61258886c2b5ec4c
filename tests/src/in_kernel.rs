//! Failover by the kernel itself, in the lab's machine: cables pulled while the agent runs, is stopped, and is gone, beside the kernel's driver; and how long the kernel
//! takes from the loss of a carrier to the first frame through the other port.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::daemon::{Daemon, Settings};
use crate::machine::Machine;
use crate::netns::{Cable, Netns, Switch};
use crate::process::hurry;
use crate::pulls::median;
use crate::traffic::{Flow, TEN_THOUSAND};
use crate::vm::Lab;
use crate::wait::until;

pub mod table;

/// Cost of pulls in one state.
#[derive(Debug)]
pub struct Row {
    /// The kernel's driver, or bondd.
    pub who: String,
    /// Its options, or what the agent does.
    pub how: String,
    /// Frames lost by each pull, of 10,000 a second, the fewest first.
    pub lost: Vec<u64>,
    /// The longest time without a frame, in microseconds.
    pub longest_gap: u64,
}

/// What was measured in one machine.
#[derive(Debug)]
pub struct Measured {
    /// In the order in which they were measured.
    pub rows: Vec<Row>,
    /// From the loss of a carrier to the first frame through the other port, the fewest first.
    pub instructions: Vec<u64>,
    /// The same when what loses its carrier is no port.
    pub without: Vec<u64>,
}

impl Measured {
    /// Instructions until the first frame through the other port, and those of them that are the failover's own.
    pub fn instructions(&self) -> (u64, u64) {
        let [whole, without] = [&self.instructions, &self.without].map(|counts| median(counts));
        (whole, whole.saturating_sub(without))
    }
}

/// Boots a machine and plays all of it; `programs` are bondd, bondctl and the guest's own.
///
/// # Panics
/// When the machine fails, or prints something else.
#[track_caller]
pub fn measure(lab: &Lab, programs: &[&Path], pulls: usize) -> Measured {
    let pulls = pulls.to_string();
    let arguments = [
        "--env",
        "BONDD_BIN_DIR=/usr/bin",
        "--timeout",
        "3600",
        "--guest-timeout",
        "1800",
        "--",
        "/usr/bin/bondd-in-kernel-guest",
        &pulls,
    ];
    let said = lab.run(MODULES, programs, &[], &arguments);
    let mut measured = Measured {
        rows: Vec::new(),
        instructions: Vec::new(),
        without: Vec::new(),
    };
    for line in said.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("the machine printed\n{said}"));
        let numbers = |name: &str| -> Option<Vec<u64>> { value[name].as_array()?.iter().map(Value::as_u64).collect() };
        if let Some(counts) = numbers("instructions") {
            measured.instructions = counts;
            measured.without = numbers("without").unwrap_or_default();
            continue;
        }
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        measured.rows.push(Row {
            who: text("who"),
            how: text("how"),
            lost: numbers("lost").unwrap_or_default(),
            longest_gap: value["longest_gap_us"].as_u64().unwrap_or_default(),
        });
    }
    measured
}

/// Kernel modules that it needs.
pub const MODULES: &[&str] = &["bonding", "veth", "bridge", "dummy", "sch_ingress", "cls_bpf"];

/// What an agent does while the cable of its active port is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Stopped,
    Killed,
}

/// Pulls the active port's cable so often in each state, and with the kernel's driver, and prints a JSON object for each row; then one
/// with counted instructions.
pub fn play(pulls: usize) {
    let _machine = Machine::alone();
    if pulls > 0 {
        rows(pulls);
    }
    println!("{}", instructions());
}

fn rows(pulls: usize) {
    for miimon in [100, 10, 1] {
        print("kernel", &format!("miimon={miimon}"), kernel(miimon, pulls));
    }
    // Nobody moves the traffic of an agent that is not there.
    print("bondd off", "running", bondd("off", State::Running, pulls));
    for (state, how) in [
        (State::Running, "running"),
        (State::Stopped, "stopped"),
        (State::Killed, "killed"),
    ] {
        print("bondd", how, bondd("auto", state, pulls));
    }
}

fn print(who: &str, how: &str, pulls: Vec<Pull>) {
    let mut lost: Vec<u64> = pulls.iter().map(|pull| pull.lost).collect();
    let longest = pulls.iter().map(|pull| pull.gap).max().unwrap_or_default();
    lost.sort_unstable();
    println!(
        "{}",
        json!({"who": who, "how": how, "lost": lost, "longest_gap_us": longest.as_micros() as u64})
    );
}

/// What one pull cost.
pub(crate) struct Pull {
    pub(crate) lost: u64,
    /// Zero if no frame arrived after those that were lost.
    pub(crate) gap: Duration,
}

/// A host with two cables to a switch.
pub(crate) struct Host {
    pub(crate) netns: Netns,
    pub(crate) switch: Switch,
    pub(crate) cables: [Cable; 2],
}

impl Host {
    pub(crate) fn new() -> Host {
        let (netns, switch) = (Netns::new("host"), Switch::new());
        let cables = [("eth0", "p0"), ("eth1", "p1")].map(|(name, port)| switch.connect(&netns, name, port));
        switch.netns.ip(&format!("addr add {FAR}/24 dev br0"));
        Host { netns, switch, cables }
    }

    /// Gives `bond0`, which is there, its address.
    pub(crate) fn address(&self) {
        self.netns.ip("link set bond0 up");
        self.netns.ip(&format!("addr add {NEAR}/24 dev bond0"));
        let far = self.switch.netns.mac("br0");
        self.netns
            .ip(&format!("neigh replace {FAR} lladdr {far} dev bond0 nud permanent"));
    }

    /// Pulls one cable after the other; `before` and `after` a pull something else is done.
    fn pull(&self, pulls: usize, mut before: impl FnMut(usize), mut after: impl FnMut(usize)) -> Vec<Pull> {
        let one = |pull: usize| {
            let cable = &self.cables[pull % 2];
            before(pull % 2);
            let flow = Flow::start(&self.netns, &self.switch.netns, FAR, TEN_THOUSAND);
            let seen = lost(flow, |_| {
                cable.pull();
                thread::sleep(LOOK);
            });
            cable.plug();
            after(pull % 2);
            seen
        };
        (0..pulls).map(one).collect()
    }
}

/// Frames lost while something is done.
pub(crate) fn lost(flow: Flow, harm: impl FnOnce(&Flow)) -> Pull {
    flow.pass(WARM);
    let from = flow.sent();
    harm(&flow);
    let to = flow.sent();
    let tally = flow.finish().between(from..to);
    Pull {
        lost: tally.lost,
        gap: tally.longest_gap,
    }
}

fn kernel(miimon: u32, pulls: usize) -> Vec<Pull> {
    let host = Host::new();
    host.netns
        .ip(&format!("link add bond0 type bond mode active-backup miimon {miimon}"));
    for port in ["eth0", "eth1"] {
        host.netns.ip(&format!("link set {port} down"));
        host.netns.ip(&format!("link set {port} master bond0"));
    }
    host.address();
    thread::sleep(SETTLE);
    host.pull(pulls, |_| thread::sleep(SETTLE), |_| ())
}

fn bondd(failover: &str, state: State, pulls: usize) -> Vec<Pull> {
    let host = Host::new();
    let settings = Settings::args(&["--plane", "tc", "--in-kernel-failover", failover]);
    let mut daemon = Daemon::start_with(&host.netns, settings);
    daemon.ctl("add bond0 mode=active-backup miimon=100");
    daemon.ctl("port add bond0 eth0 eth1");
    host.address();
    let ready = |daemon: &Daemon, active: usize| {
        daemon.wait_active("bond0", &format!("eth{active}"));
        daemon.wait_link("bond0", &format!("eth{}", 1 - active), "up");
        if failover == "auto" {
            wait_prepared(daemon);
        }
        // Its announcements are over.
        thread::sleep(SETTLE);
    };
    let daemon = std::cell::RefCell::new(&mut daemon);
    host.pull(
        pulls,
        |active| {
            ready(&daemon.borrow(), active);
            match state {
                State::Running => {}
                State::Stopped => daemon.borrow().poke(libc::SIGSTOP),
                State::Killed => daemon.borrow_mut().sigkill(),
            }
        },
        |pulled| {
            match state {
                State::Running => {}
                State::Stopped => daemon.borrow().poke(libc::SIGCONT),
                State::Killed => daemon.borrow_mut().launch(),
            }
            daemon.borrow().wait_link("bond0", &format!("eth{pulled}"), "up");
        },
    )
}

/// Until the kernel is to fail over.
///
/// # Panics
/// If it never is: with the reason.
pub(crate) fn wait_prepared(daemon: &Daemon) {
    let prepared = || daemon.bond("bond0")["failover"]["in_kernel"] == true;
    let came = until(LIMIT, || prepared().then_some(()));
    assert!(
        came.is_some(),
        "no failover is prepared: {}\n{}",
        daemon.bond("bond0")["failover"],
        daemon.log()
    );
}

/// From the entry of `netif_carrier_off` to the first frame that the other port gets. The port that is lost has no cable: its driver
/// takes away its carrier when it is asked to, and the one who asks sends the next frame. And the same when the interface that loses
/// its carrier is no port: what the asking and a frame take in any case.
fn instructions() -> Value {
    let host = Host::new();
    host.netns.ip("link del eth0");
    for dummy in ["eth0", "eth2"] {
        host.netns.ip(&format!("link add {dummy} type dummy"));
        host.netns.ip(&format!("link set {dummy} up"));
    }
    let daemon = Daemon::start_with(
        &host.netns,
        Settings::args(&["--plane", "tc", "--in-kernel-failover", "auto"]),
    );
    daemon.ctl("add bond0 mode=active-backup miimon=100");
    daemon.ctl("port add bond0 eth0 eth1");
    daemon.ctl("set bond0 primary=eth0");
    host.address();
    // What arrives is for somebody who never reads it.
    let bind = || UdpSocket::bind((FAR, DISCARD)).expect("a socket");
    let _sink = host.switch.netns.enter(bind);
    let trace = Trace::new();
    let (mut whole, mut without) = (Vec::new(), Vec::new());
    for _ in 0..MEASURED {
        daemon.wait_active("bond0", "eth0");
        daemon.wait_link("bond0", "eth1", "up");
        wait_prepared(&daemon);
        thread::sleep(SETTLE);
        daemon.poke(libc::SIGSTOP);
        let (with_failover, other) = host.netns.enter(|| {
            let sysfs = Sysfs::mounted();
            let (mut eth0, mut eth2) = (sysfs.carrier("eth0"), sysfs.carrier("eth2"));
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.connect((FAR, DISCARD)).expect("an address");
            // The kernel's threads, which tell of the loss, come later.
            hurry();
            let counts = (
                trace.until_sent(&mut eth0, &socket),
                trace.until_sent(&mut eth2, &socket),
            );
            for carrier in [&mut eth0, &mut eth2] {
                carrier.write_all(b"1").expect("a dummy gets its carrier back");
            }
            counts
        });
        daemon.poke(libc::SIGCONT);
        whole.push(with_failover);
        without.push(other);
    }
    whole.sort_unstable();
    without.sort_unstable();
    json!({"instructions": whole, "without": without})
}

/// The files of this network namespace's interfaces.
struct Sysfs;

impl Sysfs {
    fn mounted() -> Sysfs {
        fs::create_dir_all(SYS).expect("a folder of our own");
        mount(Some("sysfs"), SYS, Some("sysfs"), MsFlags::empty(), None::<&str>).expect("sysfs can be mounted");
        Sysfs
    }

    fn carrier(&self, interface: &str) -> File {
        let path = Path::new(SYS).join("class/net").join(interface).join("carrier");
        File::options().write(true).open(path).expect("a dummy has a carrier")
    }
}

impl Drop for Sysfs {
    fn drop(&mut self) {
        // Files of it may be open still.
        let _ = umount2(SYS, MntFlags::MNT_DETACH);
    }
}

/// The kernel's tracer: when the carrier was lost, and when eth1 got a frame.
struct Trace;

impl Trace {
    fn new() -> Trace {
        let folder = Path::new(TRACING);
        if !folder.join("trace").exists() {
            mount(Some("tracefs"), folder, Some("tracefs"), MsFlags::empty(), None::<&str>)
                .expect("the lab's kernels trace");
        }
        for (file, text) in [
            ("tracing_on", "0"),
            ("trace_clock", "x86-tsc"),
            ("set_ftrace_filter", "netif_carrier_off"),
            ("current_tracer", "function"),
            ("events/net/net_dev_start_xmit/filter", "name == \"eth1\""),
            ("events/net/net_dev_start_xmit/enable", "1"),
        ] {
            Trace.set(file, text);
        }
        Trace
    }

    /// Takes a carrier away and sends a frame; how many instructions there are between the two.
    fn until_sent(&self, carrier: &mut File, socket: &UdpSocket) -> u64 {
        // The way is known and warm.
        for _ in 0..100 {
            socket.send(&PAYLOAD).expect("the bond sends");
        }
        self.set("trace", "");
        self.set("tracing_on", "1");
        carrier.write_all(b"0").expect("a dummy can lose its carrier");
        socket.send(&PAYLOAD).expect("the bond sends");
        self.end()
    }

    fn set(&self, file: &str, text: &str) {
        fs::write(Path::new(TRACING).join(file), text).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// Instructions between the two.
    fn end(&self) -> u64 {
        self.set("tracing_on", "0");
        let text = fs::read_to_string(Path::new(TRACING).join("trace")).expect("the trace can be read");
        let time = |what: &dyn Fn(&str) -> bool| -> u64 {
            let line = text.lines().find(|line| !line.starts_with('#') && what(line));
            let line = line.unwrap_or_else(|| panic!("not traced:\n{text}"));
            let time = line
                .split_whitespace()
                .find_map(|word| word.strip_suffix(':')?.parse().ok());
            time.unwrap_or_else(|| panic!("no time in {line}"))
        };
        let lost = time(&|line| line.contains("netif_carrier_off <-"));
        let sent = time(&|line| line.contains("net_dev_start_xmit: dev=eth1"));
        // The processor's counter goes by nanoseconds of the machine's clock, which is two for each instruction.
        (sent - lost) / 2
    }
}

pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Frames before a pull.
const WARM: u64 = 200;
/// How long the frames after a pull are looked at: longer than the slowest monitor takes.
const LOOK: Duration = Duration::from_millis(160);
/// All is quiet again.
const SETTLE: Duration = Duration::from_millis(250);
const LIMIT: Duration = Duration::from_secs(20);
/// Losses whose instructions are counted.
const MEASURED: usize = 9;
/// With the headers of UDP, IPv4 and Ethernet, 64 bytes.
const PAYLOAD: [u8; 22] = [0; 22];
const DISCARD: u16 = 9;
const SYS: &str = "/tmp/sys-of-host";
const TRACING: &str = "/sys/kernel/tracing";

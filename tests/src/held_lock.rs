//! In the lab's machine: a cable of the kernel's driver and one of bondd's are pulled while others hold the kernel's RTNL lock, which
//! they do for as long as it takes to delete some thousand interfaces in one request.
//!
//! Pulling a veth cable takes the lock itself. So one request, which pulls both cables, waits behind a first deletion, and two more
//! deletions wait behind the request. The cables are dead from the end of the first deletion on. The kernel's report of it takes the
//! lock, too; so does the kernel's driver, when it moves.

use std::fs;
use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::{Daemon, Settings};
use crate::machine::Machine;
use crate::many_bonds::LinkEvents;
use crate::netns::{Cable, Hands, Netns};
use crate::process::processor_time;
use crate::traffic::{Flow, Rate, Record};
use crate::wait::{until, wait_for};

/// Kernel modules that it needs.
pub const MODULES: &[&str] = &[
    "bonding",
    "veth",
    "bridge",
    "dummy",
    "macvlan",
    "sch_ingress",
    "cls_bpf",
];

/// Pulls cables of both while nothing else happens, then while so many interfaces are deleted in one request after another, and prints
/// a JSON object for each.
pub fn play(deletions: &[usize]) {
    let pair = Pair::new();
    println!("{}", pair.round(1, &[]));
    println!("{}", pair.round(2, deletions));
}

/// A bond of the kernel's driver and one of bondd's, whose cables lead to the same namespace.
struct Pair {
    kernel: Side,
    bondd: Side,
    far: Netns,
    _daemon: Daemon,
    _machine: Machine,
}

struct Side {
    netns: Netns,
    /// Answers at the other end of its cables.
    far: Ipv4Addr,
    _cables: [Cable; 2],
}

impl Side {
    /// `eth0` and `eth1`, whose far ends are ports of a bridge and in the groups 1 and 2.
    fn new(name: &str, subnet: u8, far: &Netns) -> Side {
        let netns = Netns::new(name);
        let bridge = format!("br{subnet}");
        far.ip(&format!(
            "link add {bridge} address 02:00:00:00:5b:{subnet:02} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        ));
        far.ip(&format!("link set {bridge} up"));
        let address = Ipv4Addr::new(10, subnet, 0, 2);
        far.ip(&format!("addr add {address}/24 dev {bridge}"));
        let cables = [0, 1].map(|number| {
            let port = format!("{name}{number}");
            let cable = Cable::new(&netns, &format!("eth{number}"), far, &port);
            far.ip(&format!("link set {port} group {} master {bridge}", number + 1));
            cable
        });
        Side {
            netns,
            far: address,
            _cables: cables,
        }
    }

    /// Gives `bond0`, which has its ports, its address.
    fn address(&self, subnet: u8) {
        self.netns.ip("link set bond0 up");
        self.netns.ip(&format!("addr add 10.{subnet}.0.1/24 dev bond0"));
        self.netns.ip(&format!(
            "neigh replace {} lladdr 02:00:00:00:5b:{subnet:02} dev bond0 nud permanent",
            self.far
        ));
    }

    fn flow(&self, far: &Netns) -> Flow {
        Flow::start(&self.netns, far, self.far, Rate::PerSecond(1_000))
    }
}

impl Pair {
    fn new() -> Pair {
        let machine = Machine::alone();
        let far = Netns::new("far");
        let (kernel, bondd) = (Side::new("kernel", 1, &far), Side::new("bondd", 2, &far));
        kernel
            .netns
            .ip("link add bond0 type bond mode active-backup miimon 100");
        for port in ["eth0", "eth1"] {
            kernel.netns.ip(&format!("link set {port} down"));
            kernel.netns.ip(&format!("link set {port} master bond0"));
        }
        kernel.address(1);
        // The loop is to move the traffic, not the kernel.
        let by_bondd = Settings::args(&["--plane", "tc", "--in-kernel-failover", "off"]);
        let daemon = Daemon::start_with(&bondd.netns, by_bondd);
        daemon.ctl("add bond0 mode=active-backup miimon=100");
        daemon.ctl("port add bond0 eth0 eth1");
        bondd.address(2);
        Pair {
            kernel,
            bondd,
            far,
            _daemon: daemon,
            _machine: machine,
        }
    }

    /// Pulls the cables of a group while so many interfaces are deleted, request after request.
    fn round(&self, group: usize, deletions: &[usize]) -> Value {
        let crowds: Vec<Netns> = deletions.iter().map(|count| make_crowd(*count)).collect();
        // The first time that it sets something, `ip` asks the kernel whether it can be set, which takes the lock once more.
        let mut hands = Hands::new(&self.far);
        hands.tell(&format!("link set group {group} up"));
        thread::sleep(SETTLE);
        let sides = [&self.kernel, &self.bondd];
        let flows = sides.map(|side| side.flow(&self.far));
        flows.iter().for_each(|flow| flow.pass(500));
        let begun = Instant::now();
        let port = format!("eth{}", group - 1);
        let (reports, held) = thread::scope(|scope| {
            let watched = [0, 1].map(|at| {
                let mut events = LinkEvents::subscribe(&sides[at].netns);
                let (flow, port) = (&flows[at], &port);
                scope.spawn(move || {
                    until(LIMIT, || {
                        let mut events = events.read(SHORT).into_iter();
                        let dead = events.any(|event| event.name == *port && !event.carrier);
                        dead.then(|| Report {
                            at: begun.elapsed(),
                            sent: flow.sent(),
                        })
                    })
                })
            });
            let mut running: Vec<Child> = Vec::new();
            let mut crowds = crowds.iter();
            running.extend(crowds.next().map(|crowd| ip(crowd, DELETE)));
            running.iter().for_each(|child| wait_for_work(child.id()));
            hands.tell(&format!("link set group {group} down"));
            if !deletions.is_empty() {
                wait_for_the_lock(hands.pid());
            }
            for crowd in crowds {
                let child = ip(crowd, DELETE);
                wait_for_the_lock(child.id());
                running.push(child);
            }
            for mut child in running {
                assert!(child.wait().is_ok_and(|status| status.success()), "ip fails");
            }
            let held = begun.elapsed();
            let reports = watched.map(|watch| watch.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            (reports, held)
        });
        thread::sleep(SETTLE);
        let [kernel, bondd] = flows.map(Flow::finish);
        hands.tell(&format!("link set group {group} up"));
        thread::sleep(SETTLE);
        let [of_kernel, of_bondd] = reports;
        json!({
            "deletions": deletions, "deleted after": held.as_millis() as u64,
            "kernel": shown(&kernel, of_kernel), "bondd": shown(&bondd, of_bondd),
        })
    }
}

/// The kernel's report that a port has no carrier.
struct Report {
    at: Duration,
    /// Frames sent before it.
    sent: u64,
}

/// A namespace with a dummy interface and so many macvlans on it.
fn make_crowd(count: usize) -> Netns {
    let netns = Netns::new("crowd");
    let mut lines = "link add low group 3 type dummy\n".to_owned();
    lines.extend((0..count).map(|number| format!("link add m{number} link low group 4 type macvlan mode bridge\n")));
    netns.batch(&lines);
    netns
}

/// Deletes the lower interface, and with it all others, in one request: by its name it would be looked up in another one before.
const DELETE: &str = "link del group 3";

/// Has the kernel do something, and does not wait for it. Not by `ip -n`, which waits for other things than the lock, too.
fn ip(netns: &Netns, line: &str) -> Child {
    let mut ip = netns.command("ip");
    ip.args(line.split_whitespace())
        .stdin(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot run ip: {e}"))
}

/// Waits until a process is at work in the kernel: all that `ip` does before takes less time.
fn wait_for_work(pid: u32) {
    wait_for("the lock is taken", LIMIT, || processor_time(pid) >= 3 * SHORT);
}

/// Waits until a process waits for the lock.
///
/// # Panics
/// When it does not have to.
fn wait_for_the_lock(pid: u32) {
    wait_for("the lock is held", LIMIT, || is_waiting(pid));
}

/// Whether a process waits for something that no signal ends.
fn is_waiting(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, words)| words.starts_with('D'))
}

/// Frames lost, and those of them that were sent after the report; times in ms.
fn shown(record: &Record, report: Option<Report>) -> Value {
    let all = record.tally();
    let after = report.as_ref().map(|report| record.between(report.sent..u64::MAX).lost);
    json!({
        "lost": all.lost, "gap": all.longest_gap.as_millis() as u64,
        "reported": report.map(|report| report.at.as_millis() as u64), "lost after the report": after,
    })
}

/// Between looks at what the kernel reports.
const SHORT: Duration = Duration::from_millis(10);
/// For what follows from a round.
const SETTLE: Duration = Duration::from_secs(1);
/// For the kernel's report.
const LIMIT: Duration = Duration::from_secs(8);

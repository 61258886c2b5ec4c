//! Many active-backup bonds of two ports in one namespace: how long they take to be made and to be taken over, how long a failover
//! waits meanwhile, what they cost, and how soon they have all failed over when all first ports die at once.
//!
//! While something is timed nobody asks the agent: events come from the kernel, and a failover is over when the map that the bond's
//! program reads, or the team driver, names the other port.

mod busy;
mod loads;
mod probe;
mod requests;
mod selector;
mod table;
mod team;
pub(crate) mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

pub use self::busy::Busy;
use self::probe::{Probe, Pulls};
use self::requests::Requests;
pub use self::selector::Plane;
use self::selector::{Selector, Selectors};
pub use self::table::{Clock, Failover, Idle, Profile, Seen, Spent, Taken};
pub use self::watch::LinkEvents;
use self::watch::{LinkEvent, at_once};
use crate::control::Control;
use crate::daemon::{Daemon, Settings};
use crate::machine::Machine;
use crate::netns::{Hands, Netns};
use crate::process::{processor_time, processor_time_of_main_thread, resident};

/// Kernel modules without which there are no such bonds.
pub const MODULES: &[&str] = &["veth", "sch_ingress", "cls_bpf", "team", "team_mode_activebackup"];

/// Measures this number of bonds on a plane; `progress` is told each step.
pub fn measure(count: usize, plane: Plane, progress: impl Fn(&str)) -> Seen {
    let mut many = ManyBonds::new(count, plane);
    progress("cables are there");
    let start = at_once(|| many.start(Probe::new(0)));
    progress(&format!("start: {start}"));
    let mut seen = Seen::started(count, start);
    if !seen.start.is_whole() {
        return seen;
    }
    seen.idle = Some(many.idle());
    progress("idle");
    seen.dead = Some(at_once(|| many.all_first_ports_dead()));
    progress("all first ports dead");
    // Its turn is the last, if it does not come out of turn.
    let takeover = at_once(|| many.take_over(count - 1));
    progress(&format!("takeover: {takeover}"));
    let is_whole = takeover.is_whole();
    seen.takeover = Some(takeover);
    if is_whole && many.stretch_polls() {
        progress("polls are stretched");
        seen.profile = at_once(|| many.profile())
            .inspect_err(|e| progress(&format!("requests are not counted: {e}")))
            .ok();
    }
    seen
}

/// Bonds `bond0`, `bond1` and so on, with ports `a0` and `b0`, `a1` and `b1`, each cabled to a link of the same name elsewhere.
struct ManyBonds {
    /// As many as the options file has.
    count: usize,
    bonds: Vec<Bond>,
    named: BTreeMap<String, usize>,
    /// Whose cable is pulled.
    pulled: usize,
    events: LinkEvents,
    near_hands: Hands,
    far_hands: Hands,
    selectors: Selectors,
    daemon: Daemon,
    /// Of the agent's log, the part that was looked at.
    log_read: u64,
    /// How often it says there that a bond was adopted.
    adopted: usize,
    near: Netns,
    far: Netns,
    _machine: Machine,
}

/// One of them.
struct Bond {
    /// Of its interface, once the kernel has told it.
    index: Option<u32>,
    /// Indexes of `a` and `b`.
    ports: [u32; 2],
    /// Once both ports are attached.
    selector: Option<Selector>,
}

impl Bond {
    /// Whether it forwards by its first port and has its second.
    fn look(&mut self, selectors: &Selectors) -> bool {
        let [first, second] = self.ports;
        if self.selector.is_none() {
            self.selector = self.index.and_then(|index| selectors.selector(index, second));
        }
        self.port() == first
    }

    /// Where its frames leave; 0 for nowhere.
    fn port(&self) -> u32 {
        self.selector.as_ref().map_or(0, Selector::port)
    }
}

impl ManyBonds {
    /// Plugs the cables in; no agent runs.
    fn new(count: usize, plane: Plane) -> ManyBonds {
        let machine = Machine::alone();
        raise_descriptors();
        let (near, far) = (Netns::new("many"), Netns::new("far"));
        // Far ends do not talk.
        far.set_sysctl("ipv6/conf/default/disable_ipv6", "1");
        let index = |port: usize| FIRST_INDEX + 2 * port as u32;
        let mut cables = String::new();
        for port in 0..2 * count {
            let (name, group) = match port % 2 {
                0 => (format!("a{}", port / 2), FIRST_PORTS),
                _ => (format!("b{}", port / 2), SECOND_PORTS),
            };
            // Ends with the same index would look like physical devices, see `Cable::create`.
            cables += &format!(
                "link add {name} up index {} type veth peer name {name} index {} group {group} netns {}\n",
                index(port),
                index(port) + 1,
                far.name()
            );
        }
        near.batch(&cables);
        far.batch(&format!(
            "link set group {FIRST_PORTS} up\nlink set group {SECOND_PORTS} up"
        ));
        let settings = Settings {
            // The agent is measured, not what the kernel does by itself.
            args: ["--plane", plane.name(), "--in-kernel-failover", "off"]
                .map(String::from)
                .to_vec(),
            config: Some(config(count)),
            ..Settings::default()
        };
        let daemon = Daemon::prepare(&near, settings);
        ManyBonds {
            count,
            bonds: (0..count)
                .map(|bond| Bond {
                    index: None,
                    ports: [index(2 * bond), index(2 * bond + 1)],
                    selector: None,
                })
                .collect(),
            named: (0..count).map(|bond| (format!("bond{bond}"), bond)).collect(),
            pulled: 0,
            events: LinkEvents::subscribe(&near),
            near_hands: Hands::new(&near),
            far_hands: Hands::new(&far),
            selectors: Selectors::of(&daemon, plane),
            daemon,
            log_read: 0,
            adopted: 0,
            near,
            far,
            _machine: machine,
        }
    }

    /// Writes the options file, with so many of the bonds.
    fn configure(&mut self, count: usize) {
        self.count = count;
        self.daemon.configure(&config(count));
    }

    /// From the start of the agent until all bonds forward. Each is set up as soon as it appears, as by a network manager.
    fn start(&mut self, probe: Probe) -> Taken {
        let mut missing: BTreeSet<usize> = (0..self.count).collect();
        self.launch(START_LIMIT, probe, |many| {
            missing.retain(|bond| !many.bonds[*bond].look(&many.selectors));
            many.count - missing.len()
        })
    }

    /// Sets up the bonds of the options file that have appeared.
    fn set_up(&mut self, events: &[LinkEvent]) {
        for event in events {
            if let Some(bond) = self.named.get(&event.name)
                && *bond < self.count
                && self.bonds[*bond].index.replace(event.ifindex).is_none()
            {
                self.near_hands.tell(&format!("link set {} up", event.name));
            }
        }
    }

    /// From SIGKILL and start until all are taken over, while the cable of one is pulled. The log says which are: what forwards is the
    /// same before and after.
    fn take_over(&mut self, pulled: usize) -> Taken {
        self.daemon.sigkill();
        let before = self.adopted();
        self.pulled = pulled;
        let taken = self.launch(TAKEOVER_LIMIT, self.probe(), |many| many.adopted() - before);
        self.pulled = 0;
        taken
    }

    /// Of a bond that forwards.
    fn probe(&self) -> Probe {
        Probe::settled(self.pulled)
    }

    fn adopted(&mut self) -> usize {
        let news = self.daemon.log_from(&mut self.log_read);
        self.adopted += news.matches(": adopted ").count();
        self.adopted
    }

    /// Starts the agent and pulls the cable of one bond again and again, until it is ready and `look`, which says how many bonds are
    /// as they should be, says that all are.
    fn launch(&mut self, limit: Duration, probe: Probe, mut look: impl FnMut(&mut ManyBonds) -> usize) -> Taken {
        let begun = Instant::now();
        self.daemon.spawn();
        let ready = when_ready(self.daemon.socket(), begun + limit);
        let (mut whole, mut bonds, mut next_look) = (None, 0, begun);
        let pulls = self.pull_until(limit, probe, |many, probe| {
            if Instant::now() >= next_look && !probe.awaits_report() {
                let look_begun = Instant::now();
                bonds = look(many);
                next_look = Instant::now() + LOOK.max(4 * look_begun.elapsed());
            }
            if bonds == many.count && whole.is_none() {
                whole = Some(begun.elapsed());
            }
            whole.is_some() && ready.get().is_some()
        });
        Taken {
            limit,
            bonds,
            whole,
            ready: ready.get().copied().map(|at| at - begun),
            pulls,
        }
    }

    /// Pulls the cable of that bond again and again, until it is over; sets up the bonds that appear.
    fn pull_until(
        &mut self,
        limit: Duration,
        mut probe: Probe,
        mut is_over: impl FnMut(&mut ManyBonds, &Probe) -> bool,
    ) -> Pulls {
        let begun = Instant::now();
        loop {
            let events = self.events.read(probe.patience());
            self.set_up(&events);
            let is_over = is_over(self, &probe);
            if probe.is_about_to_pull() && !is_over {
                self.events.renew(&self.near);
            }
            let pulled = &self.bonds[self.pulled];
            probe.step(pulled.port(), pulled.ports, &events, is_over, &mut self.far_hands);
            if is_over && probe.is_settled() || begun.elapsed() >= limit {
                return probe.pulls(begun);
            }
        }
    }

    /// Cost while nothing happens.
    fn idle(&self) -> Idle {
        let pid = self.daemon.pid();
        // The work at the start is done. The agent may rest from it, for seconds, before it polls again.
        thread::sleep(SETTLE);
        let (used, end) = (processor_time(pid), Instant::now() + REST_LIMIT);
        while processor_time(pid) == used && Instant::now() < end {
            thread::sleep(LOOK);
        }
        let used = processor_time(pid);
        thread::sleep(IDLE);
        let used = processor_time(pid).saturating_sub(used);
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        Idle {
            share: used.as_secs_f64() / IDLE.as_secs_f64(),
            resident: resident(pid),
            descriptors,
        }
    }

    /// Takes carrier from all first ports in one request, and gives it back when all bonds have moved.
    fn all_first_ports_dead(&mut self) -> Failover {
        let first: BTreeMap<u32, usize> = self.bonds.iter().map(|bond| bond.ports[0]).zip(0..).collect();
        let pid = self.daemon.pid();
        self.events = LinkEvents::subscribe(&self.near);
        let (used, begun) = (processor_time(pid), Instant::now());
        self.far_hands.tell(&format!("link set group {FIRST_PORTS} down"));
        let mut heard: BTreeMap<usize, Instant> = BTreeMap::new();
        let mut waits: BTreeMap<usize, Duration> = BTreeMap::new();
        let mut pause = CLOSE;
        while waits.len() < self.count && begun.elapsed() < DEAD_LIMIT {
            for event in self.events.read(pause).iter().filter(|event| !event.carrier) {
                if let Some(bond) = first.get(&event.ifindex) {
                    heard.entry(*bond).or_insert(event.at);
                }
            }
            let look = Instant::now();
            for (bond, at) in &heard {
                if !waits.contains_key(bond) && self.bonds[*bond].port() == self.bonds[*bond].ports[1] {
                    waits.insert(*bond, at.elapsed());
                }
            }
            // A fifth of a processor is enough for looking.
            pause = CLOSE.max(4 * look.elapsed());
        }
        // What follows from it, such as files, is part of the cost.
        thread::sleep(DONE);
        let used = processor_time(pid).saturating_sub(used);
        self.far_hands.tell(&format!("link set group {FIRST_PORTS} up"));
        let mut waits: Vec<Duration> = waits.into_values().collect();
        waits.sort_unstable();
        let end = Instant::now() + DEAD_LIMIT;
        // These have a primary.
        let is_back = |bond: &Bond| bond.port() == bond.ports[0];
        while !pulled_ones(self.count).all(|bond| is_back(&self.bonds[bond])) && Instant::now() < end {
            self.events.read(LOOK);
        }
        thread::sleep(SETTLE);
        Failover {
            of: self.count,
            limit: DEAD_LIMIT,
            waits,
            used,
        }
    }

    /// Has all bonds polled so rarely that an event's own cost is to be seen; events count as before. Says whether it was done in
    /// time.
    fn stretch_polls(&self) -> bool {
        let end = Instant::now() + SET_LIMIT;
        let Ok(mut control) = Control::connect_patiently(&self.daemon.socket(), SET_LIMIT) else {
            return false;
        };
        (0..self.count).all(|bond| {
            let set = json!({"call": "set", "bond": format!("bond{bond}"), "options": [["miimon", "60000"]]});
            Instant::now() < end && control.call(set).is_ok_and(|answer| answer.is_ok())
        })
    }

    /// What one link event and one failover cost beyond what nothing costs in the same time.
    ///
    /// # Errors
    /// The kernel cannot count requests.
    fn profile(&mut self) -> std::io::Result<Profile> {
        let requests = Requests::of(self.daemon.pid())?;
        thread::sleep(SETTLE);
        let mut spent: [Vec<Spent>; 3] = Default::default();
        let mut waits = Vec::new();
        for _ in 0..ROUNDS {
            spent[0].push(self.spend(&requests, |_| {}));
            spent[1].push(self.spend(&requests, |many| many.set_far(1, false)));
            self.spend(&requests, |many| many.set_far(1, true));
            spent[2].push(self.spend(&requests, |many| waits.extend(many.pull())));
            self.spend(&requests, |many| many.set_far(0, true));
        }
        waits.sort_unstable();
        let [idle, event, failover] = spent.map(|all| table::median(&all));
        Ok(Profile {
            event: event - idle,
            failover: failover - idle,
            waits,
        })
    }

    /// What the agent spends from a deed on, until it is certainly done with it.
    fn spend(&mut self, requests: &Requests, deed: impl FnOnce(&mut ManyBonds)) -> Spent {
        let pid = self.daemon.pid();
        let so_far = || Spent {
            requests: requests.so_far(),
            used: processor_time(pid),
            used_by_loop: processor_time_of_main_thread(pid),
        };
        let before = so_far();
        deed(self);
        thread::sleep(DONE);
        so_far() - before
    }

    /// Sets the far end of a port of the first bond up or down, and waits until the kernel has told of the port.
    fn set_far(&mut self, port: usize, up: bool) {
        self.events = LinkEvents::subscribe(&self.near);
        let (name, word) = (["a0", "b0"][port], if up { "up" } else { "down" });
        self.far_hands.tell(&format!("link set {name} {word}"));
        let index = self.bonds[0].ports[port];
        let told = |event: &LinkEvent| event.ifindex == index && event.carrier == up;
        let end = Instant::now() + DEAD_LIMIT;
        while Instant::now() < end && !self.events.read(LOOK).iter().any(told) {}
    }

    /// Pulls the first bond's active cable; how long its failover took, if it came.
    fn pull(&mut self) -> Option<Duration> {
        self.events = LinkEvents::subscribe(&self.near);
        let mut probe = self.probe();
        let end = Instant::now() + DEAD_LIMIT;
        while Instant::now() < end {
            let events = self.events.read(probe.patience());
            let pulled = &self.bonds[self.pulled];
            probe.step(pulled.port(), pulled.ports, &events, false, &mut self.far_hands);
            if let Some(pull) = probe.so_far().last() {
                return Some(pull.wait());
            }
        }
        None
    }
}

/// When a client gets its first answer.
fn when_ready(socket: PathBuf, end: Instant) -> Arc<OnceLock<Instant>> {
    let ready = Arc::new(OnceLock::new());
    let found = ready.clone();
    thread::spawn(move || {
        while Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now()).max(LOOK);
            let answer =
                Control::connect_patiently(&socket, left).and_then(|mut agent| agent.call(json!({"call": "list"})));
            if answer.is_ok() {
                let _ = found.set(Instant::now());
                return;
            }
            thread::sleep(LOOK);
        }
    });
    ready
}

/// The options file. Bonds that are pulled go back to their first ports each time.
fn config(count: usize) -> String {
    let line = |bond: usize| {
        let primary = if pulled_ones(count).any(|one| one == bond) {
            format!(" primary=a{bond}")
        } else {
            String::new()
        };
        format!(
            "alias bond{bond} bonding\noptions bond{bond} mode=active-backup miimon=100 slaves=a{bond},b{bond}{primary}\n"
        )
    };
    (0..count).map(line).collect()
}

/// The first bond, and the last one.
fn pulled_ones(count: usize) -> impl Iterator<Item = usize> {
    [0, count.saturating_sub(1)].into_iter()
}

/// A thousand bonds are more maps to look at than the usual soft limit allows.
fn raise_descriptors() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls have a pointer to `limit` alone, which outlives them.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    assert!(
        raised == 0,
        "the soft limit of descriptors: {}",
        std::io::Error::last_os_error()
    );
}

/// Of the first cable; nothing else has such indexes.
const FIRST_INDEX: u32 = 100;
/// Groups of the far ends.
const FIRST_PORTS: u32 = 1;
const SECOND_PORTS: u32 = 2;

/// For bonds to be made.
const START_LIMIT: Duration = Duration::from_secs(900);
/// For bonds to be taken over.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(60);
/// For failovers.
const DEAD_LIMIT: Duration = Duration::from_secs(30);
/// For the first poll after a start.
const REST_LIMIT: Duration = Duration::from_secs(60);
/// For an option of all bonds.
const SET_LIMIT: Duration = Duration::from_secs(60);

/// How often it is looked whether bonds are there.
const LOOK: Duration = Duration::from_millis(10);
/// How often it is looked whether a failover is over.
const CLOSE: Duration = Duration::from_micros(100);
/// Before something is measured.
const SETTLE: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(10);
/// Long enough for what follows from one event.
const DONE: Duration = Duration::from_millis(300);
/// Of events and failovers one by one.
const ROUNDS: usize = 10;

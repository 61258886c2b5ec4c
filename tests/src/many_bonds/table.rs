//! What was seen of one number of bonds, and its column of the table.

use std::fmt::{self, Display};
use std::ops::Sub;
use std::time::Duration;

use super::probe::{Pull, Pulls};
use super::requests::Counted;

/// The name of a row, and what one column says in it.
pub type Row = (&'static str, String);

/// What the processor time of a process says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// How long it used a processor, others on the machine being in its way.
    Time,
    /// How many instructions it has executed, in its system calls, too: on the lab's machine each takes the same time.
    Instructions,
}

impl Clock {
    fn name(self) -> &'static str {
        match self {
            Clock::Time => "  processor time",
            Clock::Instructions => "  instructions of the agent",
        }
    }

    fn shown(self, used: Duration) -> String {
        match self {
            Clock::Time if used < Duration::from_millis(10) => format!("{:.0} us", used.as_secs_f64() * 1e6),
            Clock::Time => millis(used),
            Clock::Instructions => format!("{:.2} M", used.as_secs_f64() / AN_INSTRUCTION.as_secs_f64() / 1e6),
        }
    }
}

/// Of one number of bonds; what is missing was not reached.
#[derive(Clone, Debug)]
pub struct Seen {
    /// How many.
    pub count: usize,
    /// Bonds made from the options file.
    pub start: Taken,
    /// Cost while nothing happens.
    pub idle: Option<Idle>,
    /// All first ports without carrier at once.
    pub dead: Option<Failover>,
    /// Bonds taken over after SIGKILL.
    pub takeover: Option<Taken>,
    /// Cost of a single event.
    pub profile: Option<Profile>,
}

/// A start of the agent.
#[derive(Clone, Debug)]
pub struct Taken {
    /// It was ended then.
    pub limit: Duration,
    /// Bonds that were there at the end.
    pub bonds: usize,
    /// Until all were.
    pub whole: Option<Duration>,
    /// Until the first client got an answer.
    pub ready: Option<Duration>,
    /// Failovers of the first bond meanwhile.
    pub pulls: Pulls,
}

/// While nothing happens.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Of one processor, between 0 and 1.
    pub share: f64,
    /// Bytes.
    pub resident: u64,
    /// All that the process has open.
    pub descriptors: usize,
}

/// All bonds at once.
#[derive(Clone, Debug)]
pub struct Failover {
    /// How many had to move.
    pub of: usize,
    /// They were given so long.
    pub limit: Duration,
    /// From each bond's own link event until it had moved; the shortest first.
    pub waits: Vec<Duration>,
    /// Processor time of the agent.
    pub used: Duration,
}

/// Of one bond among the others.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Cost of a link event without a failover.
    pub event: Spent,
    /// Cost of a failover.
    pub failover: Spent,
    /// How long these failovers took; the shortest first.
    pub waits: Vec<Duration>,
}

/// By the agent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// System calls.
    pub requests: Counted,
    /// Processor time.
    pub used: Duration,
    /// That of the loop's thread, which decides.
    pub used_by_loop: Duration,
}

impl Taken {
    /// Whether all bonds were there in time.
    pub fn is_whole(&self) -> bool {
        self.whole.is_some() && self.ready.is_some()
    }

    fn times(&self) -> [String; 2] {
        [self.ready, self.whole].map(|time| time.map_or_else(|| not_within(self.limit), seconds))
    }

    /// The longest of the failovers after the first `skip`, and how many there were.
    fn longest(&self, skip: usize) -> String {
        let pulls = self.pulls.all.get(skip..).unwrap_or_default();
        match pulls.iter().map(Pull::wait).max() {
            _ if self.pulls.unanswered => not_within(self.limit),
            Some(longest) => format!("{} of {}", millis(longest), pulls.len()),
            None => "none".to_owned(),
        }
    }
}

impl Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ready, whole] = self.times();
        let bonds = self.bonds;
        let longest = self.longest(0);
        write!(
            f,
            "ready {ready}, all {whole}, {bonds} in the end, longest failover {longest}"
        )
    }
}

impl Seen {
    /// As far as the start.
    pub fn started(count: usize, start: Taken) -> Seen {
        Seen {
            count,
            start,
            idle: None,
            dead: None,
            takeover: None,
            profile: None,
        }
    }

    /// What its column says in each row, beside the row's name.
    pub fn rows(&self, clock: Clock) -> Vec<Row> {
        let mut rows = Vec::from(self.start_rows());
        rows.extend(self.takeover_rows());
        rows.extend(self.idle_rows());
        rows.extend(self.dead_rows(clock));
        rows.extend(self.profile_rows(clock));
        rows
    }

    fn start_rows(&self) -> [Row; 4] {
        let [ready, made] = self.start.times();
        [
            ("start: the agent answers after", ready),
            ("start: all bonds forward after", made),
            ("  bonds then", self.start.bonds.to_string()),
            ("  longest failover of the first meanwhile", self.start.longest(0)),
        ]
    }

    fn takeover_rows(&self) -> [Row; 4] {
        let takeover = self.takeover.as_ref();
        let of = |say: &dyn Fn(&Taken) -> String| takeover.map_or_else(none, say);
        [
            (
                "SIGKILL and start: the agent answers after",
                of(&|taken| taken.times()[0].clone()),
            ),
            (
                "SIGKILL and start: all are taken over after",
                of(&|taken| taken.times()[1].clone()),
            ),
            (
                "  the last one fails over again after",
                of(&|taken| taken.pulls.first.map_or_else(|| not_within(taken.limit), seconds)),
            ),
            ("  longest failover of it from then on", of(&|taken| taken.longest(1))),
        ]
    }

    fn idle_rows(&self) -> [Row; 4] {
        let idle = self.idle.as_ref();
        let of = |say: &dyn Fn(&Idle) -> String| idle.map_or_else(none, say);
        [
            (
                "nothing happens: share of one processor",
                of(&|idle| format!("{:.1} %", idle.share * 100.0)),
            ),
            (
                "  resident memory",
                of(&|idle| format!("{:.1} MiB", idle.resident as f64 / f64::from(1 << 20))),
            ),
            ("  descriptors", of(&|idle| idle.descriptors.to_string())),
            (
                "  descriptors a bond",
                of(&|idle| format!("{:.1}", idle.descriptors as f64 / self.count as f64)),
            ),
        ]
    }

    fn dead_rows(&self, clock: Clock) -> [Row; 3] {
        let dead = self.dead.as_ref();
        let of = |say: &dyn Fn(&Failover) -> String| dead.map_or_else(none, say);
        let missing = |dead: &Failover| dead.waits.len() < dead.of;
        [
            (
                "all first ports dead: median bond moved after",
                of(&|dead| {
                    dead.waits
                        .get(dead.of / 2)
                        .map_or_else(|| not_within(dead.limit), |wait| millis(*wait))
                }),
            ),
            (
                "  last bond moved after",
                of(&|dead| match dead.waits.last() {
                    Some(last) if !missing(dead) => millis(*last),
                    _ => not_within(dead.limit),
                }),
            ),
            (clock.name(), of(&|dead| clock.shown(dead.used))),
        ]
    }

    fn profile_rows(&self, clock: Clock) -> [Row; 9] {
        let profile = self.profile.as_ref();
        let of = |say: &dyn Fn(&Profile) -> String| profile.map_or_else(none, say);
        [
            (
                "one failover on an idle agent: median, longest",
                of(&|profile| waits(&profile.waits)),
            ),
            (
                "  messages sent + ioctls + maps",
                of(&|profile| requests(profile.failover.requests)),
            ),
            (
                "  system calls",
                of(&|profile| profile.failover.requests.all.to_string()),
            ),
            (clock.name(), of(&|profile| clock.shown(profile.failover.used))),
            (LOOP, of(&|profile| clock.shown(profile.failover.used_by_loop))),
            (
                "one link event: messages sent + ioctls + maps",
                of(&|profile| requests(profile.event.requests)),
            ),
            ("  system calls", of(&|profile| profile.event.requests.all.to_string())),
            (clock.name(), of(&|profile| clock.shown(profile.event.used))),
            (LOOP, of(&|profile| clock.shown(profile.event.used_by_loop))),
        ]
    }
}

impl Sub for Counted {
    type Output = Counted;

    fn sub(self, other: Counted) -> Counted {
        Counted {
            sent: self.sent.saturating_sub(other.sent),
            ioctls: self.ioctls.saturating_sub(other.ioctls),
            maps: self.maps.saturating_sub(other.maps),
            all: self.all.saturating_sub(other.all),
        }
    }
}

impl Sub for Spent {
    type Output = Spent;

    fn sub(self, other: Spent) -> Spent {
        Spent {
            requests: self.requests - other.requests,
            used: self.used.saturating_sub(other.used),
            used_by_loop: self.used_by_loop.saturating_sub(other.used_by_loop),
        }
    }
}

/// The middle of each.
pub fn median(all: &[Spent]) -> Spent {
    fn middle<T: Ord + Copy>(all: &[Spent], of: impl Fn(&Spent) -> T) -> T {
        let mut sorted: Vec<T> = all.iter().map(of).collect();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    }
    Spent {
        requests: Counted {
            sent: middle(all, |spent| spent.requests.sent),
            ioctls: middle(all, |spent| spent.requests.ioctls),
            maps: middle(all, |spent| spent.requests.maps),
            all: middle(all, |spent| spent.requests.all),
        },
        used: middle(all, |spent| spent.used),
        used_by_loop: middle(all, |spent| spent.used_by_loop),
    }
}

fn requests(counted: Counted) -> String {
    format!("{} + {} + {}", counted.sent, counted.ioctls, counted.maps)
}

fn waits(waits: &[Duration]) -> String {
    match (waits.get(waits.len() / 2), waits.last()) {
        (Some(median), Some(longest)) => format!("{:.1}, {}", median.as_secs_f64() * 1e3, millis(*longest)),
        _ => none(),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    match millis {
        ..10.0 => format!("{millis:.1} ms"),
        ..10_000.0 => format!("{millis:.0} ms"),
        _ => seconds(time),
    }
}

fn not_within(limit: Duration) -> String {
    format!("not in {} s", limit.as_secs())
}

fn none() -> String {
    "-".to_owned()
}

/// On the clock of the lab's machine.
const AN_INSTRUCTION: Duration = Duration::from_nanos(2);
const LOOP: &str = "    of its loop alone";

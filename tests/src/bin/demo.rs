//! `make demo`: two hosts, two cables, a bond on each side; a cable is pulled and the agents are killed under counted
//! traffic, and a table tells what that cost. Leaves nothing behind.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bondd_tests::daemon::Monitor;
use bondd_tests::machine::Machine;
use bondd_tests::traffic::{Record, TEN_THOUSAND, Tally};
use bondd_tests::{Daemon, Flow, TwoBonds, until};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("bondd-demo: needs root, because it makes network namespaces");
        return ExitCode::FAILURE;
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, stop.clone()).expect("these two signals may be caught");
    }
    // Failures and interruptions unwind, because drops remove namespaces, agents and pins.
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| demo(&stop)));
    let left = left_behind();
    match outcome {
        Ok(Ok(())) if left.is_empty() => ExitCode::SUCCESS,
        Ok(Ok(())) => {
            eprintln!("bondd-demo: left behind: {}", left.join(" "));
            ExitCode::FAILURE
        }
        Ok(Err(Interrupted)) => {
            eprintln!("bondd-demo: interrupted");
            ExitCode::from(130)
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Ctrl-C was pressed.
struct Interrupted;

fn demo(stop: &AtomicBool) -> Result<(), Interrupted> {
    println!("Two hosts, two cables, a bond over both on each side:\n");
    println!("    left: bond0 (eth0, eth1) ====== bond0 (eth0, eth1) :right\n");
    println!("    bondctl add bond0 mode=active-backup {OPTIONS}");
    println!("    bondctl port add bond0 eth0 eth1\n");
    let pair = TwoBonds::new(Machine::alone(), OPTIONS);
    pair.wait_active("eth0");
    println!("Sending 10,000 frames a second from left to right, counting every one:");
    let mut show = Show::start(pair, stop);
    show.step("nothing happens", "eth0", |_| {})?;
    show.step("cable of eth0 pulled", "eth1", |pair| pair.cables[0].pull())?;
    show.step("cable plugged back in", "eth0", |pair| pair.cables[0].plug())?;
    show.step("left agent killed, started", "eth0", |pair| {
        restart(&mut pair.left.daemon)
    })?;
    show.step("right agent killed, started", "eth0", |pair| {
        restart(&mut pair.right.daemon)
    })?;
    show.step("cable of eth0 pulled again", "eth1", |pair| pair.cables[0].pull())?;
    show.finish();
    Ok(())
}

fn restart(daemon: &mut Daemon) {
    daemon.sigkill();
    daemon.launch();
}

/// The running demo and its results so far.
struct Show<'a> {
    /// Dropped before the namespaces that it runs in.
    flow: Flow,
    pair: TwoBonds,
    steps: Vec<Step>,
    stop: &'a AtomicBool,
}

struct Step {
    what: &'static str,
    /// Number of its first frame.
    from: u64,
    active: String,
    why: String,
}

impl<'a> Show<'a> {
    fn start(pair: TwoBonds, stop: &'a AtomicBool) -> Self {
        let flow = pair.flow(TEN_THOUSAND);
        Show {
            flow,
            pair,
            steps: Vec::new(),
            stop,
        }
    }

    /// Does something to the pair and lets frames pass until both sides use the port expected, for a second at least.
    fn step(&mut self, what: &'static str, expected: &str, act: impl FnOnce(&mut TwoBonds)) -> Result<(), Interrupted> {
        println!("  {what} ...");
        let before = self.pair.left.daemon.active("bond0");
        let monitor = self.pair.left.daemon.monitor();
        let from = self.flow.sent();
        act(&mut self.pair);
        let enough = until(Duration::from_secs(10), || {
            let stopped = self.stop.load(Ordering::Relaxed);
            (stopped || self.flow.sent() >= from + PER_STEP).then_some(stopped)
        });
        if enough != Some(false) {
            return Err(Interrupted);
        }
        self.pair.wait_active(expected);
        let after = self.pair.left.daemon.active("bond0");
        let active = if before == after {
            after
        } else {
            format!("{before} -> {after}")
        };
        self.steps.push(Step {
            what,
            from,
            active,
            why: reason(&monitor),
        });
        Ok(())
    }

    fn finish(self) {
        let end = self.flow.sent();
        let record = self.flow.finish();
        println!(
            "\n{:<29}{:>9}{:>7}{:>14}   {:<15} why",
            "what happened", "frames", "lost", "longest gap", "active (left)"
        );
        let ends = self.steps.iter().skip(1).map(|step| step.from).chain([end]);
        for (step, end) in self.steps.iter().zip(ends) {
            let tally = record.between(step.from..end);
            println!("{}", row(step.what, tally, &step.active, &step.why));
        }
        println!("{}", row("all of it", whole(&record, &self.steps, end), "", ""));
    }
}

fn whole(record: &Record, steps: &[Step], end: u64) -> Tally {
    record.between(steps.first().map_or(0, |step| step.from)..end)
}

fn row(what: &str, tally: Tally, active: &str, why: &str) -> String {
    let gap = match tally.longest_gap {
        Duration::ZERO => "-".to_owned(),
        gap => format!("{:.1} ms", gap.as_secs_f64() * 1e3),
    };
    let row = format!(
        "{what:<29}{:>9}{:>7}{gap:>14}   {active:<15} {why}",
        tally.attempted, tally.lost
    );
    row.trim_end().to_owned()
}

/// Why the active port changed last, in words; empty if it did not.
fn reason(monitor: &Monitor) -> String {
    let events = monitor.events();
    let last = events
        .iter()
        .rev()
        .find(|seen| seen.event["notice"]["kind"] == "active_changed");
    last.and_then(|seen| seen.event["notice"]["reason"].as_str())
        .unwrap_or_default()
        .replace('_', " ")
}

/// Namespaces and run dirs of this process that are still there.
fn left_behind() -> Vec<String> {
    let ours = format!("bdt-{}-", std::process::id());
    let entries = ["/run/netns", "/run"]
        .into_iter()
        .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let names = entries.map(|entry| entry.path().display().to_string());
    names.filter(|path| path.contains(&ours)).collect()
}

const OPTIONS: &str = "miimon=100 updelay=300 primary=eth0";
/// A second at the usual rate.
const PER_STEP: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_ends_with_its_last_word() {
        let tally = Tally {
            attempted: 60_298,
            received: 60_298,
            ..Tally::default()
        };
        let whole = "all of it                        60298      0             -";
        assert_eq!(row("all of it", tally, "", ""), whole);
        assert_eq!(row("all of it", tally, "eth0", ""), format!("{whole}   eth0"));
    }
}

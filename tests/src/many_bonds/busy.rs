//! The cable of one bond is pulled again and again under traffic while the agent has other work: what that costs in frames, beside
//! the same pull while it has none.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::loads::{self, Work, beside};
use super::probe::{Probe, Pull};
use super::table::Taken;
use super::watch::at_once;
use super::{ManyBonds, Plane, SETTLE};
use crate::traffic::{Flow, Record};

/// What was lost, by what the agent did meanwhile.
#[derive(Clone, Debug)]
pub struct Busy {
    others: usize,
    plane: Plane,
    rows: Vec<Row>,
    stray: u64,
}

/// While the agent did one thing.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    /// In the order of the pulls.
    lost: Vec<Lost>,
    /// After the last pull the traffic did not move.
    unanswered: bool,
    /// How many things a second were done, and their name.
    done: Option<(f64, &'static str)>,
}

/// By one pull.
#[derive(Clone, Copy, Debug)]
struct Lost {
    all: u64,
    /// Those of them that were sent after the kernel had reported the pull.
    after_report: u64,
}

impl Busy {
    /// Measures with this number of other bonds on a plane; `progress` is told each step.
    pub fn measure(others: usize, plane: Plane, progress: impl Fn(&str)) -> Busy {
        let mut many = under_traffic(others, plane);
        let mut busy = Busy {
            others,
            plane,
            rows: Vec::new(),
            stray: 0,
        };
        progress("one bond is there");
        // The kernel still has to tell of hundreds of new cables.
        thread::sleep(SETTLE);
        busy.beside_clients(&mut many, "does nothing, has no others", "", Vec::new());
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let programs = (0..processors).map(|_| loads::compute()).collect();
        busy.beside_clients(&mut many, "  as other programs compute", "", programs);
        busy.starts(&mut many);
        progress("all bonds are there");
        thread::sleep(SETTLE);
        busy.beside_clients(&mut many, "does nothing", "", Vec::new());
        busy.takeovers(&mut many);
        progress("all bonds are taken over");
        thread::sleep(SETTLE);
        let spare = many.count..many.count + SPARE;
        let mut admin = loads::add_and_delete(&many, spare.cycle());
        // Made once what is left of taking over is done.
        admin();
        busy.beside_clients(&mut many, "adds and deletes bonds", "bonds", vec![admin]);
        progress("bonds were added and deleted");
        if others > 0 {
            let admin = vec![loads::set_options(&many, 1..many.count)];
            busy.beside_clients(&mut many, "sets options of the others", "bonds", admin);
            progress("options were set");
        }
        let clients = (0..CLIENTS).map(|_| loads::show(&many)).collect();
        busy.beside_clients(&mut many, "answers 16 clients' `show`", "answers", clients);
        progress("16 clients were answered");
        busy
    }

    /// Its table: in each line a name and four cells; the first is the head.
    pub fn table(&self) -> Vec<(String, [String; 4])> {
        let heads = ["after report", "in all", "pulls", "done"].map(str::to_owned);
        let head = format!("Beside {} others on {}, the agent", self.others, self.plane.name());
        let mut table = vec![(head, heads)];
        table.extend(self.rows.iter().map(|row| (format!("  {}", row.name), row.cells())));
        let stray = ["", &self.stray.to_string(), "", ""].map(str::to_owned);
        table.push(("lost while no cable was pulled".to_owned(), stray));
        table
    }

    /// The agent is started with all bonds in its options file, of which it has made the first before.
    fn starts(&mut self, many: &mut ManyBonds) {
        assert!(many.daemon.sigterm(), "the agent does not stop");
        many.configure(1 + self.others);
        self.launches(many, &format!("makes {} bonds", self.others), 1, |many| {
            many.start(Probe::settled(0))
        });
    }

    fn takeovers(&mut self, many: &mut ManyBonds) {
        let name = format!("takes {} bonds over", self.others);
        self.launches(many, &name, TAKEOVERS, |many| many.take_over(0));
    }

    /// So many starts of the agent, each with the first pull: what that one costs, and the later ones.
    fn launches(
        &mut self,
        many: &mut ManyBonds,
        name: &str,
        rounds: usize,
        launch: impl Fn(&mut ManyBonds) -> Taken + Send + Sync,
    ) {
        let flow = flow(many);
        let taken: Vec<Taken> = (0..rounds).map(|_| at_once(|| launch(many))).collect();
        let record = flow.finish();
        let bonds: usize = taken.iter().map(|taken| taken.bonds).sum();
        let time: Duration = taken.iter().map(|taken| taken.whole.unwrap_or(taken.limit)).sum();
        let unanswered = taken.iter().any(|taken| taken.pulls.unanswered);
        let pulls = |which: fn(&[Pull]) -> &[Pull]| -> Vec<Pull> {
            taken
                .iter()
                .flat_map(|taken| which(&taken.pulls.all))
                .copied()
                .collect()
        };
        let (first, later) = (
            pulls(|all| &all[..all.len().min(1)]),
            pulls(|all| all.get(1..).unwrap_or_default()),
        );
        let done = Some((bonds as f64 / time.as_secs_f64(), "bonds"));
        let first = ("  pulled as it starts", lost(&record, &first));
        let later = (name, lost(&record, &later));
        self.count(&record, [later, first], unanswered, done);
    }

    /// Pulls while these things are done, by clients for the most part.
    fn beside_clients(&mut self, many: &mut ManyBonds, name: &str, things: &'static str, works: Vec<Work>) {
        let flow = flow(many);
        let is_idle = works.is_empty();
        let enough = if is_idle { 0 } else { THINGS };
        let (pulls, rate) = beside(works, |done| {
            at_once(|| {
                many.pull_until(PULLS_LIMIT, Probe::settled(0), |_, probe| {
                    probe.so_far().len() >= PULLS && done.load(Ordering::Relaxed) >= enough
                })
            })
        });
        let record = flow.finish();
        let done = (!things.is_empty()).then_some((rate, things));
        self.count(&record, [(name, lost(&record, &pulls.all))], pulls.unanswered, done);
    }

    /// Adds rows of one record, the first with what was done.
    fn count<const ROWS: usize>(
        &mut self,
        record: &Record,
        rows: [(&str, Vec<Lost>); ROWS],
        unanswered: bool,
        done: Option<(f64, &'static str)>,
    ) {
        let by_pulls: u64 = rows.iter().flat_map(|(_, lost)| lost).map(|lost| lost.all).sum();
        if !unanswered {
            self.stray += record.tally().lost - by_pulls;
        }
        for (place, (name, lost)) in rows.into_iter().enumerate() {
            self.rows.push(Row {
                name: name.to_owned(),
                lost,
                unanswered: unanswered && place == 0,
                done: done.filter(|_| place == 0),
            });
        }
    }
}

impl Row {
    fn cells(&self) -> [String; 4] {
        let spread = |of: fn(&Lost) -> u64| {
            let mut lost: Vec<u64> = self.lost.iter().map(of).collect();
            lost.sort_unstable();
            match lost.last() {
                _ if self.unanswered => "not moved".to_owned(),
                Some(only) if lost.len() == 1 => only.to_string(),
                Some(_) => {
                    let percentiles = [50, 90, 99, 100].map(|share| lost[(share * lost.len()).div_ceil(100) - 1]);
                    percentiles.map(|lost| lost.to_string()).join(", ")
                }
                None => "-".to_owned(),
            }
        };
        [
            spread(|lost| lost.after_report),
            spread(|lost| lost.all),
            self.lost.len().to_string(),
            self.done
                .map_or_else(String::new, |(rate, what)| format!("{rate:.1} {what}/s")),
        ]
    }
}

/// What each of these pulls cost.
fn lost(record: &Record, pulls: &[Pull]) -> Vec<Lost> {
    let count = |from, to| record.between(record.numbers(from..to)).lost;
    let lost = |pull: &Pull| Lost {
        all: count(pull.pulled, pull.moved),
        after_report: count(pull.reported, pull.moved),
    };
    pulls.iter().map(lost).collect()
}

/// The first of the bonds is there, and both its cables lead to a host that takes what is sent to [`FAR`] from either as soon as that
/// has carrier, unlike a bridge, whose port the kernel enables later. Nobody has made the others yet, nor those to be added and deleted.
fn under_traffic(others: usize, plane: Plane) -> ManyBonds {
    let mut many = ManyBonds::new(1 + others + SPARE, plane);
    many.far.ip(&format!("addr add {FAR}/32 dev lo"));
    for port in ["a0", "b0"] {
        many.far.set_sysctl(&format!("ipv4/conf/{port}/rp_filter"), "0");
        many.far.ip(&format!("link set {port} address {FAR_MAC}"));
    }
    many.far.set_sysctl("ipv4/conf/all/rp_filter", "0");
    many.configure(1);
    let taken = at_once(|| many.start(Probe::new(0)));
    assert!(taken.is_whole(), "the first bond: {taken}");
    many.near.batch(&format!(
        "addr add {NEAR}/24 dev bond0\nneigh replace {FAR} lladdr {FAR_MAC} dev bond0 nud permanent"
    ));
    many
}

fn flow(many: &ManyBonds) -> Flow {
    Flow::start_punctual(&many.near, &many.far, FAR, 10_000)
}

/// Address of the bond whose cable is pulled.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Address of the host behind it.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const FAR_MAC: &str = "02:00:00:00:5b:01";

/// Pulls in each row, so that one of them in a hundred counts.
const PULLS: usize = 200;
/// For all of them, and for [`THINGS`].
const PULLS_LIMIT: Duration = Duration::from_secs(60);
/// At least so many are done meanwhile.
const THINGS: usize = 10;
const TAKEOVERS: usize = 10;
/// Bonds that are added and deleted, in turns.
const SPARE: usize = 4;
const CLIENTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_most_pulls_cost_and_what_the_dearest_did() {
        let lost = |all| Lost {
            all,
            after_report: all / 2,
        };
        let mut row = Row {
            name: "makes 25 bonds".to_owned(),
            lost: [9, 4, 2, 400, 6, 8, 30, 5, 3, 7].map(lost).into(),
            unanswered: false,
            done: Some((26.4, "bonds")),
        };
        assert_eq!(
            row.cells(),
            ["3, 15, 200, 200", "6, 30, 400, 400", "10", "26.4 bonds/s"]
        );
        row.unanswered = true;
        assert_eq!(row.cells()[..2], ["not moved", "not moved"]);
    }
}

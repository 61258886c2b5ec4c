//! In the lab's machine: plays every scenario on every column and prints observations, one JSON object a line.

pub mod agent;
pub mod bench;
pub mod column;
pub mod far;
pub mod kernel;
pub mod link;
pub mod play;
pub mod tap;

use std::io::{self, Write};
use std::path::Path;
use std::sync::Barrier;
use std::sync::mpsc::{RecvError, channel};
use std::thread;

use serde_json::{Value, json};

use self::agent::Agent;
use self::bench::Bench;
use self::column::Column;
use self::kernel::Kernel;
use super::scenario::Scenario;

/// Makes a column in the namespace of the calling thread; the path is a run dir of its own.
type Make = fn(&Path) -> io::Result<Box<dyn Column>>;

/// Every column, the oracle first.
const COLUMNS: [(&str, Make); 4] = [
    ("kernel", |_| Ok(Box::new(Kernel::new()?))),
    ("tc", |dir| Ok(Box::new(Agent::start(dir, &TC_ON_A_PAIR)?))),
    ("netkit", |dir| Ok(Box::new(Agent::start(dir, &TC_ON_NETKIT)?))),
    ("team", |dir| Ok(Box::new(Agent::start(dir, &["--plane", "team"])?))),
];
const TC_ON_A_PAIR: [&str; 4] = ["--plane", "tc", "--tc-device", "veth"];
const TC_ON_NETKIT: [&str; 4] = ["--plane", "tc", "--tc-device", "netkit"];

/// Plays the scenarios of a folder, in the order of their names, on the oracle and the columns named.
///
/// The columns of one scenario play at the same time, each in namespaces of its own: most of a scenario is waiting. They take each
/// step together: one that is at work, and the machine is slow, must not cost the others the moments at which its monitor looks.
pub fn main(folder: &Path, beside: &[String]) -> Result<(), String> {
    let scenarios = super::host::read_folder(folder)?;
    let [oracle, others @ ..] = &COLUMNS;
    let named = |beside: &String| {
        let column = others.iter().find(|(name, _)| name == beside);
        column.ok_or_else(|| format!("there is no column {beside}"))
    };
    let beside = beside.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    let columns: Vec<_> = [oracle].into_iter().chain(beside).collect();
    let together = Barrier::new(columns.len());
    thread::scope(|scope| {
        let together = &together;
        let play_on = |&(name, make): &(&'static str, Make)| {
            let (ask, asked) = channel::<&Scenario>();
            let (report, reports) = channel();
            scope.spawn(move || {
                let mut stage = Stage { name, make, set: None };
                for scenario in asked {
                    let mut pace = Pace {
                        together,
                        steps: scenario.steps.len(),
                    };
                    if report.send(stage.play(scenario, &mut pace)).is_err() {
                        return;
                    }
                }
            });
            (ask, reports)
        };
        let columns: Vec<_> = columns.into_iter().map(play_on).collect();
        for scenario in &scenarios {
            let gone = |_| "a column's thread has panicked".to_owned();
            for (ask, _) in &columns {
                ask.send(scenario).map_err(|_| gone(RecvError))?;
            }
            let mut out = io::stdout().lock();
            for (_, reports) in &columns {
                for line in reports.recv().map_err(gone)? {
                    writeln!(out, "{line}").map_err(|e| e.to_string())?;
                }
            }
        }
        Ok(())
    })
}

/// Keeps the columns at the same step of a scenario, also if one of them does not go on.
struct Pace<'a> {
    together: &'a Barrier,
    /// Steps that are left.
    steps: usize,
}

impl Pace<'_> {
    /// Waits until every column is ready for its next step.
    fn step(&mut self) {
        self.steps -= 1;
        self.together.wait();
    }
}

impl Drop for Pace<'_> {
    fn drop(&mut self) {
        for _ in 0..self.steps {
            self.together.wait();
        }
    }
}

/// Where one column plays, on a thread of its own.
struct Stage {
    name: &'static str,
    make: Make,
    /// Namespaces and what bonds there, with how many scenarios it has played.
    set: Option<Set>,
}

struct Set {
    bench: Bench,
    column: Box<dyn Column>,
    played: usize,
}

impl Stage {
    /// One scenario: its observations.
    fn play(&mut self, scenario: &Scenario, pace: &mut Pace) -> Vec<Value> {
        let played = self.set(scenario).and_then(|set| {
            let played = play::play(scenario, &mut set.bench, set.column.as_mut(), pace);
            set.played += 1;
            played
        });
        // What cannot be cleared, or has been used for long enough, is made anew. The bond goes in any case: with its namespace it
        // would go later, and the kernel's log would tell that to the next scenario.
        let keep =
            |set: &mut Set| set.column.clear().is_ok() && set.played < set.column.lasts() && set.bench.clear().is_ok();
        self.set = self.set.take().and_then(|mut set| keep(&mut set).then_some(set));
        let mut observations = match played {
            Ok(observations) => observations,
            Err(error) => vec![json!({"step": 0, "trouble": error})],
        };
        for observation in &mut observations {
            observation["scenario"] = json!(scenario.name);
            observation["column"] = json!(self.name);
        }
        observations
    }

    /// What there is, or a new one, with the cables of a scenario.
    fn set(&mut self, scenario: &Scenario) -> Result<&mut Set, String> {
        let mut set = match self.set.take() {
            Some(set) => set,
            None => {
                let bench = Bench::new()?;
                let dir = Path::new("/run/fidelity").join(self.name);
                let column = (self.make)(&dir).map_err(|e| format!("cannot start: {e}"))?;
                Set {
                    bench,
                    column,
                    played: 0,
                }
            }
        };
        set.bench.plug_in(scenario.ports, scenario.switch)?;
        Ok(self.set.insert(set))
    }
}

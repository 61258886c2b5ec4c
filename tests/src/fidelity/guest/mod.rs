//! In the lab's machine: plays every scenario on every column and prints observations, one JSON object a line.

pub mod agent;
pub mod bench;
pub mod column;
pub mod kernel;
pub mod link;
pub mod play;
pub mod tap;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
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
const COLUMNS: [(&str, Make); 2] = [
    ("kernel", |_| Ok(Box::new(Kernel::new()?))),
    ("tc", |dir| Ok(Box::new(Agent::start(dir, "tc")?))),
];

/// Plays the scenarios of a folder, in the order of their names.
///
/// The columns of one scenario play at the same time, each in namespaces of its own: most of a scenario is waiting.
pub fn main(folder: &Path) -> Result<(), String> {
    for scenario in super::host::read_folder(folder)? {
        let reports = thread::scope(|scope| {
            let started = COLUMNS.map(|(name, make)| {
                let scenario = &scenario;
                (name, scope.spawn(move || play(scenario, name, make)))
            });
            started.map(|(name, thread)| match thread.join() {
                Ok(report) => report,
                Err(_) => vec![trouble(&scenario.name, name, "the column panicked")],
            })
        });
        let mut out = io::stdout().lock();
        for line in reports.iter().flatten() {
            writeln!(out, "{line}").map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// One scenario on one column: its observations.
fn play(scenario: &Scenario, name: &str, make: Make) -> Vec<Value> {
    let dir = Path::new("/run/fidelity").join(&scenario.name).join(name);
    let start = std::time::Instant::now();
    let played = Bench::new(scenario.ports).and_then(|bench| {
        let column = make(&dir).map_err(|e| format!("cannot start: {e}"))?;
        eprintln!("{} {name}: started in {} ms", scenario.name, start.elapsed().as_millis());
        play::play(scenario, bench, column)
    });
    let _ = fs::remove_dir_all(&dir);
    match played {
        Ok(observations) => observations
            .into_iter()
            .map(|mut observation| {
                observation["scenario"] = json!(scenario.name);
                observation["column"] = json!(name);
                observation
            })
            .collect(),
        Err(error) => vec![trouble(&scenario.name, name, &error)],
    }
}

/// The column could not play the scenario at all.
fn trouble(scenario: &str, column: &str, error: &str) -> Value {
    json!({"scenario": scenario, "column": column, "step": 0, "trouble": error})
}

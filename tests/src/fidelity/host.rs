//! Starts the lab's machines and collects what the guest program prints.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::Value;

use super::scenario::Scenario;
use crate::bins::bin;
use crate::vm::Lab;

/// Every `*.scn` of a folder, in the order of their names.
pub fn read_folder(folder: &Path) -> Result<Vec<Scenario>, String> {
    let cannot = |e: std::io::Error| format!("cannot read {}: {e}", folder.display());
    let mut scenarios = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_some_and(|extension| extension == "scn") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            scenarios.push(Scenario::parse(&name, &fs::read_to_string(&path).map_err(cannot)?)?);
        }
    }
    scenarios.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scenarios)
}

/// Plays scenarios to the kernel's driver and, beside it, to these columns, in as many machines as there are processors, each a
/// share; `guest` is the program for the guest.
///
/// # Panics
/// When a machine fails.
pub fn play(lab: &Lab, scenarios: &[Scenario], columns: &[&str], guest: &Path) -> Vec<Value> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let machines = processors.min(scenarios.len());
    let work = env::temp_dir().join(format!("bondd-fidelity-{}", std::process::id()));
    fs::create_dir_all(&work).expect("the temporary folder is ours");
    let shares: Vec<PathBuf> = (0..machines)
        .map(|machine| {
            let share = work.join(format!("share{machine}"));
            fs::create_dir_all(&share).expect("the temporary folder is ours");
            // Not every second one to the second machine: each fourth random one probes, which takes longer.
            let own = |place: &usize| (place + place / 4) % machines == machine;
            for scenario in (0..scenarios.len()).filter(own).map(|place| &scenarios[place]) {
                let file = share.join(format!("{}.scn", scenario.name));
                fs::write(file, &scenario.text).expect("the temporary folder is ours");
            }
            share
        })
        .collect();
    let observed = thread::scope(|scope| {
        let started: Vec<_> = shares
            .iter()
            .map(|share| scope.spawn(|| machine(lab, guest, share, columns)))
            .collect();
        started
            .into_iter()
            .flat_map(|machine| machine.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let _ = fs::remove_dir_all(&work);
    observed
}

/// One machine's share.
fn machine(lab: &Lab, guest: &Path, share: &Path, columns: &[&str]) -> Vec<Value> {
    let program = ["--timeout", "2400", "--", "/usr/bin/bondd-fidelity-guest", "/fidelity"];
    let play = [&program, columns].concat();
    let read = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("the guest printed '{line}': {e}"));
    lab.run(MODULES, &[&bin("bondd"), guest], &[(share, "/fidelity")], &play)
        .lines()
        .map(read)
        .collect()
}

const MODULES: &[&str] = &[
    "bonding",
    "veth",
    "sch_ingress",
    "cls_bpf",
    "bridge",
    "8021q",
    "team",
    "team_mode_activebackup",
    "team_mode_loadbalance",
    "team_mode_broadcast",
];

//! Starts the lab's machines and collects what the guest program prints.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use super::scenario::Scenario;
use crate::bins::{bin, root};

/// What came of playing scenarios.
#[derive(Debug)]
pub enum Played {
    /// There is no lab, or it cannot fetch its kernel: the reason.
    NotRun(String),
    /// All observations.
    Observed(Vec<Value>),
}

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

/// Plays scenarios to the kernel's driver and, beside it, to one column, in so many machines at once, each a share; `guest` is
/// the program for the guest.
///
/// # Panics
/// When a machine fails for a reason of its own.
pub fn play(scenarios: &[Scenario], column: &str, machines: usize, guest: &Path) -> Played {
    let lab = env::var_os("BONDD_LAB").map_or_else(|| root().join("../shared/lab/vm"), PathBuf::from);
    if !lab.exists() {
        return Played::NotRun(format!("there is no {} (BONDD_LAB names another place)", lab.display()));
    }
    let work = env::temp_dir().join(format!("bondd-fidelity-{}", std::process::id()));
    fs::create_dir_all(&work).expect("the temporary folder is ours");
    let programs = [("bondd", bin("bondd")), ("bondd-fidelity-guest", guest.to_owned())];
    for (name, path) in &programs {
        slim(path, &work.join(name));
    }
    let shares: Vec<PathBuf> = (0..machines)
        .map(|machine| {
            let share = work.join(format!("share{machine}"));
            fs::create_dir_all(&share).expect("the temporary folder is ours");
            for scenario in scenarios.iter().skip(machine).step_by(machines) {
                let file = share.join(format!("{}.scn", scenario.name));
                fs::write(file, &scenario.text).expect("the temporary folder is ours");
            }
            share
        })
        .collect();
    let outcome = thread::scope(|scope| {
        let started: Vec<_> = shares
            .iter()
            .map(|share| scope.spawn(|| machine(&lab, &work, share, column)))
            .collect();
        let mut all = Vec::new();
        for machine in started {
            match machine.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                Played::NotRun(why) => return Played::NotRun(why),
                Played::Observed(observed) => all.extend(observed),
            }
        }
        Played::Observed(all)
    });
    let _ = fs::remove_dir_all(&work);
    outcome
}

/// One machine's share.
fn machine(lab: &Path, programs: &Path, share: &Path, column: &str) -> Played {
    // Monitors measure time, so that the machine must not wait for whatever else runs here; without the right to it, it does.
    let mut command = Command::new("nice");
    command.args(["-n", "-10"]).arg(lab);
    for module in ["bonding", "veth", "sch_ingress", "cls_bpf", "bridge", "8021q"] {
        command.args(["--module", module]);
    }
    for module in [
        "team",
        "team_mode_activebackup",
        "team_mode_loadbalance",
        "team_mode_broadcast",
    ] {
        command.args(["--module", module]);
    }
    for program in ["bondd", "bondd-fidelity-guest"] {
        let path = programs.join(program);
        command
            .arg("--copy")
            .arg(format!("{}:/usr/bin/{program}", path.display()));
    }
    command.arg("--copy-tree").arg(format!("{}:/fidelity", share.display()));
    command.args(["--mem", "1024", "--timeout", "1800", "--"]);
    command
        .args(["/usr/bin/bondd-fidelity-guest", "/fidelity", column])
        .stdin(Stdio::null());
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("cannot run {}: {e}", lab.display()));
    let why = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(125) && why.contains("apt-get") {
        return Played::NotRun(format!("the lab cannot fetch what it needs: {}", why.trim()));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "the machine: {}\n{said}\n{why}", output.status);
    let observed = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("the guest printed '{line}': {e}")));
    Played::Observed(observed.collect())
}

/// A copy without symbols: what goes into the machine is unpacked there by a slow processor.
fn slim(from: &Path, to: &Path) {
    let stripped = Command::new("strip").arg("-o").arg(to).arg(from).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(from, to).unwrap_or_else(|e| panic!("cannot copy {}: {e}", from.display()));
    }
}

//! bondd held against the kernel's bonding driver, over the scenarios of `tests/fidelity/` and random ones: both data planes against
//! the driver of Linux 6.1, and plane tc on netkit devices against that of 6.12.
//!
//! `SEED` and `COUNT` choose the random ones; `ONLY` plays those scenarios whose name contains it, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::time::Instant;

use bondd_tests::bins::{own_bin, root};
use bondd_tests::fidelity::compare::{Comparison, Difference, compare};
use bondd_tests::fidelity::differences::Wanted;
use bondd_tests::fidelity::host::{play, read_folder};
use bondd_tests::fidelity::random;
use bondd_tests::fidelity::scenario::Scenario;
use bondd_tests::vm::Lab;
use serde_json::Value;

/// On Linux 6.1 with both planes, or with `NETKIT=1` plane tc on netkit devices on 6.12.
#[test]
fn bondd_does_what_the_kernels_driver_does() {
    let netkit = given("NETKIT").is_some();
    let lab = if netkit {
        Lab::for_test_on("6.12")
    } else {
        Lab::for_test()
    };
    let Some(lab) = lab else { return };
    let columns: &[&str] = if netkit { &["netkit"] } else { &["tc", "team"] };
    hold_against_the_driver(&lab, columns, 200);
}

/// Over all written scenarios and so many random ones, unless `COUNT` says how many.
fn hold_against_the_driver(lab: &Lab, columns: &[&str], random: u64) {
    let folder = root().join("tests/fidelity");
    let wanted = Wanted::parse(&fs::read_to_string(folder.join("differences.txt")).unwrap()).unwrap();
    let only = given("ONLY");
    let mut scenarios = read_folder(&folder).unwrap();
    let written = scenarios.len();
    let (seed, count) = (number("SEED", 1), number("COUNT", random));
    scenarios.extend((seed..seed.wrapping_add(count)).map(random::scenario));
    if let Some(only) = &only {
        scenarios.retain(|scenario| scenario.name.contains(only.as_str()));
    }
    let start = Instant::now();
    let verdict = judged(lab, columns, &scenarios, &wanted);
    explain(&verdict, &scenarios);
    let stale: Vec<&str> = wanted
        .iter()
        // With one column, and with another driver than that of 6.1, some do not.
        .filter(|wanted| columns.len() > 1 && wanted.must_occur(columns))
        .map(|w| w.name.as_str())
        .filter(|n| !verdict.covered.contains_key(*n))
        .collect();
    println!(
        "fidelity of {}: {} scenarios ({written} written, {count} random from seed {seed}) in {} s, {} comparisons, {} declared, \
         {} wanted differences of {} kinds, {} unwanted",
        columns.join(" and "),
        scenarios.len(),
        start.elapsed().as_secs(),
        verdict.compared,
        verdict.declared,
        verdict.covered.values().sum::<usize>(),
        verdict.covered.len(),
        verdict.unwanted.len()
    );
    let texts = verdict.texts_by_mode();
    println!("status texts that are the driver's, byte for byte: {texts:?}");
    assert!(verdict.unwanted.is_empty(), "differences that nobody wants; see above");
    assert!(
        only.is_some() || stale.is_empty(),
        "wanted differences that never occur: {}",
        stale.join(", ")
    );
    assert!(
        only.is_some() || texts.len() == 4 && texts.values().all(|&count| count >= TEXTS),
        "fewer than {TEXTS} texts of a mode are the driver's: {texts:?}"
    );
}

/// Prints what differs though nobody wants it, and what helps to see why.
fn explain(verdict: &Verdict, scenarios: &[Scenario]) {
    for difference in &verdict.unwanted {
        println!("{}", shown(difference));
    }
    for scenario in scenarios {
        if !verdict.fails(scenario) {
            continue;
        }
        for (column, log) in verdict.logs.get(&scenario.name).into_iter().flatten() {
            println!("--- {} on {column}, its log:\n{log}", scenario.name);
        }
        if let Some(seed) = random::seed(scenario) {
            println!(
                "--- SEED={seed} COUNT=1 ONLY=random_ plays this alone:\n{}",
                scenario.text
            );
        }
    }
}

/// Plays scenarios on every column and compares.
fn judged(lab: &Lab, columns: &[&str], scenarios: &[Scenario], wanted: &[Wanted]) -> Verdict {
    let guest = own_bin(env!("CARGO_BIN_EXE_bondd-fidelity-guest"));
    let observed = play(lab, scenarios, columns, &guest);
    if let Some(path) = given("KEEP") {
        let lines: String = observed.iter().map(|o| format!("{o}\n")).collect();
        fs::write(path, lines).unwrap();
    }
    let mut verdict = Verdict::default();
    for scenario in scenarios {
        let own: Vec<&Value> = observed
            .iter()
            .filter(|o| o["scenario"] == scenario.name.as_str())
            .collect();
        verdict.take(scenario, compare(scenario, &own), wanted);
        if verdict.fails(scenario) {
            let logs = own
                .iter()
                .filter_map(|o| Some((o["column"].as_str()?.to_owned(), o["log"].as_str()?.to_owned())));
            verdict.logs.insert(scenario.name.clone(), logs.collect());
        }
    }
    verdict
}

/// Results of all comparisons.
#[derive(Default)]
struct Verdict {
    compared: usize,
    /// How often a plane said that it cannot do a scenario exactly.
    declared: usize,
    /// How often each wanted difference occurred.
    covered: BTreeMap<String, usize>,
    unwanted: Vec<Difference>,
    /// What each column logged, by its name, of scenarios with unwanted differences.
    logs: BTreeMap<String, Vec<(String, String)>>,
    /// Status texts that were the same.
    texts: BTreeSet<String>,
}

impl Verdict {
    fn texts_by_mode(&self) -> BTreeMap<&str, usize> {
        let mut modes = BTreeMap::new();
        for text in &self.texts {
            let mode = text.lines().find_map(|line| line.strip_prefix("Bonding Mode: "));
            let mode = mode.map(|mode| mode.split(" (fail_over_mac").next().unwrap_or(mode));
            *modes.entry(mode.unwrap_or("no mode")).or_default() += 1;
        }
        modes
    }

    fn fails(&self, scenario: &Scenario) -> bool {
        self.unwanted.iter().any(|found| found.scenario == scenario.name)
    }

    fn take(&mut self, scenario: &Scenario, comparison: Comparison, wanted: &[Wanted]) {
        self.compared += comparison.compared;
        self.declared += comparison.declared;
        self.texts.extend(comparison.texts);
        for found in comparison.differences {
            match wanted.iter().find(|wanted| wanted.covers(scenario, &found)) {
                Some(wanted) => *self.covered.entry(wanted.name.clone()).or_default() += 1,
                None => self.unwanted.push(found),
            }
        }
    }
}

fn shown(d: &Difference) -> String {
    format!(
        "{} step {} '{}': {}\n    kernel: {}\n    {}: {}",
        d.scenario, d.step, d.text, d.field, d.kernel, d.column, d.other
    )
}

/// Least number of texts of each mode that must equal the driver's.
const TEXTS: usize = 10;

fn number(name: &str, default: u64) -> u64 {
    given(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

/// An environment variable; an empty one counts as unset, because make passes on variables without a value.
fn given(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

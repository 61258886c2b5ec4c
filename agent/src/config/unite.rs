//! Merges the bonds of all files by name, because a common setup has the options in the module's file and the ports in another
//! one. A contradiction is an error that names both places.

use std::collections::BTreeSet;

use super::diagnostic::{Findings, Place, Severity};
use super::legacy::Made;
use super::option_list::{is_same, means_the_same, put};
use super::resolve::OwnBonds;
use super::{BondSpec, Check, Grammar, SpecOption, parameters};

/// Merges the bonds of the agent's own files with those of each load of the kernel's module.
///
/// `options bonding` of the agent's own files gives default values to its own bonds. So do the parameters of a module that made
/// no bond, which are the driver's defaults for bonds made later.
pub(super) fn unite(own: OwnBonds, modules: Vec<Made>, check: Check<'_>, findings: &mut Findings) -> Vec<BondSpec> {
    let OwnBonds { bonds, defaults } = own;
    let mut later: Vec<SpecOption> = Vec::new();
    let mut others: Vec<BondSpec> = Vec::new();
    for made in modules {
        put(&mut later, made.defaults);
        others.extend(made.bonds);
    }
    if bonds.is_empty() {
        check_defaults(defaults.clone(), check, findings);
    }
    let mut united: Vec<BondSpec> = Vec::new();
    for mut bond in bonds {
        let same: Vec<BondSpec> = others.extract_if(.., |other| other.name == bond.name).collect();
        let mut options = if same.is_empty() { later.clone() } else { Vec::new() };
        put(&mut options, defaults.clone());
        for other in same {
            join(&mut bond, other, findings);
        }
        let mut given = options.clone();
        put(&mut given, std::mem::take(&mut bond.given));
        bond.given = given;
        put(&mut options, std::mem::take(&mut bond.options));
        bond.options = options;
        conclude(&mut bond, check, findings);
        united.push(bond);
    }
    // Bonds of one load were checked there.
    let mut joined: BTreeSet<String> = BTreeSet::new();
    let from = united.len();
    for other in others {
        match united[from..].iter_mut().find(|bond| bond.name == other.name) {
            Some(bond) => {
                joined.insert(other.name.clone());
                join(bond, other, findings);
            }
            None => united.push(other),
        }
    }
    for bond in united[from..].iter_mut().filter(|bond| joined.contains(&bond.name)) {
        conclude(bond, check, findings);
    }
    united
}

/// Adds the settings of another file for the same bond.
fn join(bond: &mut BondSpec, other: BondSpec, findings: &mut Findings) {
    let text = format!(
        "{} is made at {}, too: one bond, with the options and ports of both",
        bond.name, other.place
    );
    findings.add(Severity::Info, "one-bond", &bond.place, text);
    for option in other.options {
        let before = bond.options.iter().find(|before| is_same(&before.name, &option.name));
        match before {
            None => bond.options.push(option),
            Some(before) if agree(before, &option, &other.given) => {}
            Some(before) => {
                let text = format!(
                    "{}: {}={} contradicts {}={} at {}, expected the option in one file",
                    bond.name, before.name, before.value, option.name, option.value, option.place
                );
                findings.add(Severity::Error, "contradiction", &before.place, text);
            }
        }
    }
    for option in other.given {
        if bond.given.iter().all(|before| !is_same(&before.name, &option.name)) {
            bond.given.push(option);
        }
    }
    let Some(place) = other.ports_place else { return };
    match &bond.ports_place {
        None => (bond.ports, bond.ports_place) = (other.ports, Some(place)),
        Some(_) if bond.ports == other.ports => {}
        Some(before) => {
            let text = format!(
                "{}: slaves={} contradicts slaves={} at {place}, expected the ports in one file",
                bond.name,
                bond.ports.join(","),
                other.ports.join(",")
            );
            findings.add(Severity::Error, "contradiction", before, text);
        }
    }
}

/// Whether two values of an option mean the same; `given` has the later one as it was written.
fn agree(one: &SpecOption, other: &SpecOption, given: &[SpecOption]) -> bool {
    let as_written = given.iter().find(|option| option.name == other.name);
    [Some(other), as_written]
        .into_iter()
        .flatten()
        .any(|other| means_the_same(one, other))
}

/// Applies the module's rules to the options of both files together, and asks the option table about them.
fn conclude(bond: &mut BondSpec, check: Check<'_>, findings: &mut Findings) {
    parameters::apply_module_rules(&mut bond.options, Grammar::Own, findings);
    ask(&bond.options, Some(&bond.place), check, findings);
}

/// Checks `options bonding` if no bond uses them. Options that only a whole bond needs may be missing.
fn check_defaults(mut defaults: Vec<SpecOption>, check: Check<'_>, findings: &mut Findings) {
    parameters::apply_module_rules(&mut defaults, Grammar::Own, findings);
    ask(&defaults, None, check, findings);
}

fn ask(options: &[SpecOption], whole: Option<&Place>, check: Check<'_>, findings: &mut Findings) {
    let pairs: Vec<(String, String)> = options.iter().map(SpecOption::pair).collect();
    for (index, wrong) in check(&pairs) {
        if let Some(place) = options.get(index).map(|option| &option.place).or(whole) {
            findings.error(place, wrong);
        }
    }
}

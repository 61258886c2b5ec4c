//! `bondctl check`: reports the errors in option files and the bonds that they make, without the agent.

use std::io::Write;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::failure::Failure;
use crate::config::{self, BondSpec, Diagnostic, Grammar, Parsed, Severity, SpecOption};
use crate::instances::check_options;

/// Reads the files and prints findings to `err` and bonds to `out`, or everything as JSON to `out`.
pub(super) fn check(
    files: &[PathBuf],
    grammar: Option<Grammar>,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let mut parsed = config::load(files, grammar, &check_options);
    let errors = count(&parsed, Severity::Error);
    if errors > 0 {
        parsed.bonds.clear();
    }
    if json {
        writeln!(out, "{}", report(&parsed))?;
    } else {
        for finding in &parsed.diagnostics {
            writeln!(err, "{finding}")?;
        }
        for bond in &parsed.bonds {
            writeln!(out, "{}", line(bond))?;
        }
    }
    out.flush()?;
    match errors {
        0 => Ok(()),
        errors => Err(Failure::Findings { errors }),
    }
}

fn count(parsed: &Parsed, severity: Severity) -> usize {
    parsed
        .diagnostics
        .iter()
        .filter(|finding| finding.severity == severity)
        .count()
}

/// `bond0: option=value ... slaves=a,b`
fn line(bond: &BondSpec) -> String {
    let mut text = format!("{}:", bond.name);
    for option in &bond.options {
        text.push_str(&format!(" {}={}", option.name, option.value));
    }
    if !bond.ports.is_empty() {
        text.push_str(&format!(" slaves={}", bond.ports.join(",")));
    }
    text
}

fn report(parsed: &Parsed) -> Value {
    json!({
        "schema": 1,
        "errors": count(parsed, Severity::Error),
        "warnings": count(parsed, Severity::Warning),
        "findings": parsed.diagnostics.iter().map(finding).collect::<Vec<_>>(),
        "bonds": parsed.bonds.iter().map(bond).collect::<Vec<_>>(),
    })
}

fn finding(finding: &Diagnostic) -> Value {
    json!({
        "file": finding.place.file.display().to_string(),
        "line": Some(finding.place.line).filter(|line| *line > 0),
        "severity": finding.severity,
        "code": Some(&finding.code).filter(|code| !code.is_empty()),
        "text": finding.text,
    })
}

fn bond(bond: &BondSpec) -> Value {
    let object = |options: &[SpecOption]| -> Map<String, Value> {
        let pair = |option: &SpecOption| (option.name.clone(), Value::String(option.value.clone()));
        options.iter().map(pair).collect()
    };
    json!({
        "name": bond.name,
        "alias": bond.alias,
        "options": object(&bond.options),
        "given": object(&bond.given),
        "ports": bond.ports,
        "file": bond.place.file.display().to_string(),
        "line": bond.place.line,
    })
}

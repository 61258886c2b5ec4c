//! `bondctl modprobe`: the effect of loading and removing the kernel's module, for the `install` and `remove` lines of
//! modprobe.d. Parameters are read as in a file of modprobe.d.
//!
//! differs: an unknown parameter is refused, so that a typing error is noticed.

use std::io::Write;
use std::path::PathBuf;

use super::failure::Failure;
use crate::config::{self, BondSpec, Diagnostic, Grammar, NoFiles, Severity, Source};
use crate::control::client::Client;
use crate::control::proto::{Call, warnings};
use crate::instances::check_options;

/// Makes the bonds that the parameters ask for, all or none. An existing bond does not change.
pub(super) fn load(client: &mut Client, parameters: &[String], err: &mut dyn Write) -> Result<(), Failure> {
    let bonds = bonds(parameters, err)?;
    let there: Vec<String> = serde_json::from_value(client.call(&Call::List {})?)?;
    let mut made: Vec<&str> = Vec::new();
    for bond in &bonds {
        if there.contains(&bond.name) {
            if !parameters.is_empty() {
                note(err, &format!("{} is there already and keeps its options", bond.name));
            }
            continue;
        }
        let call = Call::Add {
            bond: bond.name.clone(),
            options: bond.pairs(),
        };
        let answer = client.call(&call);
        for warning in answer.iter().flat_map(warnings) {
            note(err, &format!("warning: {warning}"));
        }
        if let Err(refusal) = answer {
            for name in made.into_iter().rev() {
                let bond = name.to_owned();
                if let Err(why) = client.call(&Call::Del { bond }) {
                    note(err, &format!("{name} was made and cannot be removed: {why}"));
                }
            }
            return Err(refusal.into());
        }
        made.push(&bond.name);
    }
    Ok(())
}

/// Removes all bonds, those that could not be made yet among them, or none if one of them has a port.
pub(super) fn remove(client: &mut Client) -> Result<(), Failure> {
    let report = client.report(None)?;
    let bonds = report.bonds;
    let (unmade, waiting): (Vec<_>, Vec<_>) = report.waiting.into_iter().partition(|bond| bond.unmade);
    let waiting = waiting.iter();
    let waiting = waiting.map(|bond| format!("{} cannot be taken over yet ({})", bond.name, bond.why));
    let in_use = bonds.iter().filter(|bond| !bond.ports.is_empty()).map(|bond| {
        let ports: Vec<&str> = bond.ports.iter().map(|port| port.name.as_str()).collect();
        format!("{} has {}", bond.name, ports.join(", "))
    });
    let in_use: Vec<String> = in_use.chain(waiting).collect();
    if !in_use.is_empty() {
        return Err(Failure::InUse {
            ports: in_use.join("; "),
        });
    }
    let names = bonds.into_iter().map(|bond| bond.name);
    for bond in names.chain(unmade.into_iter().map(|bond| bond.name)) {
        client.call(&Call::Del { bond })?;
    }
    Ok(())
}

/// The bonds that the module would make from these parameters. Notes about them are printed.
fn bonds(parameters: &[String], err: &mut dyn Write) -> Result<Vec<BondSpec>, Failure> {
    let line = option_line(parameters)?;
    let source = Source {
        path: PathBuf::from("modprobe"),
        text: line,
        grammar: Grammar::ModprobeD,
    };
    let parsed = config::parse(&[source], &NoFiles, &check_options);
    let refused = |finding: &Diagnostic| finding.severity == Severity::Error || finding.code == "unknown-option";
    let (errors, rest): (Vec<_>, Vec<_>) = parsed.diagnostics.into_iter().partition(refused);
    if !errors.is_empty() {
        let texts: Vec<String> = errors.into_iter().map(|finding| finding.text).collect();
        return Err(Failure::Parameters(texts.join("; ")));
    }
    if parsed.bonds.is_empty() {
        // On most machines a file of systemd has max_bonds=0.
        let way_out = "if a file of modprobe.d says so, max_bonds=1 on the command line makes one";
        note(err, &format!("max_bonds=0 makes no bond; {way_out}"));
        return Ok(Vec::new());
    }
    // bondd itself chooses the monitor if none is given.
    for finding in rest.iter().filter(|finding| finding.code != "no-link-monitoring") {
        note(err, &finding.text);
    }
    Ok(parsed.bonds)
}

/// The same as a line of an option file.
fn option_line(parameters: &[String]) -> Result<String, Failure> {
    // Loaded without a number, the module makes one bond. [bond_main.c: max_bonds]
    let mut words: Vec<(String, &str)> = vec![("max_bonds".to_owned(), "max_bonds=1")];
    for word in parameters {
        if word.contains(|c: char| c.is_whitespace() || c.is_control() || "\"'#\\".contains(c)) {
            let text = format!("{word:?} has a blank, a quote, # or \\ in it, expected OPTION=VALUE without");
            return Err(Failure::Parameters(text));
        }
        let name = word.split('=').next().unwrap_or(word).replace('-', "_");
        if name == "slaves" {
            let text = format!("{word:?} for all bonds, expected `ifenslave <bond> <port> ...` behind it");
            return Err(Failure::Parameters(text));
        }
        // modprobe puts the parameters of its files in front, and the last of a name counts. [params.c: parse_args]
        words.retain(|(before, _)| *before != name);
        words.push((name, word));
    }
    let words: Vec<&str> = words.into_iter().map(|(_, word)| word).collect();
    Ok(format!("options bonding {}", words.join(" ")))
}

/// An error in printing must not end the command halfway.
fn note(err: &mut dyn Write, text: &str) {
    let _ = writeln!(err, "bondctl: {text}");
}

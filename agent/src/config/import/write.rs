//! Writes bonds as an option file: accepted settings as lines, others as comments.

use super::bond::Bond;
use super::format::Format;
use super::keep_good::keep_good;
use crate::config::diagnostic::{Findings, Place};
use crate::config::limits::MOST_IN_ALL;
use crate::config::names::{check_bond, check_interface};
use crate::config::ports::Claims;
use crate::config::{Check, Diagnostic, Grammar, NoFiles, Severity, Source, SpecOption, parse};

/// The lines of each bond. They are an option file of their own, with this bond or with none.
pub(super) fn entries(mut bonds: Vec<Bond>, check: Check<'_>, findings: &mut Findings) -> Vec<String> {
    let mut claims = Claims::new(bonds.iter().map(|bond| bond.name.clone()));
    let mut made = 0;
    let mut entries = Vec::new();
    for bond in &mut bonds {
        let whole = lines(&bond.name, &bond.options, &bond.ports);
        let entry = (!bond.is_broken)
            .then(|| entry(bond, made, &mut claims, check, findings))
            .flatten();
        made += usize::from(entry.is_some());
        entries.push(entry.unwrap_or_else(|| commented(&whole)));
    }
    entries
}

/// The file as a whole.
pub(super) fn text(format: Format, entries: &[String], diagnostics: &[Diagnostic]) -> String {
    let mut text = format!(
        "# Made by `bondctl import --from {}`, see bondd.conf(5).\n",
        format.name()
    );
    let counts = |finding: &&Diagnostic| finding.severity != Severity::Info;
    if diagnostics.iter().any(|finding| counts(&finding)) {
        text.push_str("# To be looked at:\n");
        for finding in diagnostics.iter().filter(counts) {
            text.push_str(&commented(&format!("  {finding}")));
        }
    }
    for entry in entries {
        text.push('\n');
        text.push_str(entry);
    }
    text
}

/// A bond's lines with the settings that were dropped; `None` if the bond is impossible.
fn entry(
    bond: &mut Bond,
    made: usize,
    claims: &mut Claims,
    check: Check<'_>,
    findings: &mut Findings,
) -> Option<String> {
    let refused = match check_bond(&bond.name) {
        Err(wrong) => Some(wrong),
        Ok(()) if made == MOST_IN_ALL => Some(format!("more than {MOST_IN_ALL} bonds, expected fewer")),
        Ok(()) => None,
    };
    if let Some(wrong) = refused {
        findings.error(&bond.place, wrong);
        return None;
    }
    let left = keep_good(&mut bond.options, check, findings)?;
    keep_ports(bond, claims, findings);
    let mut text = lines(&bond.name, &bond.options, &bond.ports);
    if let Err(why) = reads_back(&text, bond, check) {
        let text = format!("{} cannot be written in an option file: {why}", bond.name);
        findings.error(&bond.place, text);
        return None;
    }
    for option in left {
        let line = format!("options {} {}={}\n", bond.name, option.name, option.value);
        text.push_str(&commented(&line));
    }
    Some(text)
}

fn keep_ports(bond: &mut Bond, claims: &mut Claims, findings: &mut Findings) {
    let name = &bond.name;
    bond.ports.retain(|(port, place)| {
        let fits = check_interface(port).and_then(|()| match port.contains(['#', '"', '\'', '\\', ',']) {
            true => Err(format!(
                "{port:?} is not possible in an option file, expected a name without # \" ' \\ and ,"
            )),
            false if port == name => Err(format!("{name} cannot be its own port, expected other interfaces")),
            false => claims.claim(name, port),
        });
        fits.map_err(|wrong| findings.error(place, wrong)).is_ok()
    });
}

/// Checks that bondd makes the wanted bond from the lines.
fn reads_back(text: &str, bond: &Bond, check: Check<'_>) -> Result<(), String> {
    let source = Source {
        path: bond.place.file.to_path_buf(),
        text: text.to_owned(),
        grammar: Grammar::Own,
    };
    let parsed = parse(&[source], &NoFiles, check);
    if let Some(error) = parsed.diagnostics.into_iter().find(|d| d.severity == Severity::Error) {
        return Err(error.text);
    }
    let pairs: Vec<_> = bond.options.iter().map(|o| (o.name.clone(), o.value.clone())).collect();
    let ports: Vec<_> = bond.ports.iter().map(|(port, _)| port.clone()).collect();
    match &parsed.bonds[..] {
        [read] if read.name == bond.name && read.pairs() == pairs && read.ports == ports => Ok(()),
        _ => Err("it would be read as something else, expected names without # and quotes".to_owned()),
    }
}

/// `alias` and `options` of a bond.
fn lines(bond: &str, options: &[SpecOption], ports: &[(String, Place)]) -> String {
    let mut words: Vec<String> = options
        .iter()
        .map(|option| format!("{}={}", option.name, option.value))
        .collect();
    if !ports.is_empty() {
        let names: Vec<&str> = ports.iter().map(|(port, _)| port.as_str()).collect();
        words.push(format!("slaves={}", names.join(",")));
    }
    match words.is_empty() {
        true => format!("alias {bond} bonding\n"),
        false => format!("alias {bond} bonding\noptions {bond} {}\n", words.join(" ")),
    }
}

/// The lines as comments.
fn commented(lines: &str) -> String {
    let lines = lines.split_terminator('\n');
    lines.map(|line| format!("# {}\n", plain(line))).collect()
}

/// The text with control characters escaped.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        match c.is_control() {
            true => plain.extend(c.escape_default()),
            false => plain.push(c),
        }
    }
    plain
}

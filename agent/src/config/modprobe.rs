//! Directives of one file, one for each logical line. The lines that concern a bond are known only when all files are read;
//! lines about other modules are not parsed further.

use std::path::Path;
use std::sync::Arc;

use bond_modes::options::nearest;

use super::diagnostic::{Findings, Place};
use super::directives::{COMMANDS, MODULE, SETTINGS};
use super::lines::{first_word, logical_lines, physical_lines};

/// Directives of modprobe.d that never make or change a bond.
const HINTS: [&str; 3] = ["blacklist", "softdep", "weakdep"];

/// Directives of modules.conf that would change what the lines around them mean.
const NOT_UNDERSTOOD: [&str; 6] = ["if", "elseif", "else", "endif", "include", "define"];

/// A line that may concern a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DirectiveLine {
    pub(super) place: Place,
    /// The first name on the line: of a bond or of a module.
    pub(super) name: String,
    pub(super) directive: Directive,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Directive {
    /// `alias NAME MODULE`
    Alias { module: String },
    /// `options NAME TEXT`
    Options { text: String },
}

/// All directives of a file's text, in order.
pub(super) fn directives(file: &Arc<Path>, text: &str, findings: &mut Findings) -> Vec<DirectiveLine> {
    logical_lines(physical_lines(text))
        .into_iter()
        .filter_map(|line| {
            let place = Place {
                file: file.clone(),
                line: line.number,
            };
            directive(place, &line.text, findings)
        })
        .collect()
}

fn directive(place: Place, line: &str, findings: &mut Findings) -> Option<DirectiveLine> {
    let (mut word, mut rest) = first_word(line, char::is_whitespace);
    if word == "add" {
        // `add options` appends, as `options` does here anyway. [modules.conf(5)]
        (word, rest) = first_word(rest, char::is_whitespace);
    }
    match word {
        "alias" => alias(place, rest, findings),
        "options" => options(place, rest, findings),
        "probe" | "probeall" => {
            if rest.split_whitespace().any(|module| module == MODULE) {
                let text = format!("{word} is not allowed here, expected `alias <bond> {MODULE}`");
                findings.error(&place, text);
            }
            None
        }
        _ if NOT_UNDERSTOOD.contains(&word) => {
            findings.error(
                &place,
                format!("{word} is not allowed here, expected alias and options lines"),
            );
            None
        }
        _ if HINTS.contains(&word) || COMMANDS.contains(&word) => None,
        _ if SETTINGS.contains(&word.split(['=', '[']).next().unwrap_or(word)) => None,
        _ => {
            let nearest = nearest(word, ["alias", "options"].into_iter());
            let expected = nearest.map_or("alias or options".to_owned(), |known| format!("{known} perhaps"));
            let mut text = format!("unknown directive {word:?}, expected {expected}");
            if word.contains('=') {
                text.push_str(" (or a \\ at the end of the line before)");
            }
            findings.error(&place, text);
            None
        }
    }
}

fn alias(place: Place, rest: &str, findings: &mut Findings) -> Option<DirectiveLine> {
    let mut words = rest.split_whitespace();
    let (Some(name), Some(module)) = (words.next(), words.next()) else {
        findings.error(
            &place,
            format!("alias with one name or none, expected `alias <bond> {MODULE}`"),
        );
        return None;
    };
    if let Some(extra) = words.next().filter(|_| module == MODULE) {
        findings.error(
            &place,
            format!("{extra:?} after the module, expected `alias {name} {MODULE}` only"),
        );
    }
    Some(DirectiveLine {
        place,
        name: name.to_owned(),
        directive: Directive::Alias {
            module: module.to_owned(),
        },
    })
}

fn options(place: Place, rest: &str, findings: &mut Findings) -> Option<DirectiveLine> {
    let (name, text) = first_word(rest, char::is_whitespace);
    if name.is_empty() {
        findings.error(
            &place,
            "options without a name, expected `options <bond> option=value ...`",
        );
        return None;
    }
    Some(DirectiveLine {
        place,
        name: name.to_owned(),
        directive: Directive::Options { text: text.to_owned() },
    })
}

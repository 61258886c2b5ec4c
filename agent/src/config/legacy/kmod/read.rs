//! Parses the lines of modprobe.d and the words of the kernel's command line.

use std::path::Path;
use std::sync::Arc;

use crate::config::diagnostic::{Findings, Place, Severity};
use crate::config::directives::MODULE;
use crate::config::kernel_words::{END, Word, words};
use crate::config::lines::first_word;

/// The lines of all files, in order; in names `-` is replaced by `_`, except in the brackets of a pattern.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) aliases: Vec<Alias>,
    /// Line, name, words.
    pub(super) options: Vec<(Place, String, Vec<Word>)>,
    pub(super) blacklist: Vec<(Place, String)>,
    pub(super) installs: Vec<Install>,
    /// Words for the module on the kernel's command line.
    pub(super) command_line: Vec<Word>,
}

/// `alias NAME MODULE`
#[derive(Debug)]
pub(super) struct Alias {
    pub(super) place: Place,
    pub(super) name: String,
    pub(super) module: String,
}

/// `install NAME COMMAND`
#[derive(Debug)]
pub(super) struct Install {
    pub(super) place: Place,
    pub(super) name: String,
    command: String,
}

impl Files {
    /// Reads one file.
    pub(super) fn read(&mut self, path: &Arc<Path>, text: &str, findings: &mut Findings) {
        let mut returned = false;
        for (number, line) in logical_lines(text) {
            let place = Place {
                file: path.clone(),
                line: number,
            };
            if line.contains('\r') && !std::mem::replace(&mut returned, true) {
                let text = "a carriage return belongs to the last word of a line, so that no alias works, expected lines that \
                            end without";
                findings.add(Severity::Warning, "carriage-return", &place, text.to_owned());
            }
            if self.line(&place, &line, findings).is_none() {
                bad_line(&place, &line, findings);
            }
        }
    }

    /// Adds a line; `None` if it is bad.
    fn line(&mut self, place: &Place, line: &str, findings: &mut Findings) -> Option<()> {
        let place = place.clone();
        let (word, rest) = next_word(line);
        match word {
            "" => {}
            "alias" => {
                let (name, rest) = next_word(rest);
                let module = next_word(rest).0;
                filled(module)?;
                self.aliases.push(Alias {
                    place,
                    name: normalized(name)?,
                    module: normalized(module)?,
                });
            }
            "options" => {
                let (name, text) = text_of(rest)?;
                let words = words(&text, &place);
                self.options.push((place, name, words));
            }
            "blacklist" => {
                let name = filled(next_word(rest).0)?;
                self.blacklist.push((place, normalized(name)?));
            }
            "install" => {
                let (name, command) = text_of(rest)?;
                self.installs.push(Install { place, name, command });
            }
            "remove" | "softdep" | "weakdep" => {
                text_of(rest)?;
                let concerns = |name: &str| underscored(name).starts_with("bond");
                if rest.split([' ', '\t']).any(concerns) {
                    let text = format!("{word} is skipped, it makes and changes no bond");
                    findings.add(Severity::Info, "skipped-directive", &place, text);
                }
            }
            "include" | "config" => {
                let text = format!("{word} is obsolete and ignored, expected the files in a folder modprobe.d");
                findings.add(Severity::Warning, "deprecated-directive", &place, text);
            }
            _ => return None,
        }
        Some(())
    }

    /// Reads the words that the kernel was started with.
    pub(super) fn read_command_line(&mut self, path: &Arc<Path>, text: &str) {
        let place = Place {
            file: path.clone(),
            line: 0,
        };
        for mut word in words(text, &place).into_iter().take_while(|word| word.name != END) {
            let Some((module, name)) = word.name.split_once('.') else {
                continue;
            };
            match (underscored(module).as_str(), name, &word.value) {
                (MODULE, ..) => {
                    word.name = name.to_owned();
                    self.command_line.push(word);
                }
                ("modprobe", "blacklist", Some(list)) => {
                    let names = list.split(',').map(|name| (place.clone(), underscored(name)));
                    self.blacklist.extend(names);
                }
                _ => {}
            }
        }
    }
}

impl Install {
    /// Whether the command does nothing, with any arguments.
    pub(super) fn is_nothing(&self) -> bool {
        let command = self.command.split('#').next().unwrap_or_default();
        let word = command.split_whitespace().next().unwrap_or_default();
        let name = word.strip_prefix("/usr").unwrap_or(word);
        let name = name.strip_prefix("/bin/").unwrap_or(name);
        ["true", "false", ":"].contains(&name) && !command.contains([';', '&', '|'])
    }

    /// Whether it is the line shipped with bondd. [bondctl(8): modprobe]
    pub(super) fn is_ours(&self) -> bool {
        let program = self.command.split_whitespace().next().map(Path::new);
        program.and_then(Path::file_name).is_some_and(|name| name == "bondctl")
    }

    /// The words for the module, if the command is `modprobe --ignore-install MODULE -o NAME word ...`, with which more bonds
    /// were made before max_bonds was known. [bonding.txt of 2005]
    pub(super) fn renamed(&self, module: &str) -> Option<Vec<Word>> {
        let mut words = self.command.split_whitespace();
        let program = Path::new(words.next()?).file_name()?;
        let (mut loads, mut renames, mut given) = (false, false, Vec::new());
        while let Some(word) = words.next() {
            match word {
                "--ignore-install" | "-i" | "$CMDLINE_OPTS" => {}
                "-o" | "--name" => renames = words.next().is_some(),
                _ if underscored(word) == module => loads = true,
                _ if word.contains(|c: char| ";&|<>$`()".contains(c)) => return None,
                _ if word.starts_with("--name=") => renames = true,
                _ => {
                    let (name, value) = word.split_once('=')?;
                    given.push(Word {
                        name: name.to_owned(),
                        value: Some(value.to_owned()),
                        place: self.place.clone(),
                    });
                }
            }
        }
        (program == "modprobe" && loads && renames).then_some(given)
    }
}

/// Lines with the number of their first: `\` joins the next, in comments, too, and vanishes before any other character. Comments
/// have their `#` in the first column. [kmod: libkmod-util.c: freadline_wrapped]
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let (mut number, mut first, mut line) = (1, 1, String::new());
    let mut chars = text.chars();
    let mut end = |first: usize, line: &mut String| {
        let line = std::mem::take(line);
        if !line.is_empty() && !line.starts_with('#') {
            lines.push((first, line));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\n' => {
                end(first, &mut line);
                number += 1;
                first = number;
            }
            '\\' => match chars.next() {
                Some('\n') => number += 1,
                Some(c) => line.push(c),
                None => {}
            },
            _ => line.push(c),
        }
    }
    end(first, &mut line);
    lines
}

fn bad_line(place: &Place, line: &str, findings: &mut Findings) {
    let (word, rest) = next_word(line);
    let expected = match word {
        "alias" => "expected `alias <name> <module>`".to_owned(),
        "options" if rest.is_empty() => "expected `options <name> option=value ...`".to_owned(),
        "options" => format!("expected `options {} option=value ...`", next_word(rest).0),
        _ if word.starts_with('#') => "a comment begins in the first column, expected # there".to_owned(),
        "probe" | "probeall" => format!("{word} belongs to modules.conf, expected `alias <bond> {MODULE}`"),
        _ if word.contains('=') => "expected alias or options (or a \\ at the end of the line before)".to_owned(),
        _ => "expected alias, options, blacklist or another directive of modprobe.d(5)".to_owned(),
    };
    let text = format!("bad line {word:?}: {expected}; the line is ignored");
    findings.add(Severity::Error, "bad-line", place, text);
}

/// The first word, after blanks if there are any, and what follows it. Only spaces and tabs are blanks.
fn next_word(text: &str) -> (&str, &str) {
    let is_blank = |c| matches!(c, ' ' | '\t');
    first_word(text.trim_start_matches(is_blank), is_blank)
}

/// A name and the text behind it, of which there must be some, a blank if nothing else.
fn text_of(rest: &str) -> Option<(String, String)> {
    let (name, text) = rest.split_once([' ', '\t'])?;
    filled(text)?;
    Some((normalized(name)?, text.to_owned()))
}

fn filled(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Replaces `-` by `_` outside brackets; `None` if brackets are not in pairs. [kmod: libkmod-util.c: underscores]
fn normalized(name: &str) -> Option<String> {
    let mut bracket = false;
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '[' if !bracket => bracket = true,
            ']' if bracket => bracket = false,
            ']' => return None,
            _ => {}
        }
        text.push(if c == '-' && !bracket { '_' } else { c });
    }
    (!bracket).then_some(text)
}

/// [kmod: libkmod-util.c: modname_normalize]
fn underscored(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_are_underscores_outside_brackets_which_come_in_pairs() {
        for (name, wanted) in [
            ("bond-0", Some("bond_0")),
            ("a-[0-9-]-b", Some("a_[0-9-]_b")),
            ("a[0", None),
            ("a]0", None),
        ] {
            assert_eq!(normalized(name).as_deref(), wanted, "{name}");
        }
    }

    fn lines(text: &str) -> Vec<(usize, String)> {
        logical_lines(text)
    }

    #[test]
    fn a_continuation_leaves_no_trace_and_works_in_comments() {
        assert_eq!(lines("a \\\n b\nc"), [(1, "a  b".to_owned()), (3, "c".to_owned())]);
        assert_eq!(lines("# x \\\na\nb"), [(3, "b".to_owned())]);
        assert_eq!(lines("a\\b \\\\ \\"), [(1, "ab \\ ".to_owned())]);
        assert_eq!(lines("\n\n\\\n"), []);
    }

    #[test]
    fn the_kernel_takes_quotes_round_a_value_or_a_word() {
        let place = Place {
            file: Arc::from(Path::new("f")),
            line: 1,
        };
        let found = words("a=\"b c\" \"d=e f\" g h= \" i -- j=k", &place);
        let found: Vec<_> = found
            .iter()
            .map(|word| (word.name.as_str(), word.value.as_deref()))
            .collect();
        assert_eq!(
            found,
            [
                ("a", Some("b c")),
                ("d", Some("e f")),
                ("g", None),
                ("h", Some("")),
                (" i -- j", Some("k"))
            ]
        );
    }
}

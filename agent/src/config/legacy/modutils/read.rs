//! Reads the lines of a modules.conf and obeys its conditions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::condition;
use crate::config::Source;
use crate::config::diagnostic::{Findings, Place, Severity};
use crate::config::directives::{COMMANDS, SETTINGS};
use crate::config::limits::MOST_WORDS;
use crate::config::lines::{logical_lines, physical_lines, words};
use crate::config::loader::{Files, Refusal};

/// Greatest depth of nested includes and conditions.
const DEEPEST: usize = 20;

/// Most files that are included in all.
const MOST_FILES: usize = 256;

/// Longest line in bytes; modutils reads the rest as a line of its own. [util/config.c: fgets_strip]
const LONGEST: usize = 2999;

/// Contents of a file.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Target of each alias.
    pub(super) aliases: BTreeMap<String, (Place, String)>,
    /// Modules of each probe list.
    pub(super) probes: BTreeMap<String, Probe>,
    /// Options lines of each name, with their words.
    pub(super) options: BTreeMap<String, Vec<(Place, Vec<String>)>>,
    /// Names of aliases and probe lists in the order of the file.
    pub(super) names: Vec<String>,
    /// A name, the line, and the line that it replaced.
    pub(super) replaced_options: Vec<(String, Place, Place)>,
    pub(super) replaced_aliases: Vec<(String, Place, Place)>,
    /// A name, the line, and the kind of its command.
    pub(super) commands: Vec<(String, Place, &'static str)>,
    /// Lines that need a shell, with their text.
    pub(super) shell: Vec<(Place, String)>,
}

/// `probe NAME MODULE...` or `probeall NAME MODULE...`
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) place: Place,
    pub(super) modules: Vec<String>,
    /// All are loaded, not only the first that can be.
    pub(super) all: bool,
}

/// An open condition.
struct Block {
    /// Lines are obeyed.
    active: bool,
    /// A branch was taken, or no branch may be.
    done: bool,
}

struct Reader<'a> {
    file: File,
    blocks: Vec<Block>,
    files: &'a dyn Files,
    order: &'a mut Vec<Arc<Path>>,
    findings: &'a mut Findings,
    fatal: bool,
    depth: usize,
    included: usize,
}

/// Reads a file; `None` if it is refused as a whole.
pub(super) fn read(
    source: &Source,
    files: &dyn Files,
    order: &mut Vec<Arc<Path>>,
    findings: &mut Findings,
) -> Option<File> {
    let mut reader = Reader {
        file: File::default(),
        blocks: Vec::new(),
        files,
        order,
        findings,
        fatal: false,
        depth: 0,
        included: 0,
    };
    reader.text(&Arc::from(source.path.as_path()), &source.text);
    (!reader.fatal).then_some(reader.file)
}

impl Reader<'_> {
    fn text(&mut self, path: &Arc<Path>, text: &str) {
        let open = self.blocks.len();
        for (line, _) in physical_lines(text).filter(|(_, line)| line.len() > LONGEST) {
            let file = path.clone();
            let text =
                format!("longer than {LONGEST} bytes, of which modutils makes two lines, expected a shorter one");
            self.findings
                .add(Severity::Warning, "long-line", &Place { file, line }, text);
        }
        for line in logical_lines(physical_lines(text).flat_map(pieces)) {
            let place = Place {
                file: path.clone(),
                line: line.number,
            };
            self.line(&place, &line.text);
        }
        if self.blocks.len() > open {
            let place = Place {
                file: path.clone(),
                line: text.lines().count().max(1),
            };
            self.refuse(
                "missing-endif",
                &place,
                "an if is open at the end of the file, expected endif".to_owned(),
            );
            self.blocks.truncate(open);
        }
    }

    fn refuse(&mut self, code: &'static str, place: &Place, what: String) {
        self.fatal = true;
        let text = format!("{what}; modutils loads no module at all before that is mended");
        self.findings.add(Severity::Error, code, place, text);
    }

    fn line(&mut self, place: &Place, line: &str) {
        let active = self.blocks.iter().all(|block| block.active);
        let (word, rest) = directive_word(line);
        match word {
            "if" => self.begin(place, rest, active),
            "elseif" => self.branch(place, Some(rest)),
            "else" => self.branch(place, None),
            "endif" => {
                if self.blocks.pop().is_none() {
                    self.refuse(
                        "unmatched-endif",
                        place,
                        "endif without if, expected if before it".to_owned(),
                    );
                }
            }
            _ if !active => {}
            // Recognised without a blank behind it, too.
            _ => match line.strip_prefix("add") {
                Some(rest) if !rest.is_empty() => {
                    let (word, rest) = directive_word(rest.trim_start());
                    self.directive(place, word, rest, true);
                }
                _ => self.directive(place, word, rest, false),
            },
        }
    }

    fn begin(&mut self, place: &Place, condition: &str, active: bool) {
        if self.blocks.len() >= DEEPEST {
            let text = format!("more than {DEEPEST} ifs in each other, expected fewer");
            self.refuse("if-nesting-too-deep", place, text);
        }
        if !active {
            let text = "an if in a block that has no effect has no effect either; modutils would obey it, expected it \
                        outside the block";
            self.findings
                .add(Severity::Warning, "nested-if-in-false-block", place, text.to_owned());
        }
        let holds = active && self.holds(place, condition);
        self.blocks.push(Block {
            active: holds,
            done: holds || !active,
        });
    }

    fn branch(&mut self, place: &Place, condition: Option<&str>) {
        let Some(mut block) = self.blocks.pop() else {
            let (code, word) = match condition {
                Some(_) => ("elseif-without-if", "elseif"),
                None => ("else-without-if", "else"),
            };
            return self.refuse(code, place, format!("{word} without if, expected if before it"));
        };
        block.active = !block.done && condition.is_none_or(|condition| self.holds(place, condition));
        block.done |= block.active;
        self.blocks.push(block);
    }

    fn holds(&mut self, place: &Place, condition: &str) -> bool {
        condition::holds(condition, self.files).unwrap_or_else(|| {
            let text = format!("the condition {condition:?} cannot be evaluated without a shell, expected plain words");
            self.refuse("shell-expansion", place, text);
            false
        })
    }

    fn directive(&mut self, place: &Place, word: &str, rest: &str, add: bool) {
        // The text of a command is for a shell.
        if let Some(kind) = COMMANDS.into_iter().find(|kind| *kind == word) {
            let name = rest.split_whitespace().next().map(str::to_owned);
            let command = name.map(|name| (name, place.clone(), kind));
            return self.file.commands.extend(command);
        }
        match word {
            _ if rest.starts_with('=') => self.setting(place, word, rest),
            "alias" => {
                let mut args = self.args(place, rest).into_iter();
                self.alias(place, args.next(), args.next());
            }
            "options" => {
                let args = self.args(place, rest).into_iter();
                self.options(place, args.skip_while(|arg| arg == "-k").collect(), add);
            }
            "probe" | "probeall" => {
                let args = self.args(place, rest);
                self.probe(place, args, word == "probeall", add);
            }
            "include" => {
                let name = self.args(place, rest).into_iter().next();
                self.include(place, name);
            }
            "define" => self.findings.add(
                Severity::Warning,
                "define-ignored",
                place,
                "define is not obeyed, expected values written out".to_owned(),
            ),
            _ => self.setting(place, word, rest),
        }
    }

    /// The words of a directive that has a list.
    fn args(&mut self, place: &Place, rest: &str) -> Vec<String> {
        let words = words(rest);
        if rest.contains(['`', '$']) || words.is_err() {
            self.file.shell.push((place.clone(), rest.to_owned()));
        }
        words.unwrap_or_default()
    }

    /// A directive that does not concern modules.
    fn setting(&mut self, place: &Place, word: &str, rest: &str) {
        let name = word.split('[').next().unwrap_or(word);
        let assigns = rest.starts_with('=');
        let bare = ["keep", "prune", "above", "below"].contains(&name);
        if SETTINGS.contains(&name) && assigns != bare {
            let text = format!("{name} is skipped, it concerns no bond");
            return self.findings.add(Severity::Info, "skipped-directive", place, text);
        }
        let mut text =
            format!("unknown directive {word:?}, expected alias, options, probeall or another of modules.conf");
        if assigns {
            text.push_str(" (or a \\ at the end of the line before)");
        }
        self.refuse("invalid-line", place, text);
    }

    fn alias(&mut self, place: &Place, name: Option<String>, target: Option<String>) {
        let (Some(name), Some(target)) = (name, target) else {
            return;
        };
        self.file.names.push(name.clone());
        if let Some((before, _)) = self.file.aliases.insert(name.clone(), (place.clone(), target)) {
            self.file.replaced_aliases.push((name, place.clone(), before));
        }
    }

    fn options(&mut self, place: &Place, mut args: Vec<String>, add: bool) {
        if args.is_empty() {
            return;
        }
        let name = args.remove(0);
        if add && args.is_empty() {
            return;
        }
        let list = self.file.options.entry(name.clone()).or_default();
        if !add && let Some((before, _)) = list.first() {
            self.file.replaced_options.push((name, place.clone(), before.clone()));
            list.clear();
        }
        if list.iter().map(|(_, args)| args.len()).sum::<usize>() + args.len() > MOST_WORDS {
            let text = format!("more than {MOST_WORDS} options, expected fewer");
            return self.findings.error(place, text);
        }
        list.push((place.clone(), args));
    }

    fn probe(&mut self, place: &Place, mut args: Vec<String>, all: bool, add: bool) {
        if args.is_empty() {
            return;
        }
        let name = args.remove(0);
        match self.file.probes.get_mut(&name) {
            // Lists of probe are looked at first.
            Some(before) if all && !before.all => {}
            Some(before) if add && before.all == all => before.modules.append(&mut args),
            _ => {
                let probe = Probe {
                    place: place.clone(),
                    modules: args,
                    all,
                };
                self.file.probes.insert(name.clone(), probe);
            }
        }
        self.file.names.push(name);
    }

    fn include(&mut self, place: &Place, name: Option<String>) {
        let name = name.unwrap_or_default();
        if self.depth >= DEEPEST || self.included >= MOST_FILES {
            let text = format!("more than {DEEPEST} files in each other or {MOST_FILES} in all, expected fewer");
            return self.refuse("invalid-line", place, text);
        }
        self.included += 1;
        match self.files.include(&place.file, &name) {
            Ok((path, text)) => {
                let path: Arc<Path> = Arc::from(path.as_path());
                self.order.push(path.clone());
                self.depth += 1;
                self.text(&path, &text);
                self.depth -= 1;
            }
            Err(Refusal::Elsewhere) => {
                let text = format!("{name} is not read: expected a file beside this one or below");
                self.findings.add(Severity::Warning, "include-ignored", place, text);
            }
            Err(Refusal::Failed(why)) => {
                let text = format!("{name} cannot be read ({why}), expected a file beside this one or below");
                self.refuse("invalid-line", place, text);
            }
        }
    }
}

/// The lines that modutils makes of one.
fn pieces((number, mut line): (usize, &str)) -> Vec<(usize, &str)> {
    let mut pieces = Vec::new();
    while line.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| line.is_char_boundary(*at));
        let (piece, rest) = line.split_at(end.unwrap_or(LONGEST));
        pieces.push((number, piece));
        line = rest;
    }
    pieces.push((number, line));
    pieces
}

/// The first word, up to a blank or a `=`, and the rest, which keeps the `=`.
fn directive_word(line: &str) -> (&str, &str) {
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    (word, rest.trim_start())
}

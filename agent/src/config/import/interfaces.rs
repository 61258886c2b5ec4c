//! Debian's interfaces(5): finds the stanzas of bonds and ports. `ifupdown` reads their bonding options.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bond::{by_hand, named};
use super::ifupdown::{self, Line, Ports, Role, Stanza};
use super::reading::{Import, Text};
use crate::config::SpecOption;
use crate::config::diagnostic::{Findings, Place};
use crate::config::lines::first_word;
use crate::config::pattern::{is_pattern, matches};

/// Files that match a path with patterns, each with its text or the reason why it cannot be read.
pub type Sourced<'a> = &'a dyn Fn(&Path) -> Vec<(PathBuf, io::Result<String>)>;

/// Commands of a stanza.
const COMMANDS: [&str; 6] = ["pre-up", "up", "post-up", "pre-down", "down", "post-down"];

/// Parts of a command by which it makes or changes a bond itself.
const BONDING: [&str; 4] = ["ifenslave", "bonding", "type bond", "master bond"];

/// Options that stay with ifupdown.
const STAYS: [&str; 7] = ["address", "netmask", "gateway", "dns-", "bridge", "vlan", "broadcast"];

/// Most files that are read; the limit ends circles of files that include each other.
const MOST_FILES: usize = 256;

/// Most stanzas, and most lines of one.
const MOST_STANZAS: usize = 8192;
const MOST_LINES: usize = 1024;

/// Most inherited lines in total; a stanza may inherit from one that inherits itself.
const MOST_INHERITED: usize = 65536;

/// One `iface` stanza.
struct Block {
    place: Place,
    name: String,
    inherits: Vec<String>,
    lines: Vec<Line>,
    /// Part of it is missing; that was reported.
    is_broken: bool,
}

/// All files together.
#[derive(Default)]
struct Interfaces {
    blocks: Vec<Block>,
    /// Names and patterns of `auto` and `allow-*`.
    started: Vec<String>,
    mappings: Vec<(Place, String)>,
    /// The stanza to which the next option belongs.
    open: Open,
    /// The limit of stanzas was exceeded.
    is_full: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Open {
    #[default]
    Nothing,
    Block,
    /// A stanza whose lines are skipped.
    Other,
}

/// Reads the files, and those that they include.
pub(super) fn read(texts: &[Text], sourced: Sourced<'_>, import: &mut Import) {
    let mut interfaces = Interfaces::default();
    let mut done = Vec::new();
    for text in texts {
        interfaces.read(text, sourced, &mut done, import);
    }
    interfaces.inherit(&mut import.findings);
    let stanzas: Vec<Stanza> = interfaces
        .blocks
        .iter()
        .map(|block| block.stanza(&mut import.findings))
        .collect();
    let mut blocks: Vec<(&Block, &Stanza)> = interfaces.blocks.iter().zip(&stanzas).collect();
    // A bond is made before its ports, which are attached in the order in which they are brought up.
    blocks.sort_by_key(|(block, stanza)| (stanza.bond.is_some(), interfaces.turn(&block.name)));
    for (block, stanza) in &blocks {
        if makes_bond(block, stanza, &blocks, &mut import.findings) {
            match interfaces.is_template(block) {
                false => take_bond(block, stanza, import),
                true => {
                    let text = format!("{} is only inherited from: no auto line has it", block.name);
                    import.findings.info(&block.place, text);
                }
            }
        }
    }
    for (block, stanza) in &blocks {
        if let Some((place, bond)) = &stanza.bond
            && !interfaces.is_template(block)
        {
            let is_known = interfaces.blocks.iter().any(|block| block.name == *bond);
            take_port(block, (place, bond), stanza, is_known, import);
        }
    }
    choose_primaries(&blocks, import);
    interfaces.say_what_stays(import);
}

impl Interfaces {
    fn read(&mut self, text: &Text, sourced: Sourced<'_>, done: &mut Vec<Arc<Path>>, import: &mut Import) {
        if done.contains(&text.path) {
            return;
        }
        if done.len() == MOST_FILES {
            let place = Place {
                file: done[0].clone(),
                line: 0,
            };
            let text = format!("more than {MOST_FILES} files, expected files that do not name each other");
            return import.findings.error(&place, text);
        }
        done.push(text.path.clone());
        import.files.push(text.path.clone());
        self.open = Open::Nothing;
        for (number, line) in logical_lines(&text.text) {
            let place = Place {
                file: text.path.clone(),
                line: number,
            };
            let (word, rest) = first_word(line.trim_end(), char::is_whitespace);
            if word == "source" || word == "source-directory" {
                self.open = Open::Nothing;
                for text in more(word, rest, &place, sourced, &mut import.findings) {
                    self.read(&text, sourced, done, import);
                }
            } else {
                self.line(word, rest, place, &mut import.findings);
            }
        }
    }

    fn line(&mut self, word: &str, rest: &str, place: Place, findings: &mut Findings) {
        let names = || rest.split_whitespace().map(str::to_owned);
        match word {
            "iface" => self.begin(place, rest, findings),
            "mapping" => {
                self.open = Open::Other;
                self.mappings.extend(names().map(|name| (place.clone(), name)));
            }
            "auto" => {
                self.open = Open::Nothing;
                self.started.extend(names());
            }
            _ if word.starts_with("allow-") => {
                self.open = Open::Nothing;
                self.started.extend(names());
            }
            "no-auto-down" | "no-scripts" | "rename" => self.open = Open::Nothing,
            _ => match (self.open, self.blocks.last_mut()) {
                (Open::Block, Some(block)) => block.option(word, rest, place, findings),
                (Open::Other, _) => {}
                _ => findings.error(
                    &place,
                    format!("{word} is in no stanza, expected `iface NAME` before it"),
                ),
            },
        }
    }

    fn begin(&mut self, place: Place, rest: &str, findings: &mut Findings) {
        let mut words = rest.split_whitespace();
        self.open = Open::Block;
        let name = words.next().unwrap_or_default().to_owned();
        if name.is_empty() {
            self.open = Open::Other;
            return findings.error(&place, "iface without a name, expected `iface NAME inet METHOD`");
        }
        let mut inherits = Vec::new();
        while let Some(word) = words.next() {
            if word == "inherits" {
                inherits.extend(words.next().map(str::to_owned));
            }
        }
        if self.blocks.len() == MOST_STANZAS {
            self.open = Open::Other;
            let text =
                format!("{name} is not read, nor what follows: more than {MOST_STANZAS} stanzas, expected fewer");
            return if !std::mem::replace(&mut self.is_full, true) {
                findings.error(&place, text)
            };
        }
        self.blocks.push(Block {
            place,
            name,
            inherits,
            lines: Vec::new(),
            is_broken: false,
        });
    }

    /// Adds to every stanza the lines that it inherits from an earlier one and does not have itself.
    fn inherit(&mut self, findings: &mut Findings) {
        let mut total = 0;
        for at in 0..self.blocks.len() {
            let (before, rest) = self.blocks.split_at_mut(at);
            let Some(block) = rest.first_mut() else { continue };
            let mut names: BTreeSet<String> = block.lines.iter().map(|line| line.name.clone()).collect();
            let mut inherited: Vec<Line> = Vec::new();
            for name in &block.inherits {
                let Some(from) = before.iter().rfind(|before| before.name == *name) else {
                    let text = format!(
                        "{} inherits from {name}, expected an iface {name} before it",
                        block.name
                    );
                    findings.error(&block.place, text);
                    block.is_broken = true;
                    continue;
                };
                block.is_broken |= from.is_broken;
                let new: Vec<&Line> = from.lines.iter().filter(|line| !names.contains(&line.name)).collect();
                names.extend(new.iter().map(|line| line.name.clone()));
                inherited.extend(new.into_iter().cloned());
            }
            total += inherited.len();
            if total > MOST_INHERITED {
                let text = format!("more than {MOST_INHERITED} lines are inherited, expected fewer");
                return findings.error(&block.place, text);
            }
            block.lines.splice(0..0, inherited);
        }
    }

    /// The index of an interface in the order of bringing up; others come last.
    fn turn(&self, name: &str) -> usize {
        // A leading slash begins a pattern for existing interfaces. [interfaces(5)]
        let means = |pattern: &String| matches(pattern.trim_start_matches('/'), name);
        self.started.iter().position(means).unwrap_or(usize::MAX)
    }

    fn is_started(&self, name: &str) -> bool {
        self.turn(name) != usize::MAX
    }

    /// A template for other stanzas.
    fn is_template(&self, block: &Block) -> bool {
        let is_inherited = self.blocks.iter().any(|other| other.inherits.contains(&block.name));
        is_inherited && !self.is_started(&block.name)
    }

    fn say_what_stays(&self, import: &mut Import) {
        let findings = &mut import.findings;
        for bond in &import.bonds {
            for block in self.blocks.iter().filter(|block| block.name == bond.name) {
                block.say_what_stays(findings);
            }
            let mut names = bond.ports.iter().map(|(port, _)| port).chain([&bond.name]);
            if !bond.is_broken && !names.any(|name| self.is_started(name)) {
                let text = format!(
                    "no auto line has {0}: bondd makes it at every start, expected an auto line",
                    bond.name
                );
                findings.warning(&bond.place, text);
            }
        }
        for (place, pattern) in &self.mappings {
            let names = import
                .bonds
                .iter()
                .flat_map(|bond| bond.ports.iter().map(|(port, _)| port).chain([&bond.name]));
            let meant: Vec<&str> = names
                .filter(|name| matches(pattern, name))
                .map(String::as_str)
                .collect();
            if !meant.is_empty() {
                let names = meant.join(", ");
                let text =
                    format!("the script that chooses stanzas for {names} is not run, expected stanzas of these names");
                findings.warning(place, text);
            }
        }
    }
}

impl Block {
    fn option(&mut self, name: &str, value: &str, place: Place, findings: &mut Findings) {
        if self.lines.len() == MOST_LINES {
            if !std::mem::replace(&mut self.is_broken, true) {
                findings.error(
                    &place,
                    format!("more than {MOST_LINES} lines for {}, expected fewer", self.name),
                );
            }
        } else if value.is_empty() {
            findings.error(&place, format!("{name} without a value, expected `{name} VALUE`"));
        } else if COMMANDS.contains(&name) && BONDING.iter().any(|word| value.contains(word)) {
            let text = format!("`{name} {value}` is not run, expected bond-slaves, bond-mode and so on");
            findings.error(&place, text);
        } else {
            self.lines.push(Line {
                place,
                name: name.to_owned(),
                value: value.to_owned(),
            });
        }
    }

    /// Its bonding options; they are checked when all options of the bond are known.
    fn stanza(&self, findings: &mut Findings) -> Stanza {
        let (stanza, diagnostics) = ifupdown::read(self.lines.clone(), &|_| Vec::new());
        for finding in diagnostics {
            findings.add(finding.severity, finding.code, &finding.place, finding.text);
        }
        stanza
    }

    fn say_what_stays(&self, findings: &mut Findings) {
        let name = &self.name;
        for line in &self.lines {
            let value = line.value.split_whitespace().last().unwrap_or_default();
            match line.name.as_str() {
                "mtu" => by_hand(
                    &line.place,
                    &format!("mtu {value}"),
                    &format!("ip link set {name} mtu {value}"),
                    findings,
                ),
                "hwaddress" => {
                    let command = format!("ip link set {name} address {value}");
                    by_hand(&line.place, &format!("hwaddress {value}"), &command, findings);
                }
                _ => {}
            }
        }
        let stays = |line: &&Line| STAYS.iter().any(|name| line.name.starts_with(name));
        let stays: Vec<&Line> = self.lines.iter().filter(stays).collect();
        if let Some(first) = stays.first() {
            let names: Vec<&str> = stays.iter().map(|line| line.name.as_str()).collect();
            let text = format!("left to ifupdown: {}; bondd sets no addresses", names.join(", "));
            findings.info(&first.place, text);
        }
    }
}

/// Whether it is a stanza of a bond, or one that ports name as theirs.
fn makes_bond(block: &Block, stanza: &Stanza, blocks: &[(&Block, &Stanza)], findings: &mut Findings) -> bool {
    let is_port_of_it = |(_, port): &(&Block, &Stanza)| port.bond.as_ref().is_some_and(|(_, name)| *name == block.name);
    match stanza.role() {
        Role::Bond => true,
        Role::Port => false,
        Role::Neither if !blocks.iter().any(is_port_of_it) => false,
        Role::Neither => {
            let says_it = |(other, said): &(&Block, &Stanza)| other.name == block.name && said.role() == Role::Bond;
            if !blocks.iter().any(says_it) {
                let text = format!(
                    "{} has neither bond-slaves nor bond-mode, without which ifup makes no bond, expected one of them",
                    block.name
                );
                findings.warning(&block.place, text);
            }
            true
        }
    }
}

fn take_bond(block: &Block, stanza: &Stanza, import: &mut Import) {
    let Import { bonds, findings, .. } = import;
    let bond = named(bonds, &block.name, &block.place);
    bond.is_broken |= block.is_broken;
    for option in &stanza.options {
        bond.set(option.clone(), findings);
    }
    match &stanza.ports {
        Some((place, Ports::Named(ports))) => ports.iter().for_each(|port| bond.port(port, place, findings)),
        Some((place, Ports::All)) => {
            let text = format!("bond-slaves all is not imported to {}, expected names", block.name);
            findings.error(place, text);
        }
        Some((_, Ports::None)) | None => {}
    }
    if let Some((place, Some(port))) = &stanza.active {
        let command = format!("bondctl active {} {port}", block.name);
        by_hand(place, "bond-active-slave", &command, findings);
    }
    if let Some((place, queues)) = &stanza.queue_ids {
        for (port, queue) in queues {
            let command = format!("bondctl port set {} {port} queue_id {queue}", block.name);
            by_hand(place, "bond-queue-id", &command, findings);
        }
    }
}

fn take_port(block: &Block, of: (&Place, &str), stanza: &Stanza, is_known: bool, import: &mut Import) {
    let (place, name) = of;
    let Import { bonds, findings, .. } = import;
    if !is_known {
        let text = format!(
            "{} is not brought up, because {name} has no stanza, expected `iface {name}`",
            block.name
        );
        findings.error(place, text);
    }
    if stanza.chance.is_some() {
        let text = format!(
            "bond-give-a-chance of {} is not supported, expected updelay instead",
            block.name
        );
        findings.warning(place, text);
    }
    let bond = named(bonds, name, place);
    bond.is_broken |= !is_known;
    bond.port(&block.name, place, findings);
    bond.is_broken |= block.is_broken;
    for option in &stanza.options {
        bond.set(option.clone(), findings);
    }
}

/// The first preferred port that is a port of the bond counts.
fn choose_primaries(blocks: &[(&Block, &Stanza)], import: &mut Import) {
    for bond in &mut import.bonds {
        for (block, stanza) in blocks {
            let master = stanza.bond.as_ref().map(|(_, name)| name.as_str());
            let Some((place, wanted)) = stanza
                .primary
                .as_ref()
                .filter(|_| master.unwrap_or(&block.name) == bond.name)
            else {
                continue;
            };
            let is_port = |name: &str| bond.ports.iter().any(|(port, _)| port == name);
            let Some(chosen) = stanza.primary_of(is_port).or(wanted.first().map(String::as_str)) else {
                continue;
            };
            if wanted.len() > 1 {
                let text = format!(
                    "{chosen} is used from bond-primary {}, expected one name",
                    wanted.join(" ")
                );
                import.findings.warning(place, text);
            }
            let option = SpecOption {
                name: "primary".to_owned(),
                value: chosen.to_owned(),
                place: place.clone(),
            };
            bond.set(option, &mut import.findings);
        }
    }
}

/// The files that a line includes.
fn more(word: &str, rest: &str, place: &Place, sourced: Sourced<'_>, findings: &mut Findings) -> Vec<Text> {
    let mut texts = Vec::new();
    for name in rest.split_whitespace() {
        if name.contains(['$', '`', '~', '"', '\'']) {
            findings.error(place, format!("{word} {name} needs a shell, expected the path itself"));
            continue;
        }
        let folder = place.file.parent().unwrap_or(Path::new(""));
        let path = folder.join(name);
        let is_folder = word == "source-directory";
        let found = sourced(&if is_folder { path.join("*") } else { path });
        if found.is_empty() && !is_folder && !is_pattern(name) {
            findings.error(place, format!("{name} is not read, expected a file"));
        }
        for (path, text) in found {
            match text {
                _ if is_folder && !is_wanted(&path) => {}
                Ok(text) => texts.push(Text {
                    path: Arc::from(path),
                    text,
                }),
                Err(e) => findings.error(
                    place,
                    format!("{} cannot be read ({e}), expected a file", path.display()),
                ),
            }
        }
    }
    texts
}

/// Whether a file of a folder is read. [run-parts(8)]
pub(super) fn is_wanted(path: &Path) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.chars().all(is_plain))
}

/// A comment has a line of its own; `\` at the end joins the next.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut physical = text.lines().enumerate();
    while let Some((index, line)) = physical.next() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut line = line.to_owned();
        while line.ends_with('\\') {
            line.pop();
            match physical.next() {
                Some((_, next)) => line.push_str(next),
                None => break,
            }
        }
        lines.push((index + 1, line));
    }
    lines
}

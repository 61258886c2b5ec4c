//! The grammar of modprobe.d: the module loads of `modprobe bond0` and so on, from all files and the kernel's command line
//! together. A bad line does not affect other lines. [modprobe.d(5); kmod: libkmod-config.c, libkmod-module.c]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::bond_names::bond_number;
use super::module::{Load, Module};
use crate::config::diagnostic::{Findings, Place, Severity};
use crate::config::directives::MODULE;
use crate::config::kernel_words::{END, Word};
use crate::config::limits::{MOST_IN_ALL, MOST_WORDS};
use crate::config::pattern::{self, is_pattern};
use crate::config::{Grammar, Source};

mod read;

use read::{Files, Install};

/// Longest name in bytes that is compared with patterns.
const LONGEST_NAME: usize = 255;

/// Reads the files and makes their bonds.
pub(super) fn load(sources: &[Source], module: &mut Module<'_>, findings: &mut Findings) {
    let mut files = Files::default();
    for source in sources {
        let path: Arc<Path> = Arc::from(source.path.as_path());
        match source.grammar {
            Grammar::ModprobeD => files.read(&path, &source.text, findings),
            Grammar::CommandLine => files.read_command_line(&path, &source.text),
            Grammar::Own | Grammar::ModulesConf => {}
        }
    }
    let used = load_all(&files, module, findings);
    for (place, name, _) in &files.options {
        if name.starts_with("bond") && !used.contains(name.as_str()) {
            let text = format!(
                "options for {name} are not used, expected `alias {name} {MODULE}`, before any pattern, or \
                 `options {MODULE} ...`"
            );
            findings.add(Severity::Warning, "orphan-options", place, text);
        }
    }
}

/// Loads the module for every request; returns the names whose options are used.
fn load_all<'a>(files: &'a Files, module: &mut Module<'_>, findings: &mut Findings) -> BTreeSet<&'a str> {
    let requests = requests(files, findings);
    let mut used = BTreeSet::from([MODULE]);
    used.extend(files.installs.iter().map(|install| install.name.as_str()));
    if let Some(install) = files
        .installs
        .iter()
        .find(|install| install.name == MODULE && install.is_nothing())
    {
        let text = format!("no bonds: {MODULE} is switched off by its install line, expected no such line");
        findings.add(Severity::Warning, "module-disabled", &install.place, text);
        return used;
    }
    let blacklisted = files.blacklist.iter().find(|(_, name)| name == MODULE);
    let asked = !requests.is_empty();
    let mut loaded = false;
    for Request { name, alias, place } in requests {
        used.insert(alias);
        if let Some((place, _)) = blacklisted {
            let text = format!("no bond {name}: {MODULE} is blacklisted, which aliases obey, expected no such line");
            findings.add(Severity::Warning, "blacklisted", place, text);
        } else if loaded && module.is_awaited(name) {
            // The module makes no second bond, but the agent's own files may.
            let mut load = files.request(Some(name), Some(alias), place, &[]);
            load.words.retain(|word| word.name.replace('-', "_") != "max_bonds");
            module.load(&load, Grammar::ModprobeD, findings);
        } else if loaded {
            let text =
                format!("no further bond: the module is loaded already, expected `options {MODULE} max_bonds=<n> ...`");
            findings.add(Severity::Warning, "module-already-loaded", place, text);
        } else {
            let load = files.request(Some(name), Some(alias), place, &[]);
            loaded = module.load(&load, Grammar::ModprobeD, findings);
        }
    }
    let own = files.options.iter().find(|(_, name, _)| name == MODULE);
    if let Some((place, ..)) = own.filter(|_| !asked) {
        let alias = files.alias(MODULE);
        used.extend(alias);
        match files.aliases.iter().find(|alias| matches(&alias.name, MODULE)) {
            Some(other) if alias.is_none() => {
                let text = format!("no bonds: this alias stands for {MODULE} itself, expected no such line");
                findings.add(Severity::Warning, "module-disabled", &other.place, text);
            }
            _ => {
                let load = files.request(None, alias, place, &[]);
                module.load(&load, Grammar::ModprobeD, findings);
            }
        }
    }
    install(files, module, findings);
    used
}

/// Whether an alias stands for a name.
fn matches(alias: &str, name: &str) -> bool {
    match name.len() {
        ..=LONGEST_NAME => pattern::matches(alias, name),
        _ => alias == name,
    }
}

/// A request for the module.
struct Request<'a> {
    name: &'a str,
    /// The first alias that matches, as written in its line. Its options count, because the module is loaded when the others
    /// are tried.
    alias: &'a str,
    place: &'a Place,
}

/// Aliases of the module that name a bond, each once, in the order of [`bond_number`].
fn requests<'a>(files: &'a Files, findings: &mut Findings) -> Vec<Request<'a>> {
    let mut requests: Vec<Request<'_>> = Vec::new();
    let mut patterns: Vec<&str> = Vec::new();
    let mut known = BTreeSet::new();
    let names: BTreeSet<&str> = files.aliases.iter().map(|alias| alias.name.as_str()).collect();
    let good = files.aliases.iter().filter(|alias| alias.module == MODULE);
    let good: BTreeSet<&str> = good.map(|alias| alias.name.as_str()).collect();
    for alias in &files.aliases {
        let (name, place) = (alias.name.as_str(), &alias.place);
        if name == MODULE {
            continue;
        }
        if alias.module == MODULE && is_pattern(name) {
            let text =
                format!("{name} is a pattern and asks for no bond, expected a bond's name, or `options {MODULE} ...`");
            findings.add(Severity::Info, "wildcard-alias", place, text);
            patterns.push(name);
        } else if alias.module == MODULE {
            if requests.len() >= MOST_IN_ALL {
                findings.error(place, format!("more than {MOST_IN_ALL} bonds, expected fewer"));
                break;
            }
            if known.insert(name) {
                let before = patterns.iter().find(|pattern| matches(pattern, name));
                let alias = before.copied().unwrap_or(name);
                requests.push(Request { name, alias, place });
            }
        } else if good.contains(alias.module.as_str())
            || (name.starts_with("bond") && names.contains(alias.module.as_str()))
        {
            let text = format!(
                "{name} is an alias of an alias, {}, which is not followed, expected `alias {name} {MODULE}`",
                alias.module
            );
            findings.add(Severity::Warning, "alias-to-alias", place, text);
        } else if name.starts_with("bond") && alias.module == "off" && !good.contains(name) {
            let text = format!("no bond {name}: it is switched off");
            findings.add(Severity::Info, "alias-off", place, text);
        }
    }
    requests.sort_by_key(|request| bond_number(request.name));
    requests
}

/// Commands to run instead of loading: only the command that loads the module once more is supported.
fn install(files: &Files, module: &mut Module<'_>, findings: &mut Findings) {
    let concerns = |install: &&Install| install.name.starts_with("bond") && !install.is_ours();
    for install in files.installs.iter().filter(concerns) {
        let (name, place) = (install.name.as_str(), &install.place);
        match install
            .renamed(MODULE)
            .filter(|_| name != MODULE && files.alias(name).is_none())
        {
            Some(words) => {
                let text = format!(
                    "{name} is made, though kmod cannot load {MODULE} a second time, expected `options {MODULE} \
                     max_bonds=<n> ...`, or bondd's own files for bonds with different options"
                );
                findings.add(Severity::Warning, "install-rename", place, text);
                let load = files.request(Some(name), Some(name), place, &words);
                module.load(&load, Grammar::ModprobeD, findings);
            }
            None => {
                let text =
                    format!("the install command of {name} is not run, expected it where interfaces are brought up");
                findings.add(Severity::Warning, "command-ignored", place, text);
            }
        }
    }
}

impl Files {
    /// The alias, as written in its line, that maps a name to the module.
    fn alias(&self, name: &str) -> Option<&str> {
        let mut aliases = self.aliases.iter().filter(|alias| alias.module == MODULE);
        let found = aliases.find(|alias| matches(&alias.name, name));
        found.map(|alias| alias.name.as_str())
    }

    /// A request under a name, with the words of all files for the module and the alias, in their order, and then `more`.
    fn request(&self, name: Option<&str>, alias: Option<&str>, place: &Place, more: &[Word]) -> Load {
        let of = |name: &str| name == MODULE || Some(name) == alias;
        let lines = self.options.iter().filter(|(_, name, _)| of(name));
        let words = lines
            .flat_map(|(.., words)| words)
            .chain(more)
            .chain(&self.command_line);
        let words = words.take_while(|word| word.name != END).take(MOST_WORDS + 1).cloned();
        Load {
            alias: name.map(str::to_owned),
            place: place.clone(),
            words: words.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_not_tried_on_very_long_names() {
        let (long, too_long) = ("a".repeat(255), "a".repeat(256));
        assert!(matches("*", &long) && matches(&too_long, &too_long));
        assert!(!matches("*", &too_long));
    }
}

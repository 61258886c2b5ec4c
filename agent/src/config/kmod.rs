//! The grammar of modprobe.d: what `modprobe bond0` and so on would load, by all files and the kernel's command line together.
//! A bad line spoils nothing but itself. [modprobe.d(5); kmod: libkmod-config.c, libkmod-module.c]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Findings, Place, Severity};
use super::modprobe::MODULE;
use super::module::{Load, Module, Word};
use super::modutils::number;
use super::{Grammar, Source};

mod read;

use read::Files;
pub(super) use read::words;

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
                "options for {name} that nothing uses, expected `alias {name} {MODULE}` or `options {MODULE} ...`"
            );
            findings.add(Severity::Warning, "orphan-options", place, text);
        }
    }
}

/// Loads the module for everybody who asks; the names whose options are used.
fn load_all<'a>(files: &'a Files, module: &mut Module<'_>, findings: &mut Findings) -> BTreeSet<&'a str> {
    let requests = requests(files, findings);
    let mut used = BTreeSet::from([MODULE]);
    used.extend(requests.iter().map(|(name, _)| *name));
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
    for (name, place) in requests {
        if let Some((place, _)) = blacklisted {
            let text = format!("no bond {name}: {MODULE} is blacklisted, which aliases obey, expected no such line");
            findings.add(Severity::Warning, "blacklisted", place, text);
        } else if loaded {
            let text =
                format!("no further bond: the module is loaded already, expected `options {MODULE} max_bonds=<n> ...`");
            findings.add(Severity::Warning, "module-already-loaded", place, text);
        } else {
            let load = files.request(Some(name), place, &[]);
            loaded = module.load(&load, Grammar::ModprobeD, findings);
        }
    }
    let own = files.options.iter().find(|(_, name, _)| name == MODULE);
    if let Some((place, ..)) = own.filter(|_| !asked) {
        let load = files.request(None, place, &[]);
        module.load(&load, Grammar::ModprobeD, findings);
    }
    install(files, module, findings);
    used
}

/// Aliases of the module that name a bond, each once, in the order of [`number`].
fn requests<'a>(files: &'a Files, findings: &mut Findings) -> Vec<(&'a str, &'a Place)> {
    let mut requests: Vec<(&str, &Place)> = Vec::new();
    let mut known = BTreeSet::new();
    let names: BTreeSet<&str> = files.aliases.iter().map(|alias| alias.name.as_str()).collect();
    let good = files.aliases.iter().filter(|alias| alias.module == MODULE);
    let good: BTreeSet<&str> = good.map(|alias| alias.name.as_str()).collect();
    for alias in &files.aliases {
        let (name, place) = (alias.name.as_str(), &alias.place);
        if alias.module == MODULE && name.contains(['*', '?', '[']) {
            let text =
                format!("{name} is a pattern and asks for no bond, expected a bond's name, or `options {MODULE} ...`");
            findings.add(Severity::Info, "wildcard-alias", place, text);
        } else if alias.module == MODULE {
            if known.insert(name) {
                requests.push((name, place));
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
    requests.sort_by_key(|(name, _)| number(name));
    requests
}

/// Commands that would be run instead of loading: only that which loads the module once more is understood.
fn install(files: &Files, module: &mut Module<'_>, findings: &mut Findings) {
    let aliased = |name: &str| {
        files
            .aliases
            .iter()
            .any(|alias| alias.name == name && alias.module == MODULE)
    };
    for install in files.installs.iter().filter(|install| install.name.starts_with("bond")) {
        let (name, place) = (install.name.as_str(), &install.place);
        match install.renamed(MODULE).filter(|_| name != MODULE && !aliased(name)) {
            Some(words) => {
                let text = format!(
                    "{name} is made, though kmod cannot load {MODULE} a second time, expected `options {MODULE} \
                     max_bonds=<n> ...`, or bondd's own files for bonds with different options"
                );
                findings.add(Severity::Warning, "install-rename", place, text);
                let load = files.request(Some(name), place, &words);
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
    /// A request with the words of all files, in their order, and then `more`.
    fn request(&self, alias: Option<&str>, place: &Place, more: &[Word]) -> Load {
        let of = |name: &str| name == MODULE || Some(name) == alias;
        let mut words: Vec<Word> = Vec::new();
        for (place, _, text) in self.options.iter().filter(|(_, name, _)| of(name)) {
            read::words(text, place, &mut words);
        }
        words.extend_from_slice(more);
        words.extend_from_slice(&self.command_line);
        Load {
            alias: alias.map(str::to_owned),
            place: place.clone(),
            words,
        }
    }
}

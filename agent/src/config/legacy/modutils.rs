//! The grammar of modules.conf and conf.modules of Linux 2.4: the module loads of `modprobe bond0` and so on. One bad line
//! invalidates the whole file, because modutils then loads no module. [modutils: modules.conf(5), util/config.c,
//! insmod/modprobe.c]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::bond_names::is_bond;
use super::module::{Load, Module};
use crate::config::diagnostic::{Findings, Place, Severity};
use crate::config::directives::MODULE;
use crate::config::kernel_words::Word;
use crate::config::loader::Files;
use crate::config::{Grammar, Source};

mod condition;
mod read;
mod requests;

use read::File;
use requests::{Chain, Way};

/// Reads a file and makes its bonds. Files that it includes are added to `order`.
pub(super) fn load(
    source: &Source,
    files: &dyn Files,
    order: &mut Vec<Arc<Path>>,
    module: &mut Module<'_>,
    findings: &mut Findings,
) {
    let Some(file) = read::read(source, files, order, findings) else {
        return;
    };
    if requests::shell(&file, findings) {
        return;
    }
    let requests = requests::find(&file, findings);
    let mut loaded: BTreeSet<String> = BTreeSet::new();
    let mut used: BTreeSet<&str> = BTreeSet::from([MODULE]);
    // For each list of `probe`, the name in it that was loaded.
    let mut chosen: BTreeMap<&str, &str> = BTreeMap::new();
    for request in &requests {
        let Way { chain, choices } = &request.way;
        used.extend(chain.iter().map(String::as_str));
        let other = |(list, name): &&(String, String)| chosen.get(list.as_str()).is_some_and(|taken| taken != name);
        if let Some((list, name)) = choices.iter().find(other) {
            let text = format!("{name} is not loaded: probe {list} ends with the first that can be, expected probeall");
            findings.add(Severity::Warning, "probe-ended", &request.place, text);
            continue;
        }
        let name = module_name(&file, chain);
        if loaded.contains(&name) {
            let text = format!(
                "no further bond: the module is loaded as {name} before, expected `options {} -o <another name> ...`, or \
                 max_bonds",
                request.alias.as_deref().unwrap_or(MODULE)
            );
            findings.add(Severity::Warning, "module-already-loaded", &request.place, text);
        } else {
            let load = Load {
                alias: request.alias.clone(),
                place: request.place.clone(),
                words: words(&file, chain, findings),
            };
            if !module.load(&load, Grammar::ModulesConf, findings) {
                continue;
            }
            loaded.insert(name);
        }
        chosen.extend(choices.iter().map(|(list, name)| (list.as_str(), name.as_str())));
    }
    remark(&file, &used, findings);
}

/// Options of one name as far as they reach the module.
fn list(file: &File, name: &str, findings: &mut Findings) -> (Vec<Word>, Option<String>) {
    let (mut words, mut rename): (Vec<Word>, _) = (Vec::new(), None);
    let given = file.options.get(name).into_iter().flatten();
    let mut given = given.flat_map(|(place, words)| words.iter().map(move |word| (place, word)));
    while let Some((place, word)) = given.next() {
        match word.split_once('=') {
            _ if word == "-o" => match given.next() {
                Some((_, name)) => rename = Some(name.clone()),
                None => truncated(place, word, findings),
            },
            Some((key, value)) => {
                let word = Word {
                    name: key.to_owned(),
                    value: Some(value.to_owned()),
                    place: place.clone(),
                };
                merge(&mut words, word, |new, _| {
                    let text = format!("{key} is given again, its earlier value has no effect, expected it once");
                    findings.add(Severity::Warning, "duplicate-option", &new.place, text);
                });
            }
            // It ends the list without a message.
            None => {
                truncated(place, word, findings);
                break;
            }
        }
    }
    (words, rename)
}

fn truncated(place: &Place, word: &str, findings: &mut Findings) {
    let text = format!(
        "{word:?} ends the options, the rest is ignored, expected option=value without blanks around the =, or `-o <name>`"
    );
    findings.add(Severity::Warning, "options-truncated", place, text);
}

/// Adds a word, in place of one of the same name.
fn merge(words: &mut Vec<Word>, word: Word, mut replaced: impl FnMut(&Word, &Word)) {
    match words.iter_mut().find(|before| before.name == word.name) {
        Some(before) => {
            replaced(&word, before);
            *before = word;
        }
        None => words.push(word),
    }
}

/// The module's own options under those of each name on the way to it, the request's last.
fn words(file: &File, chain: &Chain, findings: &mut Findings) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    for name in chain.iter().rev() {
        for word in list(file, name, findings).0 {
            merge(&mut words, word, |new, old| {
                let text = format!("{} of {name} counts, not that at {}", new.name, old.place);
                findings.add(Severity::Info, "option-overridden", &new.place, text);
            });
        }
    }
    words
}

/// The name that the kernel will list the module under.
fn module_name(file: &File, chain: &Chain) -> String {
    let unheard = &mut Findings::default();
    let rename = chain.iter().find_map(|name| list(file, name, unheard).1);
    rename.unwrap_or_else(|| MODULE.to_owned())
}

/// Lines that have no effect on any bond.
fn remark(file: &File, used: &BTreeSet<&str>, findings: &mut Findings) {
    let concerned = |name: &str| is_bond(name) || used.contains(name);
    for (name, given) in &file.options {
        if is_bond(name) && !used.contains(name.as_str()) {
            for (place, _) in given {
                let text =
                    format!("options for {name} are not used, expected `alias {name} {MODULE}` and no probe list");
                findings.add(Severity::Warning, "orphan-options", place, text);
            }
        }
    }
    for (name, place, before) in file.replaced_options.iter().filter(|(name, ..)| concerned(name)) {
        let text = format!("this line replaces all options for {name} at {before}, expected `add options {name} ...`");
        findings.add(Severity::Warning, "options-replaced", place, text);
    }
    for (name, place, before) in file.replaced_aliases.iter().filter(|(name, ..)| concerned(name)) {
        let text = format!("this alias of {name} replaces that at {before}, expected one");
        findings.add(Severity::Warning, "alias-replaced", place, text);
    }
    for (name, place, kind) in file.commands.iter().filter(|(name, ..)| concerned(name)) {
        let text = format!("the {kind} command of {name} is not run, expected it where interfaces are brought up");
        findings.add(Severity::Warning, "command-ignored", place, text);
    }
}

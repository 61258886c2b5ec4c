//! Configurations of other tools, made into option files of the agent's own grammar.
//!
//! Each tool has a reader (`ifcfg`, `dracut`, `interfaces`) that makes bonds of its files: options in the order in which
//! the tool gives them to the kernel's driver, ports in that of attaching, each with its place. `write` keeps what bondd
//! takes and prints it; what was printed is read back as bondd would read it. What is not carried over is told with its
//! place and stays in the text as a comment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Findings, Place};
use super::option_list::{self, switched_on, take};
use super::{Check, Diagnostic, Severity, SpecOption, loader};

mod dracut;
mod expand;
mod ifcfg;
pub mod ifupdown;
mod interfaces;
mod keep_good;
mod shell;
mod write;

#[cfg(test)]
mod tests;

pub use interfaces::Sourced;

/// Where standard input is a file.
const STDIN: &str = "/dev/stdin";

/// Most ports, options and targets of one bond that are read.
const MOST_WORDS: usize = 1024;

/// Whose configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// Files ifcfg-NAME of Red Hat's and SUSE's network scripts
    Ifcfg,
    /// Words bond= of the kernel's command line, as dracut reads them
    Dracut,
    /// Stanzas of interfaces(5), as Debian's ifupdown reads them
    Interfaces,
}

/// What became of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// An option file that bondd takes.
    pub text: String,
    /// All findings, in the order of files and lines. An error is something that was not carried over.
    pub diagnostics: Vec<Diagnostic>,
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// As it was named.
    pub path: Arc<Path>,
    /// What is in it.
    pub text: String,
}

/// A bond as the tool would have made it.
#[derive(Clone, Debug)]
struct Bond {
    name: String,
    place: Place,
    options: Vec<SpecOption>,
    /// Each once.
    ports: Vec<(String, Place)>,
    /// Part of it could not be read, so that it would be another bond; that was reported.
    is_broken: bool,
}

/// What a reader fills.
#[derive(Debug, Default)]
struct Import {
    bonds: Vec<Bond>,
    findings: Findings,
    /// In the order of reading.
    files: Vec<Arc<Path>>,
}

impl Form {
    /// As it is written on the command line.
    fn name(self) -> &'static str {
        match self {
            Form::Ifcfg => "ifcfg",
            Form::Dracut => "dracut",
            Form::Interfaces => "interfaces",
        }
    }

    /// What is read unless it is named.
    fn usual(self) -> &'static [&'static str] {
        match self {
            Form::Ifcfg => &["/etc/sysconfig/network-scripts", "/etc/sysconfig/network"],
            Form::Dracut => &["/proc/cmdline"],
            Form::Interfaces => &["/etc/network/interfaces"],
        }
    }

    /// What a file should be.
    fn expected(self) -> &'static str {
        match self {
            Form::Ifcfg => "a file ifcfg-NAME or a folder of them",
            Form::Dracut => "a file with bond= in the words of a kernel's command line",
            Form::Interfaces => "a file with iface stanzas",
        }
    }

    /// Files of a folder that are read, in reading order.
    fn files(self, folder: &Path, findings: &mut Findings) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut paths = fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            let is_wanted = match self {
                Form::Ifcfg => ifcfg::is_wanted(&path, findings),
                Form::Dracut => path.extension().is_some_and(|extension| extension == "conf"),
                Form::Interfaces => interfaces::is_wanted(&path),
            };
            if is_wanted && !path.is_dir() {
                files.push(path);
            }
        }
        Ok(files)
    }
}

/// Reads files, or those of folders; `-` is standard input. No path: where the tool has them.
pub fn load(form: Form, paths: &[PathBuf], check: Check<'_>) -> Imported {
    let mut import = Import::default();
    // Of Red Hat's, the second is a file about other things.
    let is_there = |path: &PathBuf| path.is_dir() || path.exists() && form != Form::Ifcfg;
    let usual = || form.usual().iter().map(PathBuf::from).filter(is_there);
    let paths = match paths {
        [] => usual().collect(),
        _ => paths.to_vec(),
    };
    let mut texts = Vec::new();
    for path in &paths {
        let path = if path.as_os_str() == "-" {
            Path::new(STDIN)
        } else {
            path
        };
        import.files.push(Arc::from(path));
        let files = match path.is_dir() {
            true => form.files(path, &mut import.findings),
            false => Ok(vec![path.to_owned()]),
        };
        match files {
            Ok(files) => {
                for file in &files {
                    import.files.push(Arc::from(file.as_path()));
                    texts.extend(read(form, file, &mut import.findings));
                }
            }
            Err(e) => loader::whole_file(path, &e, form.expected(), &mut import.findings),
        }
    }
    let sourced = |pattern: &Path| {
        let found = expand::expand(pattern).into_iter().filter(|path| path.is_file());
        found
            .map(|path| {
                (
                    path.clone(),
                    loader::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
                )
            })
            .collect()
    };
    import.of(form, &texts, &sourced, check)
}

/// Reads texts that are there already; files that they name come from `sourced`.
pub fn import(form: Form, texts: &[Text], sourced: Sourced<'_>, check: Check<'_>) -> Imported {
    Import::default().of(form, texts, sourced, check)
}

fn read(form: Form, path: &Path, findings: &mut Findings) -> Option<Text> {
    let bytes = loader::read(path);
    let bytes = bytes.map_err(|e| loader::whole_file(path, &e, form.expected(), findings));
    Some(Text {
        path: Arc::from(path),
        text: loader::text(bytes.ok()?, path, findings),
    })
}

impl Import {
    fn of(mut self, form: Form, texts: &[Text], sourced: Sourced<'_>, check: Check<'_>) -> Imported {
        self.files.extend(texts.iter().map(|text| text.path.clone()));
        match form {
            Form::Ifcfg => ifcfg::read(texts, &mut self),
            Form::Dracut => dracut::read(texts, &mut self),
            Form::Interfaces => interfaces::read(texts, sourced, &mut self),
        }
        if self.bonds.is_empty() && self.findings.errors() == 0 {
            self.say_that_none_is_there(form);
        }
        let entries = write::entries(std::mem::take(&mut self.bonds), check, &mut self.findings);
        let mut diagnostics = self.findings.sorted(&self.files);
        for finding in &mut diagnostics {
            finding.text = write::plain(&finding.text);
        }
        Imported {
            text: write::text(form, &entries, &diagnostics),
            diagnostics,
        }
    }

    fn say_that_none_is_there(&mut self, form: Form) {
        let file = self.files.first().cloned();
        let looked = match file {
            Some(_) => String::new(),
            None => format!(" in {}, or a PATH", form.usual().join(" or ")),
        };
        let place = Place {
            file: file.unwrap_or_else(|| Arc::from(Path::new(form.name()))),
            line: 0,
        };
        let text = format!("no bond is here, expected {}{looked}", form.expected());
        self.findings.error(&place, text);
    }
}

/// The bond of this name, made at this place if it is not there.
fn named<'a>(bonds: &'a mut Vec<Bond>, name: &str, place: &Place) -> &'a mut Bond {
    let at = bonds.iter().position(|bond| bond.name == name).unwrap_or_else(|| {
        bonds.push(Bond::new(name, place));
        bonds.len() - 1
    });
    &mut bonds[at]
}

impl Bond {
    fn new(name: &str, place: &Place) -> Bond {
        Bond {
            name: name.to_owned(),
            place: place.clone(),
            options: Vec::new(),
            ports: Vec::new(),
            is_broken: false,
        }
    }

    /// Takes a word as scripts write it to the driver's files: the name is all up to the first `=`, the value what follows
    /// the last one. Targets add up, of other options the last value counts. [initscripts: ifup-eth; dracut: ifup.sh]
    fn write(&mut self, word: &str, place: &Place, findings: &mut Findings) {
        let name = word.split('=').next().unwrap_or(word).replace('-', "_");
        let value = word.rsplit('=').next().unwrap_or(word);
        if name.is_empty() || !word.contains('=') {
            self.is_broken |= name == "mode";
            let text = format!("{word:?} is not carried over: not an option, expected option=value");
            return findings.error(place, text);
        }
        if word.matches('=').count() > 1 {
            let text = format!("{word} is taken as {name}={value}, as the scripts take it, expected one =");
            findings.warning(place, text);
        }
        if name.ends_with("_target") {
            if self.has_room(value.split(',').count(), findings) {
                self.add_targets(&name, value, place);
            }
            return;
        }
        let option = SpecOption {
            name,
            value: value.to_owned(),
            place: place.clone(),
        };
        self.set(option, findings);
    }

    /// Gives an option its value; of two the later one counts.
    fn set(&mut self, option: SpecOption, findings: &mut Findings) {
        if !self.has_room(self.options.len(), findings) {
            return;
        }
        let (place, now) = (option.place.clone(), option.value.clone());
        if let Some(before) = option_list::set(&mut self.options, option).filter(|before| before.value != now) {
            let SpecOption { name, value, .. } = &before;
            let text = format!("{name} is given again, {value} at {} does not count", before.place);
            findings.warning(&place, text);
        }
    }

    fn add_targets(&mut self, name: &str, list: &str, place: &Place) {
        let targets: Vec<&str> = list
            .split(',')
            .map(|target| target.strip_prefix('+').unwrap_or(target))
            .collect();
        let more = targets.join(",");
        match self.options.iter_mut().find(|option| option.name == name) {
            Some(before) => before.value = format!("{},{more}", before.value),
            None => self.options.push(SpecOption {
                name: name.to_owned(),
                value: more,
                place: place.clone(),
            }),
        }
    }

    fn port(&mut self, name: &str, place: &Place, findings: &mut Findings) {
        if self.ports.iter().all(|(port, _)| port != name) && self.has_room(self.ports.len(), findings) {
            self.ports.push((name.to_owned(), place.clone()));
        }
    }

    /// Whether the limit is not reached yet.
    fn has_room(&mut self, many: usize, findings: &mut Findings) -> bool {
        if many >= MOST_WORDS && !std::mem::replace(&mut self.is_broken, true) {
            let text = format!(
                "{} has more than {MOST_WORDS} ports, options or targets, expected fewer",
                self.name
            );
            findings.error(&self.place, text);
        }
        many < MOST_WORDS
    }

    /// Of two monitors that are set one after the other the later one is left. [bond_options.c: bond_option_miimon_set]
    fn keep_last_monitor(&mut self, findings: &mut Findings) {
        let on = |name| switched_on(&self.options, name).cloned();
        let (Some(mii), Some(arp)) = (on("miimon"), on("arp_interval")) else {
            return;
        };
        let place = |name: &str| self.options.iter().position(|option| option.name == name);
        let (lost, kept) = if place("miimon") < place("arp_interval") {
            (mii, arp)
        } else {
            (arp, mii)
        };
        take(&mut self.options, &lost.name);
        let text = format!(
            "{}={} does not count, because {}={} is set after it, at {}, expected one monitor for a bond",
            lost.name, lost.value, kept.name, kept.value, kept.place
        );
        findings.warning(&lost.place, text);
    }
}

/// Adds what has to be said about a bond beyond its options.
fn by_hand(place: &Place, what: &str, command: &str, findings: &mut Findings) {
    let text = format!("{what} is no option of bondd, expected `{command}` where the addresses are set");
    findings.add(Severity::Warning, "by-hand", place, text);
}

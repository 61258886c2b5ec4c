//! Option files in the grammar that users know from modprobe: `alias <bond> bonding`, `options <bond> option=value ...`.
//!
//! Parse, don't validate: what comes out are bonds to make and everything that is wrong, with its place. Three steps: lines
//! and words (`lines`), directives (`modprobe`), bonds (`resolve`). Which options there are is not known here; the option
//! table is asked through a function. Only what the kernel's module does with its parameters, and options of a bond do not, is
//! here (`parameters`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub mod diagnostic;
mod lines;
mod modprobe;
pub mod names;
mod parameters;
mod resolve;

pub use diagnostic::{Diagnostic, Place, Severity};

use diagnostic::Findings;

/// Longest file in bytes; a longer one is not a file of options.
const LONGEST: u64 = 1024 * 1024;

/// What is wrong with the options of a new bond: the index of the option meant, or any larger number for what is missing, and
/// a sentence.
pub type Check<'a> = &'a dyn Fn(&[(String, String)]) -> Vec<(usize, String)>;

/// What the files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Bonds to make; not to be used if there are errors.
    pub bonds: Vec<BondSpec>,
    /// All findings, in the order of files and lines.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// Whether any finding is an error.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// A bond that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondSpec {
    /// Interface name.
    pub name: String,
    /// Defaults and its own, each name once.
    pub options: Vec<SpecOption>,
    /// Interfaces to attach, when they appear.
    pub ports: Vec<String>,
    /// The line that asks for it.
    pub place: Place,
}

impl BondSpec {
    /// Its options as names and values.
    pub fn pairs(&self) -> Vec<(String, String)> {
        self.options.iter().map(SpecOption::pair).collect()
    }
}

/// An option of a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecOption {
    /// With `_` for `-`.
    pub name: String,
    /// As written.
    pub value: String,
    /// Where it was given.
    pub place: Place,
}

impl SpecOption {
    fn pair(&self) -> (String, String) {
        (self.name.clone(), self.value.clone())
    }
}

/// Reads files, and folders' `*.conf`. Files count in the order given. Folders that follow each other are read as one, by
/// file name; of two files with the same name the one in the first folder counts.
pub fn load(paths: &[PathBuf], check: Check<'_>) -> Parsed {
    let mut findings = Findings::default();
    let mut sources = Vec::new();
    for path in expand(paths, &mut findings) {
        match read(&path) {
            Ok(text) => sources.push((path, text)),
            Err(e) => whole_file(&path, &e, &mut findings),
        }
    }
    let mut parsed = parse(&sources, check);
    findings.0.append(&mut parsed.diagnostics);
    parsed.diagnostics = findings.0;
    parsed
}

/// Reads texts that are there already, each with the name of its file.
pub fn parse(sources: &[(PathBuf, String)], check: Check<'_>) -> Parsed {
    let mut findings = Findings::default();
    let mut directives = Vec::new();
    for (path, text) in sources {
        directives.extend(modprobe::directives(&Arc::from(path.as_path()), text, &mut findings));
    }
    let bonds = resolve::resolve(&directives, check, &mut findings);
    let mut diagnostics = findings.0;
    diagnostics.sort_by_key(|d| {
        (
            sources.iter().position(|(path, _)| **path == *d.place.file),
            d.place.line,
        )
    });
    Parsed { bonds, diagnostics }
}

/// The files that are meant, in reading order.
fn expand(paths: &[PathBuf], findings: &mut Findings) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for path in paths {
        if !path.is_dir() {
            files.extend(std::mem::take(&mut folders).into_values());
            files.push(path.clone());
            continue;
        }
        match option_files(path) {
            Ok(found) => {
                for (name, file) in found {
                    folders.entry(name).or_insert(file);
                }
            }
            Err(e) => whole_file(path, &e, findings),
        }
    }
    files.extend(folders.into_values());
    files
}

/// `*.conf` of a folder, without hidden ones and folders. [modprobe.d(5)]
fn option_files(folder: &Path) -> io::Result<Vec<(OsString, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let (name, path) = entry.map(|e| (e.file_name(), e.path()))?;
        let hidden = name.as_encoded_bytes().starts_with(b".");
        if !hidden && path.extension().is_some_and(|e| e == "conf") && !path.is_dir() {
            found.push((name, path));
        }
    }
    Ok(found)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let length = File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
    if length as u64 > LONGEST {
        return Err(io::Error::other("longer than 1 MiB"));
    }
    Ok(text)
}

fn whole_file(path: &Path, error: &io::Error, findings: &mut Findings) {
    let place = Place {
        file: Arc::from(path),
        line: 0,
    };
    findings.error(
        &place,
        format!("cannot be read ({error}), expected a file of alias and options lines"),
    );
}

#[cfg(test)]
mod tests;

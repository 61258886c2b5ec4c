//! Option files in the grammars that users know from modprobe: `alias <bond> bonding`, `options <bond> option=value ...`.
//!
//! Parse, don't validate: texts go in; bonds to make, and every error with its place, come out. `loader` opens the files, and
//! `import` reads those of other tools.
//! Three grammars are read:
//!
//! - the agent's own: lines and words (`lines`), directives (`modprobe`), bonds (`resolve`);
//! - modules.conf of Linux 2.4 (`modutils`) and modprobe.d (`kmod`), as loads of the kernel's module (`module`):
//!   the result is the bonds that these programs and the driver would have made from the file. `unite` puts them together with
//!   the agent's own by name.
//!
//! The option table knows the options; this module only adds rules that hold for the kernel module's parameters but not for
//! options of a bond (`parameters`, `module`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub mod diagnostic;
pub mod grammar;
pub mod import;
mod legacy;
mod lines;
pub mod loader;
mod modprobe;
pub mod names;
mod parameters;
mod resolve;
mod unite;
mod unsupported;

pub use diagnostic::{Diagnostic, Place, Severity};
pub use grammar::Grammar;
pub use loader::{Disk, Files, NoFiles};

use diagnostic::Findings;
use legacy::module::{Made, Module};
use legacy::{kmod, modutils};

/// Checks the options of a new bond. Each error has the index of the option, or a larger number if an option is missing, and a
/// sentence.
pub type Check<'a> = &'a dyn Fn(&[(String, String)]) -> Vec<(usize, String)>;

/// Contents of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Bonds to make; not to be used if there are errors.
    pub bonds: Vec<BondSpec>,
    /// All findings, in the order of files and lines.
    pub diagnostics: Vec<Diagnostic>,
    /// Files that were read, in reading order.
    pub files: Vec<PathBuf>,
}

impl Parsed {
    /// Whether any finding is an error.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// A bond to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondSpec {
    /// Interface name.
    pub name: String,
    /// Its alias in a file for the module; `None` for bonds of `max_bonds` and of the module's own name.
    pub alias: Option<String>,
    /// Defaults and its own options, each name once, as they take effect.
    pub options: Vec<SpecOption>,
    /// The same as in the files, before corrections.
    pub given: Vec<SpecOption>,
    /// Interfaces to attach when they appear.
    pub ports: Vec<String>,
    /// The line that names the ports.
    pub ports_place: Option<Place>,
    /// The line of the bond.
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

/// A text with the name of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Of the file.
    pub path: PathBuf,
    /// Its contents.
    pub text: String,
    /// Its grammar.
    pub grammar: Grammar,
}

/// Reads files, and folders' `*.conf`, by this grammar, by default that of each file's name. No path: the usual folders.
pub fn load(paths: &[PathBuf], grammar: Option<Grammar>, check: Check<'_>) -> Parsed {
    let mut findings = Findings::default();
    let sources = loader::sources(paths, grammar, &mut findings);
    read(&sources, &Disk, check, findings)
}

/// Reads texts; files that they include come from `files`.
pub fn parse(sources: &[Source], files: &dyn Files, check: Check<'_>) -> Parsed {
    read(sources, files, check, Findings::default())
}

/// Finds the bonds that the kernel's module would make from each of its files, and merges them by name with the agent's own.
fn read(sources: &[Source], files: &dyn Files, check: Check<'_>, mut findings: Findings) -> Parsed {
    let mut order: Vec<Arc<Path>> = sources.iter().map(|source| Arc::from(source.path.as_path())).collect();
    let mut directives = Vec::new();
    for source in sources.iter().filter(|source| source.grammar == Grammar::Own) {
        directives.extend(own_directives(source, &mut findings));
    }
    let own = resolve::Own::new(&directives, &mut findings);
    let names = own.names();
    let mut modules: Vec<Made> = Vec::new();
    for source in sources.iter().filter(|source| source.grammar == Grammar::ModulesConf) {
        let mut module = Module::new(&names, check);
        modutils::load(source, files, &mut order, &mut module, &mut findings);
        modules.push(module.made);
    }
    let mut module = Module::new(&names, check);
    kmod::load(sources, &mut module, &mut findings);
    modules.push(module.made);
    let made = modules.iter().flat_map(|made| &made.bonds);
    let made = made.map(|bond| bond.name.clone()).collect();
    let own = own.bonds(&made, &mut findings);
    let mut bonds = unite::unite(own, modules, check, &mut findings);
    resolve::limit(&mut bonds, &mut findings);
    resolve::check_ports(&bonds, &mut findings);
    Parsed {
        bonds,
        files: order.iter().map(|file| file.to_path_buf()).collect(),
        diagnostics: findings.sorted(&order),
    }
}

fn own_directives(source: &Source, findings: &mut Findings) -> Vec<modprobe::DirectiveLine> {
    modprobe::directives(&Arc::from(source.path.as_path()), &source.text, findings)
}

#[cfg(test)]
mod tests;

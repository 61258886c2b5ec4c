//! Option files in the grammars that users know from modprobe: `alias <bond> bonding`, `options <bond> option=value ...`.
//!
//! Parse, don't validate: texts go in; bonds to make, and every error with its place, come out. `loader` opens the files.
//!
//! - bondd's own grammar: lines and words (`lines`), directives (`modprobe`), bonds (`resolve`);
//! - modules.conf of Linux 2.4 and modprobe.d, behind `legacy::load`: the result is the bonds that modutils, kmod and the driver
//!   would have made from the file;
//! - `unite` merges both by name, and `parameters` applies the driver's rules to the options of one bond;
//! - configurations of other tools, behind [`import`]: they are made into files of bondd's own grammar.
//!
//! The others are leaves, which know no reader: the data (`spec`, `diagnostic`, `grammar`), options as a list (`option_list`), names
//! and ports (`names`, `ports`), `limits`, words that more than one grammar knows (`directives`, `kernel_words`), and
//! the patterns of the shell (`pattern`).
//!
//! The option table knows the options; this module only adds rules that hold for the kernel module's parameters but not for
//! options of a bond (`parameters`, `legacy`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub mod diagnostic;
mod directives;
pub mod grammar;
pub mod import;
mod kernel_words;
mod legacy;
mod limits;
mod lines;
pub mod loader;
mod modprobe;
pub mod names;
mod option_list;
mod parameters;
mod pattern;
mod ports;
mod resolve;
mod spec;
mod unite;

pub use diagnostic::{Diagnostic, Place, Severity};
pub use grammar::Grammar;
pub use loader::{Disk, Files, NoFiles};
pub use spec::{BondSpec, Check, Source, SpecOption};

use diagnostic::Findings;

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
    let modules = legacy::load(sources, files, &names, check, &mut order, &mut findings);
    let made = modules.iter().flat_map(|made| &made.bonds);
    let made = made.map(|bond| bond.name.clone()).collect();
    let own = own.bonds(&made, &mut findings);
    let mut bonds = unite::unite(own, modules, check, &mut findings);
    resolve::limit(&mut bonds, &mut findings);
    ports::check_ports(&bonds, &mut findings);
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

//! What is read and what is made of it: texts of files, bonds with their options.

use std::path::PathBuf;

use super::diagnostic::Place;
use super::grammar::Grammar;

/// Checks the options of a new bond. Each error has the index of the option, or a larger number if an option is missing, and a
/// sentence.
pub type Check<'a> = &'a dyn Fn(&[(String, String)]) -> Vec<(usize, String)>;

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
    /// Its name and value.
    pub(super) fn pair(&self) -> (String, String) {
        (self.name.clone(), self.value.clone())
    }
}

/// A text with the name of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Of the file.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// Its grammar.
    pub grammar: Grammar,
}

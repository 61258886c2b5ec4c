//! What is read and what is made of it: texts of files, bonds with their options.

use std::path::PathBuf;

use super::diagnostic::Place;
use super::grammar::Grammar;

/// What is wrong with the options of a new bond: the index of the option meant, or any larger number for what is missing, and
/// a sentence.
pub type Check<'a> = &'a dyn Fn(&[(String, String)]) -> Vec<(usize, String)>;

/// A bond that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondSpec {
    /// Interface name.
    pub name: String,
    /// The name under which a module's file asks for it; none for what `max_bonds` adds and for the module's own name.
    pub alias: Option<String>,
    /// Defaults and its own, each name once, as they count.
    pub options: Vec<SpecOption>,
    /// The same as the files have them, before what does not count was left out or corrected.
    pub given: Vec<SpecOption>,
    /// Interfaces to attach, when they appear.
    pub ports: Vec<String>,
    /// The line that names them.
    pub ports_place: Option<Place>,
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
    /// What is in it.
    pub text: String,
    /// The rules by which it is read.
    pub grammar: Grammar,
}

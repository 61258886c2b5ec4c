//! Findings in option files, each with its place; all are reported at once.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// As named on the command line, or found in a folder named there.
    pub file: Arc<Path>,
    /// First physical line of the logical line, from 1; 0 for the file as a whole.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        Ok(())
    }
}

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The files must not be used.
    Error,
    /// Usable, but probably a mistake.
    Warning,
    /// Worth knowing.
    Info,
}

/// The kind of a finding.
pub type Code = Cow<'static, str>;

/// One finding, shown as `file:line: problem, expected value`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    /// Where.
    pub place: Place,
    /// How much it matters.
    pub severity: Severity,
    /// Its kind, for programs; empty if it has none.
    pub code: Code,
    /// The problem and the expected value.
    pub text: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
            Severity::Info => "note: ",
        };
        write!(f, "{}: {word}{}", self.place, self.text)
    }
}

/// Collects findings, each once, because options shared by several bonds are checked for each of them.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Diagnostic>,
    seen: HashSet<Diagnostic>,
    errors: usize,
}

impl Findings {
    pub(super) fn error(&mut self, place: &Place, text: impl Into<String>) {
        self.add(Severity::Error, "", place, text.into());
    }

    pub(super) fn warning(&mut self, place: &Place, text: impl Into<String>) {
        self.add(Severity::Warning, "", place, text.into());
    }

    pub(super) fn info(&mut self, place: &Place, text: impl Into<String>) {
        self.add(Severity::Info, "", place, text.into());
    }

    /// Number of errors, repeated ones included.
    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    /// All findings, in the order of these files and of lines; those of one line in the order in which they were added.
    pub(super) fn sorted(mut self, files: &[Arc<Path>]) -> Vec<Diagnostic> {
        let order: HashMap<&Arc<Path>, usize> = files.iter().enumerate().map(|(at, file)| (file, at)).collect();
        self.list.sort_by_key(|d| (order.get(&d.place.file), d.place.line));
        self.list
    }

    pub(super) fn add(&mut self, severity: Severity, code: impl Into<Code>, place: &Place, text: String) {
        self.errors += usize::from(severity == Severity::Error);
        let finding = Diagnostic {
            place: place.clone(),
            severity,
            code: code.into(),
            text,
        };
        if self.seen.insert(finding.clone()) {
            self.list.push(finding);
        }
    }
}

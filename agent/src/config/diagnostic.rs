//! Findings in option files: all of them at once, each with its place.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As it was named on the command line, or found in a folder named there.
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

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing of what was read may be used.
    Error,
    /// Usable, but probably not what was meant.
    Warning,
    /// Worth knowing.
    Info,
}

/// One finding; shown as `file:line: what, expected what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where.
    pub place: Place,
    /// How much it matters.
    pub severity: Severity,
    /// What was found and what was expected.
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

/// Collects findings while reading, each once: what many bonds share is looked at again for each of them.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Diagnostic>);

impl Findings {
    pub(super) fn error(&mut self, place: &Place, text: impl Into<String>) {
        self.add(Severity::Error, place, text.into());
    }

    pub(super) fn warning(&mut self, place: &Place, text: impl Into<String>) {
        self.add(Severity::Warning, place, text.into());
    }

    pub(super) fn info(&mut self, place: &Place, text: impl Into<String>) {
        self.add(Severity::Info, place, text.into());
    }

    fn add(&mut self, severity: Severity, place: &Place, text: String) {
        let finding = Diagnostic {
            place: place.clone(),
            severity,
            text,
        };
        if !self.0.contains(&finding) {
            self.0.push(finding);
        }
    }
}

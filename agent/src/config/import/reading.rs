//! What a reader of another tool's files is given, and what it fills.

use std::path::Path;
use std::sync::Arc;

use super::bond::Bond;
use crate::config::diagnostic::Findings;

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Its path as given.
    pub path: Arc<Path>,
    /// Its contents.
    pub text: String,
}

/// Result of a reader.
#[derive(Debug, Default)]
pub(super) struct Import {
    pub(super) bonds: Vec<Bond>,
    pub(super) findings: Findings,
    /// In the order of reading.
    pub(super) files: Vec<Arc<Path>>,
}

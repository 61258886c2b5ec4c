//! What a reader of another tool's files is given, and what it fills.

use std::path::Path;
use std::sync::Arc;

use super::bond::Bond;
use crate::config::diagnostic::Findings;

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// As it was named.
    pub path: Arc<Path>,
    /// What is in it.
    pub text: String,
}

/// What a reader fills.
#[derive(Debug, Default)]
pub(super) struct Import {
    pub(super) bonds: Vec<Bond>,
    pub(super) findings: Findings,
    /// In the order of reading.
    pub(super) files: Vec<Arc<Path>>,
}

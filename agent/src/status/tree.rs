//! Files and links before they are written.

use std::collections::BTreeMap;

/// Files and links by their path under the run directory.
pub type Tree = BTreeMap<String, Entry>;

/// The entry at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file with this text.
    File(String),
    /// A symbolic link to this target.
    Link(String),
}

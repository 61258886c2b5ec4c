//! How far the thread is, for the loop.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// A file with a saved state that could not be written, or could again.
pub(super) type Outcome = (PathBuf, io::Result<()>);

/// What the thread says of itself.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Every awaited note up to this one is done.
    pub(super) done: AtomicU64,
    /// How many things it has done, each a saved state or the files of a bond.
    pub(super) steps: AtomicU64,
    /// The loop was refused, and is to be woken up when there is room.
    pub(super) refused: AtomicBool,
    /// It does nothing, as on a disk that does not answer.
    #[cfg(test)]
    pub(super) held: AtomicBool,
    /// It is to panic.
    #[cfg(test)]
    pub(super) panics: AtomicBool,
}

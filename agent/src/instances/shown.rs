//! The state that the files of a bond show: they are written anew when it has changed.

use bond_modes::{BondOptions, Snapshot};

/// The bond machine's state when the files were rendered last.
pub(super) struct Shown {
    pub(super) state: Snapshot,
    pub(super) options: BondOptions,
}

//! The contents of a bond's status files. They are written again when the contents differ, whatever changed them.

use bond_modes::{BondOptions, Snapshot};

/// What the bond machine said of itself when the files were rendered last.
pub(super) struct Shown {
    pub(super) state: Snapshot,
    pub(super) options: BondOptions,
}

//! What the files show of a bond: they are written anew when it is not what it was, whatever led to that.

use bond_modes::{BondOptions, Snapshot};

/// What the bond machine said of itself when the files were rendered last.
pub(super) struct Shown {
    pub(super) state: Snapshot,
    pub(super) options: BondOptions,
}

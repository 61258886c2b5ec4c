//! What the files show of a bond: they are written anew when it is not what it was, whatever led to that.

use bond_modes::{BondOptions, Snapshot};
use bond_monitors::Time;

use super::{Instance, Instances};

/// What the bond machine said of itself when the files were rendered last.
pub(super) struct Shown {
    state: Snapshot,
    options: BondOptions,
}

impl Instances {
    /// Marks a bond whose files show something else than it says now. Asked after every turn in which it was told anything.
    pub(super) fn compare_with_files(&mut self, now: Time, at: usize) {
        let instance = &mut self.bonds[at];
        if !std::mem::take(&mut instance.touched) && !instance.dirty {
            return;
        }
        let state = instance.bond.snapshot_without_options(now).without_ages();
        let same = |shown: &Shown| shown.state == state && shown.options == *instance.bond.options();
        if !instance.shown.as_ref().is_some_and(same) {
            let options = instance.bond.options().clone();
            instance.shown = Some(Shown { state, options });
            instance.dirty = true;
        }
    }
}

impl Instance {
    /// Something was fed to the bond machine, so what it says of itself may have changed.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }
}

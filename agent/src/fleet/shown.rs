//! What the files show of a bond: they are written anew when it is not what it was, whatever led to that.

use bond_modes::{BondOptions, Snapshot};
use bond_monitors::Time;

use super::{Fleet, Member};

/// What the bond machine said of itself when the files were rendered last.
pub(super) struct Shown {
    state: Snapshot,
    options: BondOptions,
}

impl Fleet {
    /// Marks a bond whose files show something else than it says now. Asked after every turn in which it was told anything.
    pub(super) fn compare_with_files(&mut self, now: Time, at: usize) {
        let member = &mut self.bonds[at];
        if !std::mem::take(&mut member.touched) && !member.dirty {
            return;
        }
        let state = member.bond.snapshot_without_options(now).without_ages();
        let same = |shown: &Shown| shown.state == state && shown.options == *member.bond.options();
        if !member.shown.as_ref().is_some_and(same) {
            let options = member.bond.options().clone();
            member.shown = Some(Shown { state, options });
            member.dirty = true;
        }
    }
}

impl Member {
    /// Something was fed to the bond machine, so what it says of itself may have changed.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }
}

//! Links that are told in a row: a switch that dies takes many ports of a bond along, and the kernel tells of one after the other.
//!
//! A bond that spreads its frames over several ports gets one plan for all of them: else each plan but the last would send through
//! ports of which it is known already that they are dead, and each costs a list of ports, of which there are few. Other bonds have
//! one port that counts, and do not wait for events of others.

use std::collections::BTreeSet;

use bond_modes::plan::{Spread, Tx};

use super::id::InstanceId;

/// What is left to do at the end of a row.
#[derive(Default)]
pub(super) struct Row {
    is_told: bool,
    /// Bonds that were told of links, and whose actions were not carried out yet.
    fed: BTreeSet<InstanceId>,
}

impl Row {
    /// Whether a row begins, and is not part of another one.
    pub(super) fn begins(&mut self) -> bool {
        !std::mem::replace(&mut self.is_told, true)
    }

    /// Whether a bond that sends like this and was told of a link waits for the end of the row.
    pub(super) fn takes(&mut self, at: InstanceId, tx: &Tx) -> bool {
        let waits = self.is_told && tx.kind != Spread::One;
        if waits {
            self.fed.insert(at);
        }
        waits
    }

    /// The row has ended. Returns the bonds whose actions are to be carried out now.
    pub(super) fn end(&mut self) -> BTreeSet<InstanceId> {
        self.is_told = false;
        std::mem::take(&mut self.fed)
    }
}

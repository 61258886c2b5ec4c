//! Links that are told in a row: a switch that dies takes many ports of a bond along, and the kernel tells of one after the other.
//!
//! A bond that spreads its frames over several ports gets one plan for all of them: else each plan but the last would send through
//! ports of which it is known already that they are dead, and each costs a list of ports, of which there are few. Other bonds have
//! one port that counts, and do not wait for events of others.

use std::collections::BTreeSet;

use bond_modes::plan::Spread;
use bond_modes::{Event, Machine, PortId};
use bond_monitors::{LinkReport, Time};

use super::Instances;
use super::id::InstanceId;

/// What is left to do at the end of a row.
#[derive(Default)]
pub(super) struct Row {
    is_told: bool,
    /// Bonds that were told of links, and whose actions were not carried out yet.
    fed: BTreeSet<InstanceId>,
}

impl Instances {
    /// Tells of links by `tell`, which leaves no more to the end of the row than a turn may do.
    pub(super) fn in_a_row(&mut self, now: Time, tell: impl FnOnce(&mut Instances)) {
        if std::mem::replace(&mut self.row.is_told, true) {
            return tell(self);
        }
        tell(self);
        self.row.is_told = false;
        for at in std::mem::take(&mut self.row.fed) {
            if self.bonds.get(at).is_some() {
                self.drain(now, at);
            }
        }
    }

    /// As [`Instances::feed`], with the state of a port's link.
    pub(super) fn feed_link(&mut self, now: Time, at: InstanceId, port: PortId, report: LinkReport) {
        let event = Event::Link { port, report };
        if self.row.is_told && self.bonds[at].bond.plan().tx.kind != Spread::One {
            self.bonds[at].bond.handle_event(now, event);
            self.row.fed.insert(at);
        } else {
            self.feed(now, at, event);
        }
    }
}

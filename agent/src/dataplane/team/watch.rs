//! Options that somebody else changes, such as with teamnl(8).
//!
//! The driver also reports our own changes, some time later, and a value may have been changed and changed back. So a report is
//! only a reason to read the options; what they say then decides.

use std::collections::BTreeSet;
use std::io;

use super::TeamPlane;
use super::genl::Change;
use crate::dataplane::{BondName, Touched};
use crate::netlink::Drained;

impl TeamPlane {
    /// The bonds whose options are not those in force any more, from up to `budget` messages.
    pub(super) fn read_changes(&mut self, budget: usize) -> io::Result<Touched> {
        let mut heard = Vec::new();
        let drained = self.events.read(budget, &mut heard)?;
        Ok(Touched {
            bonds: self.judge(&heard),
            more: drained == Drained::More,
        })
    }

    /// The bonds whose options really differ from those in force.
    pub(super) fn judge(&mut self, heard: &[Change]) -> BTreeSet<BondName> {
        let mut touched = BTreeSet::new();
        for (name, bond) in &mut self.bonds {
            let suspicious = |change: &Change| match change {
                Change::Overrun => true,
                Change::Option { team, key, value } => {
                    *team == bond.ifindex && bond.settings.get(key).is_some_and(|known| known != value)
                }
            };
            if !heard.iter().any(suspicious) {
                continue;
            }
            // A device that cannot be asked is going away, and its own event tells.
            let Ok(now) = self.driver.options(bond.ifindex) else {
                continue;
            };
            let differs = |(key, value)| now.get(key).is_some_and(|now| now != value);
            if !bond.settings.iter().any(differs) {
                continue;
            }
            touched.insert(name.clone());
        }
        touched
    }
}

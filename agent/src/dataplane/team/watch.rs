//! Options that somebody else changes, such as with teamnl(8).
//!
//! Our own changes are told, too, some time later, and a value may have been changed and changed back. So an event only raises a
//! suspicion; what the driver says when asked decides.

use std::collections::BTreeSet;
use std::io;

use super::TeamPlane;
use super::genl::Change;
use crate::dataplane::{BondName, Touched};
use crate::netlink::Drained;

impl TeamPlane {
    /// The bonds whose options are not those in force any more, by up to `budget` messages.
    pub(super) fn read_changes(&mut self, budget: usize) -> io::Result<Touched> {
        let mut heard = Vec::new();
        let drained = self.events.read(budget, &mut heard)?;
        Ok(Touched {
            bonds: self.judge(&heard),
            more: drained == Drained::More,
        })
    }

    /// The bonds of which this was heard with reason.
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

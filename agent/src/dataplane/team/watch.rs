//! Options that another program changes, such as with teamnl(8).
//!
//! The driver also reports our own changes, some time later, and a value may have been changed and changed back. So a report is
//! only a reason to read the options; what they say then decides.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::TeamPlane;
use super::bond::{Bond, Shared};
use super::genl::Change;
use crate::dataplane::lock::lock;
use crate::dataplane::{Touched, Watch};
use crate::netlink::Drained;

impl Watch for TeamPlane {
    fn event_fd(&self) -> RawFd {
        lock(&self.shared).events.as_raw_fd()
    }

    fn read_events(&mut self, budget: usize) -> io::Result<Touched> {
        let mut heard = Vec::new();
        let drained = lock(&self.shared).events.read(budget, &mut heard)?;
        Ok(Touched {
            devices: self.changed_by_others(&heard),
            more: drained == Drained::More,
        })
    }
}

impl TeamPlane {
    /// The bonds that these reports show as changed by others, by the indexes of their interfaces.
    pub(super) fn changed_by_others(&self, heard: &[Change]) -> BTreeSet<u32> {
        let shared = &mut *lock(&self.shared);
        let bonds = self.watched.iter().filter_map(|bond| bond.upgrade());
        bonds
            .filter_map(|bond| {
                let bond = lock(&bond);
                shared.is_changed(&bond, heard).then_some(bond.ifindex)
            })
            .collect()
    }
}

impl Shared {
    /// Whether another program changed an option of a bond, judged by these reports.
    fn is_changed(&mut self, bond: &Bond, heard: &[Change]) -> bool {
        let differs_from_ours = |change: &Change| match change {
            Change::Overrun => true,
            Change::Option { team, key, value } => {
                *team == bond.ifindex && bond.settings.get(key).is_some_and(|known| known != value)
            }
        };
        if !heard.iter().any(differs_from_ours) {
            return false;
        }
        // A device that does not answer is going away, and its own event reports that.
        let Ok(now) = self.driver.options(bond.ifindex) else {
            return false;
        };
        let differs = |(key, value)| now.get(key).is_some_and(|now| now != value);
        bond.settings.iter().any(differs)
    }
}

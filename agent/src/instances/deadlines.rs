//! When each instance has something to do: the earliest without a search.

use std::collections::{BTreeMap, BTreeSet};

use bond_monitors::Time;

use super::id::InstanceId;

/// At most one deadline for each instance.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_time: BTreeSet<(Time, InstanceId)>,
    of: BTreeMap<InstanceId, Time>,
}

impl Deadlines {
    pub(super) fn set(&mut self, id: InstanceId, due: Option<Time>) {
        let before = match due {
            Some(due) => self.of.insert(id, due),
            None => self.of.remove(&id),
        };
        if let Some(before) = before {
            self.by_time.remove(&(before, id));
        }
        self.by_time.extend(due.map(|due| (due, id)));
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// Those whose deadline has come, the longest overdue first.
    pub(super) fn due(&self, now: Time) -> Vec<InstanceId> {
        let due = self.by_time.iter().take_while(|(due, _)| *due <= now);
        due.map(|(_, id)| *id).collect()
    }
}

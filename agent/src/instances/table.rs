//! The instances of this agent, with indexes over them.
//!
//! Taking an instance to change it marks it, and marked ones are indexed again before the next look into an index. So no index can
//! be forgotten, and no fact costs a search through all instances.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::ops::{Index, IndexMut};

use bond_modes::PortId;
use bond_monitors::Time;

use super::deadlines::Deadlines;
use super::id::InstanceId;
use super::instance::Instance;
use super::owners::Owners;

/// All instances, in the order in which they were made, or found at the start.
#[derive(Default)]
pub(super) struct Table {
    instances: BTreeMap<InstanceId, Instance>,
    /// How many there have been.
    made: u32,
    owners: Owners,
    deadlines: Deadlines,
    /// When wanted ports are tried again.
    attempts: Deadlines,
    /// Changed, perhaps, since they were indexed.
    marked: BTreeSet<InstanceId>,
    /// Changed, perhaps, in this turn of the loop.
    of_turn: BTreeSet<InstanceId>,
    /// Those whose files are out of date.
    dirty: BTreeSet<InstanceId>,
}

impl Table {
    /// Adds an instance behind the others.
    pub(super) fn insert(&mut self, instance: Instance) -> InstanceId {
        let id = self.reserve();
        self.insert_at(id, instance);
        id
    }

    /// A place behind the others, for an instance that comes later.
    pub(super) fn reserve(&mut self) -> InstanceId {
        self.made += 1;
        InstanceId(self.made)
    }

    /// Adds an instance at the place that was reserved for it.
    pub(super) fn insert_at(&mut self, id: InstanceId, instance: Instance) {
        self.instances.insert(id, instance);
        self.mark(id);
    }

    pub(super) fn remove(&mut self, id: InstanceId) -> Instance {
        let removed = self.instances.remove(&id).expect("an instance of this table");
        self.mark(id);
        removed
    }

    pub(super) fn get(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// All of them, to be changed: it costs an indexing of all.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Instance> {
        self.marked.extend(self.instances.keys());
        self.of_turn.extend(self.instances.keys());
        self.instances.values_mut()
    }

    pub(super) fn ids(&self) -> Vec<InstanceId> {
        self.instances.keys().copied().collect()
    }

    /// The instance that has this port.
    pub(super) fn owner_of(&mut self, port: PortId) -> Option<InstanceId> {
        self.owners().ports.first(&port)
    }

    /// The instance with this interface.
    pub(super) fn on_device(&mut self, ifindex: u32) -> Option<InstanceId> {
        self.owners().devices.first(&ifindex)
    }

    /// The instance of this name.
    pub(super) fn named(&mut self, name: &str) -> Option<InstanceId> {
        self.owners().names.first(name)
    }

    /// The instance that waits for a port of this name, or has it.
    pub(super) fn wanting(&mut self, port: &str) -> Option<InstanceId> {
        self.owners().wanted.first(port)
    }

    /// All instances that wait for a port of this name, or have it.
    pub(super) fn all_wanting(&mut self, port: &str) -> Vec<InstanceId> {
        self.owners().wanted.all(port)
    }

    /// The instances that keep original settings of this interface, which is no port and has not got them back.
    pub(super) fn keeping(&mut self, port: PortId) -> Vec<InstanceId> {
        self.owners().unrestored.all(&port)
    }

    /// All interfaces whose original settings an instance keeps so.
    pub(super) fn left_ports(&mut self) -> Vec<PortId> {
        self.owners().unrestored.keys()
    }

    /// The instances with this interface, or with addresses on it.
    pub(super) fn below(&mut self, ifindex: u32) -> Vec<InstanceId> {
        self.owners().above.all(&ifindex)
    }

    /// The earliest deadline of an instance.
    pub(super) fn poll_timeout(&mut self) -> Option<Time> {
        self.index();
        self.deadlines.next()
    }

    /// The instances with a deadline that has come.
    pub(super) fn due(&mut self, now: Time) -> Vec<InstanceId> {
        self.index();
        self.deadlines.due(now)
    }

    /// The earliest time when a wanted port is tried again.
    pub(super) fn attempts_timeout(&mut self) -> Option<Time> {
        self.index();
        self.attempts.next()
    }

    /// The instances with a wanted port that is to be tried again.
    pub(super) fn attempts_due(&mut self, now: Time) -> Vec<InstanceId> {
        self.index();
        self.attempts.due(now)
    }

    /// The instances whose files are out of date, those after `last` first; so many at most.
    pub(super) fn dirty_after(&mut self, last: Option<InstanceId>, most: usize) -> Vec<InstanceId> {
        self.index();
        let first = self.dirty.range((last.map_or(Unbounded, Excluded), Unbounded));
        let rest = last.map(|last| self.dirty.range(..=last)).into_iter().flatten();
        first.chain(rest).take(most).copied().collect()
    }

    /// Whether the files of this instance are out of date.
    pub(super) fn is_dirty(&mut self, id: InstanceId) -> bool {
        self.index();
        self.dirty.contains(&id)
    }

    pub(super) fn has_dirty(&mut self) -> bool {
        self.index();
        !self.dirty.is_empty()
    }

    /// The instances that may have changed in this turn.
    pub(super) fn of_turn(&self) -> Vec<InstanceId> {
        let changed = self.of_turn.iter().copied();
        changed.filter(|id| self.instances.contains_key(id)).collect()
    }

    /// A new turn begins.
    pub(super) fn end_turn(&mut self) {
        self.of_turn.clear();
    }

    fn mark(&mut self, id: InstanceId) {
        self.marked.insert(id);
        self.of_turn.insert(id);
    }

    fn owners(&mut self) -> &Owners {
        self.index();
        &self.owners
    }

    fn index(&mut self) {
        while let Some(id) = self.marked.pop_first() {
            let instance = self.instances.get(&id);
            self.owners.set(id, instance);
            self.deadlines.set(id, instance.and_then(Instance::poll_timeout));
            self.attempts
                .set(id, instance.and_then(|instance| instance.attempts.timeout()));
            if instance.is_some_and(|instance| instance.dirty) {
                self.dirty.insert(id);
            } else {
                self.dirty.remove(&id);
            }
        }
    }
}

impl Index<InstanceId> for Table {
    type Output = Instance;

    fn index(&self, id: InstanceId) -> &Instance {
        &self.instances[&id]
    }
}

impl IndexMut<InstanceId> for Table {
    fn index_mut(&mut self, id: InstanceId) -> &mut Instance {
        self.mark(id);
        self.instances.get_mut(&id).expect("an instance of this table")
    }
}

#[cfg(test)]
impl Table {
    pub(super) fn len(&self) -> usize {
        self.instances.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }
}

/// The first one of a table.
#[cfg(test)]
pub(super) const FIRST: InstanceId = InstanceId(1);

/// By its place among all.
#[cfg(test)]
impl Index<usize> for Table {
    type Output = Instance;

    fn index(&self, place: usize) -> &Instance {
        self.instances.values().nth(place).expect("there are as many")
    }
}

#[cfg(test)]
impl IndexMut<usize> for Table {
    fn index_mut(&mut self, place: usize) -> &mut Instance {
        let id = self.ids()[place];
        &mut self[id]
    }
}

//! Keeps the files of bonds up to date.

use std::time::Duration;

use bond_monitors::Time;

use super::id::InstanceId;
use super::instance::Instance;
use super::shown::Shown;
use super::{Counters, Instances};
use crate::status;

/// Bonds whose files one turn writes at most: after a failover of many bonds the next event must not wait for all their files.
pub(super) const PUBLISHED_A_TURN: usize = 8;

/// The pause before a state that could not be saved is saved again.
const SAVE_RETRY: Duration = Duration::from_secs(1);

impl Instances {
    /// Brings the files of some bonds up to date; ends every turn of the loop.
    pub fn publish(&mut self, now: Time) {
        self.publish_some(now, PUBLISHED_A_TURN);
    }

    /// Brings the files of all bonds up to date.
    pub fn publish_all(&mut self, now: Time) {
        self.publish_some(now, usize::MAX);
    }

    /// Whether the files of a bond are out of date: call [`Instances::publish`] without waiting for anything else.
    pub fn has_unpublished(&mut self) -> bool {
        self.bonds.has_dirty()
    }

    fn publish_some(&mut self, now: Time, most: usize) {
        for at in self.bonds.of_turn() {
            self.compare_with_files(now, at);
        }
        let mut dirty = self.bonds.dirty_after(self.last_published);
        dirty.truncate(most);
        for at in dirty {
            self.last_published = Some(at);
            self.bonds[at].dirty = false;
            self.bonds[at].unsaved = self.try_save(at).is_err();
            if self.bonds[at].unsaved {
                self.save_again_at.get_or_insert(now + SAVE_RETRY);
            }
            let report = self.report(now, at, Counters::Unread);
            let instance = &self.bonds[at];
            let tree = status::render(&report, instance.bond.options(), &instance.devices, &self.release);
            self.publisher.update(&report.name, tree);
        }
        if self.store.has_unremoved() || self.left_unsaved {
            self.save_again_at.get_or_insert(now + SAVE_RETRY);
        }
        self.publisher.flush(now);
    }

    /// Writes again, if it is time, what could not be written: the disk was full, say.
    pub(super) fn save_again(&mut self, now: Time) {
        if self.save_again_at.take_if(|at| *at <= now).is_some() {
            for instance in self.bonds.iter_mut() {
                instance.dirty |= instance.unsaved;
            }
            self.store.remove_again();
            if self.left_unsaved {
                self.save_left();
            }
        }
    }

    /// Removes what an earlier agent left behind, but not the files of bonds that are still to be adopted: they show what forwards.
    pub(super) fn prune_files(&mut self, now: Time) {
        if !self.has_unadopted() {
            self.publisher.prune(now);
        }
    }

    /// Brings files up to date without delay, so that a client finds its change in them when it is answered.
    pub fn publish_at_once(&mut self, now: Time) {
        for at in self.bonds.of_turn() {
            self.compare_with_files(now, at);
        }
        for at in self.bonds.dirty_after(None) {
            self.publisher
                .publish_now(&self.bonds.get(at).expect("it is dirty").name);
        }
        self.publish_all(now);
    }

    /// Marks a bond whose files differ from its state. Called after every turn in which the bond machine had an event.
    pub(super) fn compare_with_files(&mut self, now: Time, at: InstanceId) {
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
    /// The bond machine had an event, so its state may have changed.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }
}

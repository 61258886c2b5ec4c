//! Keeps the files of bonds up to date: says what they are to show, and leaves it to a thread to write that.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::time::Duration;

use bond_monitors::Time;

use super::id::InstanceId;
use super::instance::Instance;
use super::saving::SAVE_RETRY;
use super::shown::Shown;
use super::{Counters, Instances};
use crate::status::writer::{Mark, Urgency};
use crate::status::{Page, StatusFiles, sysfs};

/// Bonds that one turn hands over at most: after a failover of many bonds the next event must not wait for all their reports.
pub(super) const PUBLISHED_A_TURN: usize = 8;

impl Instances {
    /// Hands over what the files of some bonds are to show; ends every turn of the loop.
    pub fn publish(&mut self, now: Time) {
        self.take_unsaved(now);
        self.compare_all_of_turn(now);
        let dirty = self.bonds.dirty_after(self.last_published, PUBLISHED_A_TURN);
        self.hand_over(now, &dirty, Urgency::Usual);
    }

    /// Brings the files of all bonds up to date, and waits for that; see [`Writer::settle`](crate::status::writer::Writer::settle).
    pub fn publish_all(&mut self, now: Time) {
        self.compare_all_of_turn(now);
        self.forget_unsaved();
        loop {
            let dirty = self.bonds.dirty_after(None, usize::MAX);
            let all = self.hand_over(now, &dirty, Urgency::Usual);
            if !self.writer.settle() {
                return;
            }
            self.take_unsaved(now);
            // Nothing older is left to be written over it.
            self.save_at_once(now);
            if all {
                return;
            }
        }
    }

    /// What a start waited for does not count for [`Instances::are_files_written`].
    pub fn look_at_files_anew(&mut self) {
        (self.owed_files, self.settling) = (None, None);
    }

    /// Whether the files have shown what there is since this was first asked. It is asked again and again, with turns in between, which
    /// write them.
    pub fn are_files_written(&mut self) -> bool {
        // What changes from now on is not waited for: a cable that flaps would keep the files out of date for ever.
        let bonds = &mut self.bonds;
        let owed = self
            .owed_files
            .get_or_insert_with(|| bonds.dirty_after(None, usize::MAX).into_iter().collect());
        owed.retain(|at| bonds.get(*at).is_some());
        if self.settling.is_none() && (self.prune_due || !owed.is_empty()) {
            return false;
        }
        self.settling.get_or_insert_with(|| self.writer.settling()).is_done()
    }

    /// See [`Writer::give_up`](crate::status::writer::Writer::give_up).
    pub fn give_up_files(&mut self, waited: Duration) {
        self.writer.give_up(waited);
    }

    /// See [`Writer::steps`](crate::status::writer::Writer::steps).
    pub fn steps_of_files(&self) -> u64 {
        self.writer.steps()
    }

    /// Whether the files of a bond are out of date: call [`Instances::publish`] without waiting for anything else.
    pub fn has_unpublished(&mut self) -> bool {
        self.bonds.has_dirty() && self.writer.has_room()
    }

    /// Hands over the bond that a client has changed. It is to be answered when [`Instances::is_published`] says so of what this
    /// returns, so that it finds its change in the files.
    pub fn publish_at_once(&mut self, now: Time, bond: Option<&str>) -> Mark {
        self.compare_all_of_turn(now);
        let changed = bond.and_then(|bond| self.bonds.named(bond));
        let dirty: Vec<InstanceId> = changed.filter(|at| self.bonds.is_dirty(*at)).into_iter().collect();
        self.hand_over(now, &dirty, Urgency::Awaited);
        self.writer.mark()
    }

    /// Whether all files that were to be published at once are written, or were tried in vain.
    pub fn is_published(&self, mark: Mark) -> bool {
        self.writer.has_written(mark)
    }

    /// Readable when more is published than before. Read it with [`Instances::read_published`].
    pub fn published_events(&self) -> RawFd {
        self.writer.events()
    }

    /// Makes [`Instances::published_events`] unreadable until the next time.
    pub fn read_published(&mut self) {
        self.writer.drain();
    }

    fn compare_all_of_turn(&mut self, now: Time) {
        for at in self.bonds.of_turn() {
            self.compare_with_files(now, at);
        }
    }

    /// Saves bonds and hands over what their files are to show; whether there was room for all.
    fn hand_over(&mut self, now: Time, dirty: &[InstanceId], urgency: Urgency) -> bool {
        let mut room = true;
        for &at in dirty {
            room = self.writer.has_room();
            if !room {
                break;
            }
            self.last_published = Some(at);
            self.save_later(now, at);
            self.note_folders(now, at);
            let report = self.report(now, at, Counters::Unread);
            let instance = &self.bonds[at];
            let page = Page {
                report,
                options: instance.bond.options().clone(),
                devices: instance.devices.clone(),
                files: self.status_files,
                age: at.0.into(),
            };
            room = self.writer.show(Box::new(page), urgency);
            self.bonds[at].dirty = !room;
            if room && let Some(owed) = &mut self.owed_files {
                owed.remove(&at);
            }
        }
        let is_removed = self.left.remove_again || !self.store.has_unremoved();
        let is_left_saved = self.left.changed || !self.left.unsaved;
        // What is to be done again now is not put off.
        if !(is_removed && is_left_saved) {
            self.save_again_at.get_or_insert(now + SAVE_RETRY);
        }
        let all_are_shown = self
            .owed_files
            .as_ref()
            .map_or(!self.bonds.has_dirty(), BTreeSet::is_empty);
        if self.prune_due && all_are_shown {
            self.prune_due = false;
            self.writer.prune();
        }
        if !dirty.is_empty() {
            self.writer.wake();
        }
        room
    }

    /// Another program may give a bond, or a port, a name that no folder among the files can have.
    fn note_folders(&mut self, now: Time, at: InstanceId) {
        let instance = &mut self.bonds[at];
        let ports = instance.bond.ports().iter().map(|port| port.name.as_str());
        let mut names = ports.chain([instance.name.as_str()]);
        let without = names.find(|name| self.status_files == StatusFiles::All && !sysfs::has_folder(name));
        instance.unfulfilled.note_folder(now, &instance.name, without);
    }

    /// Has the bonds saved once more that could not be saved.
    fn forget_unsaved(&mut self) {
        for instance in self.bonds.iter_mut() {
            instance.dirty |= std::mem::take(&mut instance.unsaved);
        }
    }

    /// Has what could not be written written again, if it is time: the disk was full, say.
    pub(super) fn save_again(&mut self, now: Time) {
        if self.save_again_at.take_if(|at| *at <= now).is_some() {
            self.forget_unsaved();
            self.left.remove_again = self.store.has_unremoved();
            self.left.changed |= self.left.unsaved;
        }
    }

    /// Removes what an earlier agent left behind, but not the files of bonds that are still to be adopted: they show what forwards.
    pub(super) fn prune_files(&mut self) {
        self.prune_due |= !self.has_unadopted();
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

#[cfg(test)]
impl Instances {
    /// No file is written while `held`, as on a disk that does not answer.
    pub(crate) fn hold_files(&self, held: bool) {
        self.writer.hold(held);
    }

    /// Ends that, also when the instances are gone.
    pub(crate) fn files_releaser(&self) -> impl FnOnce() + use<> {
        self.writer.releaser()
    }
}

impl Instance {
    /// The bond machine had an event, so its state may have changed.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }
}

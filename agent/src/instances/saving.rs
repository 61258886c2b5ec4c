//! Saves the states of bonds: what a restart needs and the kernel does not hold.
//!
//! Original settings of a port are on disk before they are changed, so attaching writes them at once. A change that comes from
//! the network is left to the thread that writes files: a failover does not wait for a disk. Only one of the two writes the file
//! of a bond at a time. What else is to be done in the folder of states (a first file, another name, a removal, ports that bonds left
//! behind) is done by changes, while the loop has the instances: it takes a [`MayWait`].

use std::collections::BTreeSet;
use std::time::Duration;

use bond_modes::Machine;
use bond_monitors::Time;

use super::Instances;
use super::id::InstanceId;
use crate::may_wait::MayWait;
use crate::saved::work::Work;
use crate::saved::{Change, SavedBond};

/// The pause before a state that could not be saved is saved again.
pub(super) const SAVE_RETRY: Duration = Duration::from_secs(1);

/// May wait: an agent that stops has nothing else to do.
struct Stop;

impl MayWait for Stop {}

impl Instances {
    /// Leaves the state of a bond to the thread that writes files, if it has changed, or to a change if more is to be done than to
    /// write it. Not while a change writes one, after which this is called again, nor before it is time to try again.
    pub(super) fn save_later(&mut self, now: Time, at: InstanceId) {
        if self.underway.written_now == Some(at) || self.bonds[at].unsaved || self.to_save.contains(&at) {
            return;
        }
        let state = self.state(at);
        match self.store.change(&state) {
            Change::Nothing => {}
            Change::Text(path, text) => self.bonds[at].saving = Some(self.writer.save(path, text)),
            Change::Files(_) => drop(self.to_save.insert(at)),
        }
        self.take_unsaved(now);
    }

    /// Whether a change is to do something in the folder of states.
    pub(super) fn owes_files(&self) -> bool {
        let removes = !self.left.states.is_empty() && !self.left.unsaved;
        self.store.has_later() || !self.to_save.is_empty() || self.left.changed || removes || self.left.remove_again
    }

    /// The states of bonds that are gone, which are to be removed now.
    pub(super) fn removals(&mut self) -> Work {
        let gone = match self.left.unsaved {
            true => BTreeSet::new(),
            false => std::mem::take(&mut self.left.states),
        };
        self.store.removal(&gone)
    }

    /// Does what a change is to do in the folder of states, and waits for the disk: at a stop. Only files that could not be removed
    /// before are not tried again: the next start does that, when it finds that their bonds are gone.
    pub(super) fn save_at_once(&mut self, now: Time) {
        let later = self.store.take_later();
        let _ = self.store.note(later.carry_out(&mut Stop));
        if std::mem::take(&mut self.left.changed) {
            let left = self.store.left(&self.left.ports);
            self.left.unsaved = self.store.note(left.carry_out(&mut Stop)).is_err();
        }
        let removals = self.removals();
        let _ = self.store.note(removals.carry_out(&mut Stop));
        for at in std::mem::take(&mut self.to_save) {
            if self.bonds.get(at).is_some() {
                let saved = self.store.save(&self.state(at), &mut Stop);
                self.note_saved(now, at, saved.is_ok());
            }
        }
    }

    /// A bond that is not saved is saved again later.
    pub(super) fn note_saved(&mut self, now: Time, at: InstanceId, is_saved: bool) {
        self.bonds[at].unsaved = !is_saved;
        if !is_saved {
            self.save_again_at.get_or_insert(now + SAVE_RETRY);
        }
    }

    /// Takes note of states that the thread could not write. The bonds are saved again later.
    pub(super) fn take_unsaved(&mut self, now: Time) {
        for (path, written) in self.writer.take_outcomes() {
            let Some(ifindex) = self.store.note_written(&path, &written) else {
                continue;
            };
            if let Some(at) = self.bonds.on_device(ifindex) {
                self.note_saved(now, at, false);
            }
        }
    }

    pub(super) fn state(&self, at: InstanceId) -> SavedBond {
        let instance = self.bonds.get(at).expect("it is indexed");
        SavedBond {
            boot_id: self.store.boot_id().to_owned(),
            netns: Some(self.store.netns()),
            name: instance.name.clone(),
            ifindex: instance.ifindex,
            plane: Some(instance.plane.name().to_owned()),
            bond: instance.bond.saved(),
            originals: instance.originals.clone(),
            vanished: instance.vanished.clone(),
            unrestored: instance.unrestored.clone(),
            wanted: instance.wanted.clone(),
            configured: instance.configured.clone(),
            origins: Some(instance.origins.clone()),
        }
    }
}

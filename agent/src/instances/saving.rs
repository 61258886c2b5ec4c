//! Saves the states of bonds: what a restart needs and the kernel does not hold.
//!
//! Original settings of a port are on disk before they are changed, so attaching writes them at once. A change that comes from
//! the network is left to the thread that writes files: a failover does not wait for a disk. Only one of the two writes the file
//! of a bond at a time.

use std::io;
use std::time::Duration;

use bond_modes::Machine;
use bond_monitors::Time;

use super::Instances;
use super::id::InstanceId;
use crate::clock;
use crate::may_wait::MayWait;
use crate::saved::work::Work;
use crate::saved::{Change, SavedBond};
use crate::status::writer::CLIENT_LIMIT;

/// The pause before a state that could not be saved is saved again.
pub(super) const SAVE_RETRY: Duration = Duration::from_secs(1);

/// The loop, which still waits for the disk in some cases.
pub(super) struct Loop;

impl MayWait for Loop {}

impl Instances {
    /// Does this in the folder of states.
    pub(super) fn work_on_files(&mut self, work: Work) -> io::Result<()> {
        self.store.note(work.carry_out(&mut Loop))
    }

    /// The state of a bond whose file could not be read before.
    ///
    /// # Errors
    /// It still cannot.
    pub(super) fn read_state(&mut self, bond: &str) -> io::Result<Option<SavedBond>> {
        let Some(reading) = self.store.unread(bond) else {
            return Ok(None);
        };
        let (state, outdated) = self.store.note_read(reading.carry_out(&mut Loop))?;
        self.work_on_files(outdated)?;
        Ok(state)
    }

    /// A failure is logged by the store, and tried again with the next change.
    pub(super) fn save(&mut self, at: InstanceId) {
        let _ = self.try_save(at);
    }

    /// Writes the state of a bond.
    ///
    /// # Errors
    /// It cannot be written, or the one before it is still not written.
    pub(super) fn try_save(&mut self, at: InstanceId) -> io::Result<()> {
        self.finish_saving(at)?;
        let state = self.state(at);
        self.store.save(&state, &mut Loop)
    }

    /// Leaves the state of a bond to the thread that writes files, if it has changed.
    pub(super) fn save_later(&mut self, now: Time, at: InstanceId) {
        let state = self.state(at);
        let saved = match self.store.change(&state) {
            Change::Nothing => Ok(()),
            Change::Text(path, text) => {
                self.bonds[at].saving = Some(self.writer.save(path, text));
                Ok(())
            }
            Change::Files(_) => self.try_save(at),
        };
        self.bonds[at].unsaved = saved.is_err();
        if saved.is_err() {
            self.save_again_at.get_or_insert(now + SAVE_RETRY);
        }
    }

    /// Waits for a state that was left to the thread, so that it cannot take the place of a later one.
    ///
    /// # Errors
    /// It is still not written.
    pub(super) fn finish_saving(&mut self, at: InstanceId) -> io::Result<()> {
        if let Some(mark) = self.bonds.get(at).and_then(|instance| instance.saving) {
            if !self.writer.wait(mark, CLIENT_LIMIT) {
                let text = format!("the disk has not answered for {CLIENT_LIMIT:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            self.bonds[at].saving = None;
            self.take_unsaved(clock::now());
        }
        Ok(())
    }

    /// Takes note of states that the thread could not write. The bonds are saved again later.
    pub(super) fn take_unsaved(&mut self, now: Time) {
        for (path, written) in self.writer.take_outcomes() {
            let Some(ifindex) = self.store.note_written(&path, &written) else {
                continue;
            };
            if let Some(at) = self.bonds.on_device(ifindex) {
                self.bonds[at].unsaved = true;
                self.save_again_at.get_or_insert(now + SAVE_RETRY);
            }
        }
    }

    fn state(&self, at: InstanceId) -> SavedBond {
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

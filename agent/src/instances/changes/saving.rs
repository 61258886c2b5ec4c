//! Does what is to be done in the folder of states while the loop goes on: the disk may be slow.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::super::agenda::Stage;
use super::super::id::InstanceId;
use super::change::Change;
use crate::saved::work::Work;
use crate::saved::{self, SavedBond, replace};
use crate::status::writer::{CLIENT_LIMIT, Mark};

impl Change<'_> {
    /// A failure is logged by the store, and tried again with the next change.
    pub(in crate::instances) fn save(&mut self, at: InstanceId) {
        let _ = self.try_save(at);
    }

    /// Does what the loop has left to be done.
    pub(in crate::instances) fn save_owed(&mut self) {
        self.work_later();
        self.save_bonds_owed();
        self.save_left();
        if std::mem::take(&mut self.left.remove_again) {
            let unremoved = self.store.unremoved_files();
            let _ = self.work_on_files(unremoved);
        }
    }

    /// Writes what is left of bonds that are gone, if that has changed, and then removes their states, so that there are settings on
    /// disk at any time. A failure is logged by the store, and tried again each second.
    pub(in crate::instances) fn save_left(&mut self) {
        if std::mem::take(&mut self.left.changed) {
            let left = self.store.left(&self.left.ports);
            self.left.unsaved = self.work_on_files(left).is_err();
        }
        let removals = self.removals();
        let _ = self.work_on_files(removals);
    }

    /// Removes the state of a bond that is gone, once what its ports are to get back is saved without it.
    pub(in crate::instances) fn remove_state(&mut self, ifindex: u32) {
        self.left.states.insert(ifindex);
        // Before that, other bonds are to be taken over.
        if self.agenda.stage() > Stage::Orphans {
            self.save_left();
        }
    }

    /// The state of a bond whose file could not be read before.
    ///
    /// # Errors
    /// It still cannot.
    pub(in crate::instances) fn read_state(&mut self, bond: &str) -> io::Result<Option<SavedBond>> {
        let Some(reading) = self.store.unread(bond) else {
            return Ok(None);
        };
        let read = self.unlocked(|tools| reading.carry_out(tools));
        let (state, outdated) = self.store.note_read(read)?;
        self.work_on_files(outdated)?;
        Ok(state)
    }

    /// Does what is to be done because of what was read at the start.
    fn work_later(&mut self) {
        let later = self.store.take_later();
        let _ = self.work_on_files(later);
    }

    fn work_on_files(&mut self, work: Work) -> io::Result<()> {
        if work.is_empty() {
            return Ok(());
        }
        let done = self.unlocked(|tools| work.carry_out(tools));
        self.store.note(done)
    }

    /// Saves the bonds whose files get other names. One may get the name that another's had: nothing older may be written over it
    /// afterwards.
    fn save_bonds_owed(&mut self) {
        let owed = self.finish_saving_owed();
        for at in std::mem::take(&mut self.to_save) {
            if self.bonds.get(at).is_some() {
                // If the disk does not answer, no other is tried either.
                let saved = match &owed {
                    Ok(()) => self.save_in_its_place(at),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                };
                self.note_result(at, &saved);
            }
        }
    }

    /// Waits until nothing is written any more to the files that bonds had under other names.
    fn finish_saving_owed(&mut self) -> io::Result<()> {
        let owed: Vec<InstanceId> = self.to_save.iter().copied().collect();
        for at in owed {
            if self.bonds.get(at).is_some() {
                self.finish_saving(at)?;
            }
        }
        Ok(())
    }

    /// Has the state of a bond written, and waits for that. A failure is tried again each second, too.
    ///
    /// # Errors
    /// It cannot be written, or the disk does not answer.
    pub(in crate::instances) fn try_save(&mut self, at: InstanceId) -> io::Result<()> {
        self.work_later();
        // It may have got the name of one of them.
        let saved = self.finish_saving_owed().and_then(|()| self.save_in_its_place(at));
        self.note_result(at, &saved);
        saved
    }

    fn note_result(&mut self, at: InstanceId, saved: &io::Result<()>) {
        let now = self.now();
        self.note_saved(now, at, saved.is_ok());
    }

    fn save_in_its_place(&mut self, at: InstanceId) -> io::Result<()> {
        self.finish_saving(at)?;
        let state = self.state(at);
        match self.store.change(&state) {
            saved::Change::Nothing => Ok(()),
            change => self.in_place_of_the_loop(at, |this| this.write(change)),
        }
    }

    fn write(&mut self, change: saved::Change) -> io::Result<()> {
        match change {
            saved::Change::Nothing => Ok(()),
            saved::Change::Text(path, text) => {
                let written = self.unlocked(|tools| replace(&path, &text, tools));
                self.store.note_written(&path, &written);
                written
            }
            saved::Change::Files(work) => self.work_on_files(work),
        }
    }

    /// Waits for a state that was left to the thread that writes files, so that it cannot take the place of a later one.
    ///
    /// # Errors
    /// It is still not written.
    pub(in crate::instances) fn finish_saving(&mut self, at: InstanceId) -> io::Result<()> {
        if let Some(mark) = self.bonds[at].saving {
            self.in_place_of_the_loop(at, |change| change.await_file(mark))?;
            self.bonds[at].saving = None;
            let now = self.now();
            self.take_unsaved(now);
        }
        Ok(())
    }

    /// Does something while the loop does not save this bond. What it became meanwhile is saved with its files.
    fn in_place_of_the_loop<T>(&mut self, at: InstanceId, work: impl FnOnce(&mut Self) -> T) -> T {
        self.underway.written_now = Some(at);
        let done = work(self);
        self.underway.written_now = None;
        self.bonds[at].dirty = true;
        done
    }

    fn await_file(&mut self, mark: Mark) -> io::Result<()> {
        let until = Instant::now() + CLIENT_LIMIT;
        self.writer.wake();
        while !self.writer.has_written(mark) {
            if Instant::now() >= until {
                let text = format!("the disk has not answered for {CLIENT_LIMIT:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            self.unlocked(|_| thread::sleep(PAUSE));
            // What there was no room for is handed over once there is.
            self.writer.has_room();
        }
        Ok(())
    }
}

/// Between two looks whether a file is written.
const PAUSE: Duration = Duration::from_micros(500);

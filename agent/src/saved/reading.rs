//! What is read at a start, and what is to be done because of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bond_modes::PortId;

use super::bond::{LeftPort, SavedBond};
use super::format::{FileLeft, values_into};
use super::replace::UNFINISHED;
use super::work::{self, Found, LEFT, Read, Reading, Step, Work};
use super::{Loaded, Store, bond_of};
use crate::may_wait::MayWait;

impl Store {
    /// All states; see [`Store::note_read`]. Nothing is written; see [`Store::take_later`].
    ///
    /// # Errors
    /// The folder cannot be read. Its bonds must not be taken for bonds without a state.
    pub fn load(&mut self, may_wait: &mut impl MayWait) -> io::Result<Loaded> {
        let entries = fs::read_dir(&self.dir)?;
        let entries = entries.map(|entry| Ok(entry?.path()));
        let (mut paths, others): (Vec<PathBuf>, Vec<PathBuf>) = entries
            .collect::<io::Result<Vec<PathBuf>>>()?
            .into_iter()
            .partition(|path| ends_with(path, "json"));
        paths.sort();
        self.files.clear();
        let unfinished = others.into_iter().filter(|path| ends_with(path, UNFINISHED));
        let discard = |path: PathBuf| {
            let written = fs::metadata(&path).and_then(|found| found.modified()).ok()?;
            Some(Step::Discard { path, written })
        };
        self.later = unfinished.filter_map(discard).collect();
        let mut loaded = Loaded::default();
        let mut states = Vec::new();
        for file in paths.iter().filter_map(|path| path.file_stem()?.to_str()) {
            match self.note_read(self.reading(file).carry_out(may_wait)) {
                Ok((state, outdated)) => {
                    self.later.extend(outdated.steps);
                    states.extend(state.map(|state| (file.to_owned(), state)));
                }
                Err(error) => loaded.unread.push((bond_of(file).to_owned(), error)),
            }
        }
        loaded.states = self.keep_latest(states);
        loaded.left = self.load_left();
        Ok(loaded)
    }

    /// Whether something is to be done because of what was read.
    pub fn has_later(&self) -> bool {
        !self.later.is_empty()
    }

    /// That, for [`Store::note`]: files that are of no use any more go. To be done before anything is saved.
    pub fn take_later(&mut self) -> Work {
        let later = std::mem::take(&mut self.later);
        self.work(later)
    }

    /// Takes a file that cannot be read for lost. It is set aside later.
    pub fn give_up(&mut self, bond: &str) {
        let is_lost = |file: &str, of: Option<u32>| of.is_none() && bond_of(file) == bond;
        let lost = self.files.iter().filter(|(file, of)| is_lost(file, **of));
        self.later
            .extend(lost.map(|(file, _)| Step::SetAside { file: file.clone() }));
        self.files.retain(|file, of| !is_lost(file, *of));
    }

    /// Those of this boot and this network namespace. What cannot be read is logged and set aside: it has what the ports were.
    fn load_left(&mut self) -> BTreeMap<PortId, LeftPort> {
        let path = self.dir.join(LEFT);
        let file = match work::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
            read => read.and_then(|text| Ok(serde_json::from_slice::<FileLeft>(&text)?)),
        };
        match file {
            Ok(file) if file.boot_id == self.boot_id && file.netns == self.netns => values_into(file.ports),
            Ok(_) => BTreeMap::new(),
            Err(error) => {
                log::error!(
                    "cannot read {}: {error}; its ports keep their settings, and it is kept as {}",
                    path.display(),
                    work::set_aside(&path).display()
                );
                self.later.push(Step::SetLeftAside);
                BTreeMap::new()
            }
        }
    }

    /// Of several states of one interface the one written last counts: its bond was renamed, and the agent could not remove the
    /// file under the earlier name.
    fn keep_latest(&mut self, mut states: Vec<(String, SavedBond)>) -> Vec<SavedBond> {
        let mut files = BTreeMap::new();
        for (_, state) in &states {
            *files.entry(state.ifindex).or_insert(0) += 1;
        }
        let written = |file: &str| {
            fs::metadata(self.path(file))
                .and_then(|metadata| metadata.modified())
                .ok()
        };
        states.sort_by_cached_key(|(file, state)| {
            let one_of_several = files[&state.ifindex] > 1;
            (state.ifindex, one_of_several.then(|| written(file)))
        });
        let mut kept: Vec<(String, SavedBond)> = Vec::new();
        for (file, state) in states {
            if let Some((file, before)) = kept.pop_if(|(_, before)| before.ifindex == state.ifindex) {
                log::warn!(
                    "{}: removing its saved state from before it was renamed to {}",
                    before.name,
                    state.name
                );
                self.later.push(Step::Remove { file });
            }
            kept.push((file, state));
        }
        kept.into_iter().map(|(_, state)| state).collect()
    }

    /// The file of a bond that could not be read before, to be read again.
    pub fn unread(&self, bond: &str) -> Option<Reading> {
        let unread = |(file, of): &(&String, &Option<u32>)| of.is_none() && bond_of(file) == bond;
        self.files.iter().find(unread).map(|(file, _)| self.reading(file))
    }

    fn reading(&self, file: &str) -> Reading {
        Reading {
            file: file.to_owned(),
            path: self.path(file),
            boot_id: self.boot_id.clone(),
            netns: self.netns,
        }
    }

    /// The state that was read, if there is one of this boot and this network namespace, and what is to be done then: the file of an
    /// earlier boot goes, and one that holds no state is set aside.
    ///
    /// # Errors
    /// The file is there and cannot be read. That may pass.
    pub fn note_read(&mut self, read: Read) -> io::Result<(Option<SavedBond>, Work)> {
        let Read { file, found } = read;
        let (mut state, mut steps) = (None, Vec::new());
        match found {
            Ok(Found::State(found)) => {
                self.files.insert(file, Some(found.ifindex));
                state = Some(*found);
            }
            // Where it is of another namespace, its bond may still forward there: the file stays, until a bond of this one needs the
            // name.
            Ok(Found::Nothing | Found::Elsewhere) => drop(self.files.remove(&file)),
            Ok(Found::Outdated) => {
                self.files.insert(file.clone(), None);
                steps.push(Step::Remove { file });
            }
            Ok(Found::Damaged) => {
                self.files.remove(&file);
                steps.push(Step::SetAside { file });
            }
            Err(error) => {
                self.files.insert(file, None);
                return Err(error);
            }
        }
        Ok((state, self.work(steps)))
    }
}

fn ends_with(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found == ending)
}

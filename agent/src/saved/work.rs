//! What is done in the folder of states. Whoever does it may wait for a disk, so it is apart from [`Store`](super::Store), which says
//! what is to be done, and takes note of what was.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::bond::SavedBond;
use super::format::parse;
use super::replace::{on_disk, replace};
use crate::may_wait::MayWait;
use crate::regular_file;

/// What is to be done, in this order.
#[derive(Debug)]
pub struct Work {
    pub(super) folder: PathBuf,
    pub(super) steps: Vec<Step>,
}

/// Files of bonds are meant by their names without the ending.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A file gets another name: its bond has lost its own to another one.
    Rename { from: String, to: String },
    /// This is written to the file that has the name of the bond with this interface.
    Write { file: String, ifindex: u32, text: String },
    /// A file is removed.
    Remove { file: String },
    /// One that holds no state gets another ending.
    SetAside { file: String },
    /// One that was not written to its end by then is removed.
    Discard { path: PathBuf, written: SystemTime },
    /// This is written to the file of ports that bonds left behind; without it, the file is removed.
    Left(Option<String>),
    /// That file, which cannot be read, gets another ending.
    SetLeftAside,
}

/// What became of it, for [`Store::note`](super::Store::note). After a step that failed nothing more was done, unless it was a removal.
#[derive(Debug)]
pub struct Done(pub(super) Vec<(Step, io::Result<()>)>);

impl Work {
    /// Does it.
    pub fn carry_out(self, may_wait: &mut impl MayWait) -> Done {
        let mut done = Vec::new();
        for step in self.steps {
            let outcome = step.carry_out(&self.folder, may_wait);
            let goes_on = outcome.is_ok()
                || matches!(
                    step,
                    Step::Remove { .. } | Step::SetAside { .. } | Step::SetLeftAside | Step::Discard { .. }
                );
            done.push((step, outcome));
            if !goes_on {
                break;
            }
        }
        Done(done)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Step {
    fn carry_out(&self, folder: &Path, may_wait: &mut impl MayWait) -> io::Result<()> {
        let gone_is_done = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        };
        on_disk();
        match self {
            Step::Rename { from, to } => fs::rename(path(folder, from), path(folder, to)).or_else(gone_is_done),
            Step::Write { file, text, .. } => replace(&path(folder, file), text, may_wait),
            Step::Remove { file } => fs::remove_file(path(folder, file)).or_else(gone_is_done),
            Step::SetAside { file } => {
                let path = path(folder, file);
                fs::rename(&path, set_aside(&path)).or_else(gone_is_done)
            }
            // Else another one is being written there.
            Step::Discard { path, written } => match fs::metadata(path).and_then(|found| found.modified()) {
                Ok(modified) if modified == *written => fs::remove_file(path).or_else(gone_is_done),
                _ => Ok(()),
            },
            Step::Left(Some(text)) => replace(&folder.join(LEFT), text, may_wait),
            Step::Left(None) => fs::remove_file(folder.join(LEFT)).or_else(gone_is_done),
            Step::SetLeftAside => {
                let path = folder.join(LEFT);
                fs::rename(&path, set_aside(&path)).or_else(gone_is_done)
            }
        }
    }
}

/// A file that is to be read.
#[derive(Debug)]
pub struct Reading {
    pub(super) file: String,
    pub(super) path: PathBuf,
    pub(super) boot_id: String,
    pub(super) netns: u64,
}

/// What a file held, for [`Store::note_read`](super::Store::note_read).
#[derive(Debug)]
pub struct Read {
    pub(super) file: String,
    pub(super) found: io::Result<Found>,
}

#[derive(Debug)]
pub(super) enum Found {
    /// It is not there.
    Nothing,
    /// It is no state.
    Damaged,
    /// The state of a bond in another network namespace.
    Elsewhere,
    /// One of another boot, which is invalid.
    Outdated,
    State(Box<SavedBond>),
}

impl Reading {
    /// Reads it. One that holds no state is to get another name, so that nothing overwrites it, and the log says which.
    pub fn carry_out(self, _: &mut impl MayWait) -> Read {
        on_disk();
        let found = self.find();
        Read { file: self.file, found }
    }

    fn find(&self) -> io::Result<Found> {
        let path = &self.path;
        let text = match read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            read => read?,
        };
        Ok(match parse(&text) {
            Ok(state) if state.boot_id != self.boot_id => Found::Outdated,
            Ok(state) if state.netns.is_some_and(|netns| netns != self.netns) => {
                log::warn!("{}: of another network namespace, ignored", path.display());
                Found::Elsewhere
            }
            Ok(state) => Found::State(Box::new(state)),
            Err(error) => {
                log::error!(
                    "{}: not a saved state, ignored and kept as {}: {error}",
                    path.display(),
                    set_aside(path).display()
                );
                Found::Damaged
            }
        })
    }
}

/// Reads a file of the folder.
///
/// # Errors
/// The system's; or it is no regular file, such as a pipe, which would be waited for, or larger than any state.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    regular_file::read(path, LARGEST).map_err(|error| match error.kind() {
        io::ErrorKind::Other => io::Error::other(format!("{error}; remove it, or put it elsewhere")),
        _ => error,
    })
}

/// A bond with the most ports has a state of less, in bytes.
const LARGEST: u64 = 16 << 20;

/// The path of a bond's file.
pub(super) fn path(folder: &Path, file: &str) -> PathBuf {
    folder.join(format!("{file}.json"))
}

/// What the file at this path is called once it is set aside.
pub(super) fn set_aside(path: &Path) -> PathBuf {
    path.with_extension("unreadable")
}

/// The file of ports that bonds left behind; it has no ending, so it is no bond's.
pub(super) const LEFT: &str = "left-ports";

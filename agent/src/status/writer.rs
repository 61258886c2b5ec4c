//! The thread that writes the status files, and saved states, so that the loop never waits for a disk.
//!
//! The loop hands over what the files of a bond are to show and goes on; the thread renders it and writes what differs. Of what was
//! handed over for a bond only the newest is written, and what a client waits for comes first. The thread has ordinary priority
//! whatever the loop has, and they share no lock: a failover waits neither for a processor that this thread has, nor for this
//! thread while it has none.

mod orders;
mod progress;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::time::Duration;

use self::orders::{Note, Request};
use self::progress::{Outcome, Progress};
use self::worker::Worker;
use super::Page;
use crate::vital_thread;

pub use self::orders::Urgency;
pub use self::progress::{Patience, STUCK_LIMIT};

/// What the thread has not read yet. It reads before each bond that it writes, so more than this are there only while the disk
/// does not answer; what is handed over then is refused, and costs no memory.
const UNREAD: usize = 1024;

/// How long a client waits for the files that show its change, and the state of a bond that is to be written at once for the one
/// before it.
pub const CLIENT_LIMIT: Duration = Duration::from_secs(1);

/// How often a wait looks whether anything is written.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How long the end of a start waits for the files of all bonds.
pub const START_LIMIT: Duration = Duration::from_secs(10);

/// The loop's side.
#[derive(Debug)]
pub struct Writer {
    notes: Option<SyncSender<Note>>,
    /// Notes that must not be lost, while there are too many unread ones.
    kept: VecDeque<Request>,
    /// How many notes there have been.
    given: u64,
    /// The number of the last one that a client may wait for.
    awaited: u64,
    outcomes: Receiver<Outcome>,
    progress: Arc<Progress>,
    /// Wakes the thread up by what is written, and the loop by what can be read.
    wake: UnixStream,
    /// See [`Writer::give_up`].
    gave_up: bool,
}

/// Everything awaited that was handed over before this was made; see [`Writer::has_written`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// Everything that was handed over before this was made.
#[derive(Debug)]
pub struct Settling(Receiver<()>);

impl Settling {
    /// Whether it is written, or was tried in vain.
    pub fn is_done(&self) -> bool {
        self.0.try_recv() != Err(TryRecvError::Empty)
    }
}

impl Writer {
    /// Starts the thread, for this run directory. `release` is the kernel's.
    pub fn start(run_dir: impl Into<PathBuf>, release: String) -> io::Result<Writer> {
        let (wake, theirs) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let (notes, unread) = mpsc::sync_channel(UNREAD);
        let progress = Arc::new(Progress::default());
        let (told, outcomes) = mpsc::channel();
        let worker = Worker::new((unread, told), Arc::clone(&progress), theirs, run_dir.into(), release);
        vital_thread::start("status-files", move || worker.run())?;
        Ok(Writer {
            notes: Some(notes),
            kept: VecDeque::new(),
            given: 0,
            awaited: 0,
            outcomes,
            progress,
            wake,
            gave_up: false,
        })
    }

    /// Hands over what a bond's files are to show; whether there is room for it. Call [`Writer::wake`] afterwards.
    pub fn show(&mut self, page: Box<Page>, urgency: Urgency) -> bool {
        let sent = self.send_kept() && self.send(Request::Show(page, urgency)).is_ok();
        if urgency == Urgency::Awaited {
            // One that was refused comes later.
            self.awaited = self.given + u64::from(!sent);
        }
        sent
    }

    /// Hands over what a file with a saved state is to contain. It is not tried again: see [`Writer::take_outcomes`]. Call
    /// [`Writer::wake`] afterwards.
    pub fn save(&mut self, path: PathBuf, text: String) -> Mark {
        self.kept.push_back(Request::Save(path, text));
        let mark = Mark(self.given + self.kept.len() as u64);
        self.send_kept();
        mark
    }

    /// Files with saved states that could not be written since the last call, or could be written again.
    pub fn take_outcomes(&mut self) -> Vec<(PathBuf, io::Result<()>)> {
        self.outcomes.try_iter().collect()
    }

    /// The files of a bond that is gone are to go.
    pub fn remove(&mut self, bond: &str) {
        self.awaited = self.given + self.kept.len() as u64 + 1;
        self.keep(Request::Remove(bond.to_owned()));
    }

    /// Files that an earlier agent left behind are to go, once everything that was handed over is written.
    pub fn prune(&mut self) {
        self.keep(Request::Prune);
    }

    /// Whether anything can be handed over.
    pub fn has_room(&mut self) -> bool {
        !self.progress.refused.load(Ordering::SeqCst) && self.send_kept()
    }

    /// Makes the thread look at what was handed over.
    pub fn wake(&mut self) {
        self.send_kept();
        // If it is full, the thread is going to look anyway.
        let _ = self.wake.write(&[0]);
    }

    /// For [`Writer::has_written`].
    pub fn mark(&self) -> Mark {
        Mark(self.awaited)
    }

    /// Whether everything awaited that was handed over before `mark` is written, or was tried in vain.
    pub fn has_written(&self, mark: Mark) -> bool {
        self.progress.done.load(Ordering::SeqCst) >= mark.0
    }

    /// Readable when awaited files have been written, or there is room again. Read it with [`Writer::drain`].
    pub fn events(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// Makes [`Writer::events`] unreadable until the next time.
    pub fn drain(&mut self) {
        let mut pokes = [0; 64];
        while self.wake.read(&mut pokes).is_ok_and(|count| count == pokes.len()) {}
    }

    /// How many steps of its work the thread has made, for [`Patience`].
    pub fn steps(&self) -> u64 {
        self.progress.steps.load(Ordering::SeqCst)
    }

    /// Waits until everything is written, or was tried in vain; whether it is. Gives up, with a warning, when its [`Patience`] is over.
    pub fn settle(&mut self) -> bool {
        let mut patience = Patience::begin(self.steps());
        let Settling(answer) = self.settling();
        while answer.recv_timeout(POLL_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            self.wake();
            if patience.is_over(self.steps()) {
                self.give_up(patience.waited());
                return false;
            }
        }
        self.gave_up = false;
        true
    }

    /// Nothing is waited for any more, after so long.
    pub fn give_up(&mut self, waited: Duration) {
        warn_late(waited);
        self.gave_up = true;
    }

    /// As [`Writer::settle`], without waiting; [`Writer::events`] is readable when it is done.
    pub fn settling(&mut self) -> Settling {
        let (settled, answer) = mpsc::sync_channel(1);
        self.keep(Request::Settle(settled));
        Settling(answer)
    }

    fn keep(&mut self, request: Request) {
        self.kept.push_back(request);
        self.wake();
    }

    /// Whether none is left.
    fn send_kept(&mut self) -> bool {
        while let Some(request) = self.kept.pop_front() {
            if let Err(request) = self.send(request) {
                self.kept.push_front(request);
                return false;
            }
        }
        true
    }

    fn send(&mut self, request: Request) -> Result<(), Request> {
        let Some(notes) = &self.notes else { return Err(request) };
        let note = Note {
            number: self.given + 1,
            request,
        };
        match notes.try_send(note) {
            Ok(()) => {
                self.given += 1;
                Ok(())
            }
            Err(TrySendError::Full(note) | TrySendError::Disconnected(note)) => {
                self.progress.refused.store(true, Ordering::SeqCst);
                Err(note.request)
            }
        }
    }
}

/// Logs that files were not written in this time.
pub fn warn_late(waited: Duration) {
    log::warn!(
        "status files are not written after {} s; some are out of date",
        waited.as_secs()
    );
}

impl Drop for Writer {
    /// Waits for what is not written yet, unless that was given up already.
    fn drop(&mut self) {
        if !self.gave_up {
            self.settle();
        }
        // This ends the thread.
        self.notes = None;
        let _ = self.wake.write(&[0]);
    }
}

#[cfg(test)]
impl Writer {
    /// The thread does nothing more until it is let go on, as on a disk that does not answer.
    pub(crate) fn hold(&self, held: bool) {
        self.progress.held.store(held, Ordering::SeqCst);
    }

    /// Lets the thread go on, also when this is gone.
    pub(crate) fn releaser(&self) -> impl FnOnce() + use<> {
        let progress = Arc::clone(&self.progress);
        move || progress.held.store(false, Ordering::SeqCst)
    }

    /// The thread panics when it is next awake.
    fn make_panic(&self) {
        self.progress.panics.store(true, Ordering::SeqCst);
    }
}

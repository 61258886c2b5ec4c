//! How far the thread is, for the loop.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

/// How long a stop waits for the last files.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How long a stop waits while nothing is written: the disk does not answer.
pub const STUCK_LIMIT: Duration = Duration::from_secs(3);

/// A file with a saved state that could not be written, or could again.
pub(super) type Outcome = (PathBuf, io::Result<()>);

/// What the thread says of itself.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Every awaited note up to this one is done.
    pub(super) done: AtomicU64,
    /// How many things it has done, each a saved state or the files of a bond.
    pub(super) steps: AtomicU64,
    /// The loop was refused, and is to be woken up when there is room.
    pub(super) refused: AtomicBool,
    /// It does nothing, as on a disk that does not answer.
    #[cfg(test)]
    pub(super) held: AtomicBool,
    /// It is to panic.
    #[cfg(test)]
    pub(super) panics: AtomicBool,
}

/// How long a stop goes on waiting for the thread.
#[derive(Debug)]
pub struct Patience {
    began: Instant,
    steps: u64,
    stepped: Instant,
}

impl Patience {
    /// Begins to wait, when the thread has made so many steps.
    pub fn begin(steps: u64) -> Patience {
        let began = Instant::now();
        Patience {
            began,
            steps,
            stepped: began,
        }
    }

    /// Whether it is over, now that the thread has made so many steps: none in three seconds, or ten seconds have passed in all.
    pub fn is_over(&mut self, steps: u64) -> bool {
        if steps != self.steps {
            (self.steps, self.stepped) = (steps, Instant::now());
        }
        self.stepped.elapsed() >= STUCK_LIMIT || self.waited() >= STOP_LIMIT
    }

    /// How long it has been.
    pub fn waited(&self) -> Duration {
        self.began.elapsed()
    }
}

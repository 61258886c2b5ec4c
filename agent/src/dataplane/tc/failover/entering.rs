//! Bonds enter and leave the maps of the program in a thread of its own, as the kernel waits for a grace period with each map: for a
//! thousand new bonds that is half a minute, and nobody else is to wait for it. Until a bond is there, the agent alone fails over.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::sync::mpsc::{self, Sender};

use aya::maps::MapData;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::dataplane::lock;
use crate::vital_thread;

/// What is done when a bond has entered, or could not.
pub type Then = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What the thread is to do.
pub enum Job {
    /// A bond is to enter, with its maps `transmit` and `rules`; what is done then.
    Enter(u32, Box<[MapData; 2]>, Then),
    /// A bond has ended.
    Leave(u32),
    /// Somebody waits for all before.
    #[cfg(test)]
    Tell(Sender<()>),
}

/// The side of those who ask for it.
pub struct Entering {
    /// None before the first job.
    jobs: Mutex<Option<Sender<Job>>>,
    /// Bonds that are to enter.
    coming: Mutex<BTreeSet<u32>>,
    /// Bonds that have entered since that was read.
    entered: Mutex<Vec<u32>>,
    /// Readable if there are some.
    told: EventFd,
}

impl Entering {
    /// Nobody has.
    pub fn new() -> io::Result<Entering> {
        let told = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Entering {
            jobs: Mutex::default(),
            coming: Mutex::default(),
            entered: Mutex::default(),
            told,
        })
    }

    /// Readable if bonds have entered.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }

    /// Leaves a job to the thread, which does it by `work` and ends when nobody can leave any more. A bond that is to enter already is
    /// not to do so twice.
    pub fn leave(&self, job: Job, work: impl FnMut(Job) + Send + 'static) -> io::Result<()> {
        if let Job::Enter(bond, ..) = &job
            && !lock(&self.coming).insert(*bond)
        {
            return Ok(());
        }
        let mut jobs = lock(&self.jobs);
        let sender = match jobs.take() {
            Some(sender) => sender,
            None => {
                let (sender, to_do) = mpsc::channel();
                vital_thread::start("failover", move || to_do.into_iter().for_each(work))?;
                sender
            }
        };
        let left = sender.send(job).map_err(|_| io::ErrorKind::BrokenPipe.into());
        *jobs = Some(sender);
        left
    }

    /// A bond is not to enter any more; whether it has.
    pub fn end(&self, bond: u32, has_entered: bool) -> io::Result<()> {
        lock(&self.coming).remove(&bond);
        if has_entered {
            lock(&self.entered).push(bond);
            self.told.write(1)?;
        }
        Ok(())
    }

    /// Bonds that have entered since the last call.
    pub fn take_entered(&self) -> Vec<u32> {
        let mut entered = lock(&self.entered);
        if !entered.is_empty() {
            let _ = self.told.read();
        }
        std::mem::take(&mut *entered)
    }
}

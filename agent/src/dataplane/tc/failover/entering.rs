//! The program is brought in, and bonds enter and leave its maps, in a thread of its own, as the kernel waits for a grace period with
//! each map: for a thousand new bonds that is half a minute, and nobody else is to wait for it. Until a bond is there, the agent alone
//! fails over. What failed for a reason that may pass, the thread tries again by the clock, once for all bonds.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Instant;

use aya::maps::MapData;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::dataplane::lock;
use crate::vital_thread;

/// What became of a bond that was to enter.
pub enum Entered {
    /// The program knows it.
    Yes,
    /// There is no program; why.
    NoProgram(String),
    /// The kernel refuses that.
    No(io::Error),
}

/// What is done with that. It may be told more than once, the last time that it has entered, or that there is no hope.
pub type Then = Box<dyn FnMut(Entered) + Send>;

/// A bond that is to enter.
pub struct Entrant {
    /// Its maps `transmit` and `rules`: copies made when they are needed, as each takes a descriptor.
    pub maps: Box<dyn Fn() -> io::Result<[MapData; 2]> + Send>,
    /// What is done then.
    pub then: Then,
}

/// What the thread is to do.
pub enum Job {
    /// The program is to be brought in, or the one of this build put in the place of another.
    Open,
    /// A bond is to enter, as [`Entering::take`] says.
    Enter(u32),
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
    /// Bonds that are to enter, for each of which there is a job.
    coming: Mutex<BTreeMap<u32, Entrant>>,
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

    /// A bond is to enter. If it is to already, it does so once, with what is said last: whoever asked before may have given up.
    pub fn enter(&self, bond: u32, entrant: Entrant, work: impl Work) -> io::Result<()> {
        if lock(&self.coming).insert(bond, entrant).is_some() {
            return Ok(());
        }
        self.leave(Job::Enter(bond), work)
            .inspect_err(|_| drop(self.take(bond)))
    }

    /// What is to enter for a bond now; nothing if that has been taken back.
    pub fn take(&self, bond: u32) -> Option<Entrant> {
        lock(&self.coming).remove(&bond)
    }

    /// Takes all of them back.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.coming));
        drop(all);
    }

    /// The bonds that are to enter.
    pub fn coming(&self) -> Vec<u32> {
        lock(&self.coming).keys().copied().collect()
    }

    /// Puts a bond back that could not enter yet, unless it was asked for anew.
    pub fn put_back(&self, bond: u32, entrant: Entrant) {
        lock(&self.coming).entry(bond).or_insert(entrant);
    }

    /// Leaves a job to the thread, which does it by `work` and ends when nobody can leave any more.
    pub fn leave(&self, job: Job, work: impl Work) -> io::Result<()> {
        let mut jobs = lock(&self.jobs);
        let sender = match jobs.take() {
            Some(sender) => sender,
            None => {
                let (sender, to_do) = mpsc::channel();
                vital_thread::start("failover", move || work_off(&to_do, work))?;
                sender
            }
        };
        let left = sender.send(job).map_err(|_| io::ErrorKind::BrokenPipe.into());
        *jobs = Some(sender);
        left
    }

    /// A bond has entered.
    pub fn tell(&self, bond: u32) -> io::Result<()> {
        lock(&self.entered).push(bond);
        self.told.write(1).map(drop).map_err(io::Error::from)
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

/// What the thread does with a job, or without one when it is time for that. Returns when that is next.
pub trait Work: FnMut(Option<Job>) -> Option<Instant> + Send + 'static {}

impl<T: FnMut(Option<Job>) -> Option<Instant> + Send + 'static> Work for T {}

fn work_off(to_do: &Receiver<Job>, mut work: impl Work) {
    let mut due: Option<Instant> = None;
    loop {
        let job = match due {
            None => to_do.recv().map_err(RecvTimeoutError::from),
            Some(at) => to_do.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        due = match job {
            Ok(job) => work(Some(job)),
            Err(RecvTimeoutError::Timeout) => work(None),
            Err(RecvTimeoutError::Disconnected) => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_bond_that_is_to_enter_twice_does_so_once_for_who_asked_last_and_may_again() {
        let entering = Arc::new(Entering::new().unwrap());
        let (did, done) = mpsc::channel();
        let (let_go, wait) = mpsc::channel();
        let ask = |name: &'static str| {
            let (did, this) = (did.clone(), Arc::clone(&entering));
            let maps = Box::new(|| Err(io::ErrorKind::Unsupported.into()));
            let then: Then = Box::new(move |_| did.send(name).unwrap());
            entering.enter(7, Entrant { maps, then }, move |_| {
                if let Some(mut entrant) = this.take(7) {
                    (entrant.then)(Entered::Yes);
                }
                None
            })
        };
        entering
            .leave(Job::Leave(1), {
                let (this, did) = (Arc::clone(&entering), did.clone());
                move |job| {
                    match job {
                        Some(Job::Enter(bond)) => (this.take(bond).unwrap().then)(Entered::Yes),
                        Some(Job::Leave(_)) => wait.recv().unwrap(),
                        None | Some(Job::Open) => unreachable!("nobody asks for it"),
                        Some(Job::Tell(_)) => did.send("end").unwrap(),
                    }
                    None
                }
            })
            .unwrap();
        ask("first").unwrap();
        ask("second").unwrap();
        let_go.send(()).unwrap();
        assert_eq!(done.recv().unwrap(), "second");
        ask("third").unwrap();
        assert_eq!(done.recv().unwrap(), "third");
    }
}

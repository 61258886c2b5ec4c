//! The program is brought in, and bonds enter and leave its maps, in a thread of its own, as the kernel waits for a grace period with
//! each map: for a thousand new bonds that is half a minute, and nobody else is to wait for it. Until a bond is there, the agent alone
//! fails over.

use std::collections::BTreeMap;
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

/// A bond that is to enter.
pub struct Entrant {
    /// Its maps `transmit` and `rules`.
    pub maps: [MapData; 2],
    /// What is done then.
    pub then: Then,
}

/// What the thread is to do.
pub enum Job {
    /// The program is to be brought in.
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
    pub fn enter(&self, bond: u32, entrant: Entrant, work: impl FnMut(Job) + Send + 'static) -> io::Result<()> {
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

    /// Leaves a job to the thread, which does it by `work` and ends when nobody can leave any more.
    pub fn leave(&self, job: Job, work: impl FnMut(Job) + Send + 'static) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::dataplane::tc::bpf::tests::new;
    use crate::dataplane::tc::layout::{RULES, TRANSMIT};

    #[test]
    fn a_bond_that_is_to_enter_twice_does_so_once_for_who_asked_last_and_may_again() {
        let entering = Arc::new(Entering::new().unwrap());
        let (bpf, _) = new();
        let (did, done) = mpsc::channel();
        let (let_go, wait) = mpsc::channel();
        let ask = |name: &'static str| {
            let (did, this) = (did.clone(), Arc::clone(&entering));
            let maps = [TRANSMIT, RULES].map(|name| bpf.copy_of(name).unwrap());
            let then: Then = Box::new(move |_| did.send(name).unwrap());
            entering.enter(7, Entrant { maps, then }, move |_| {
                if let Some(entrant) = this.take(7) {
                    (entrant.then)(Ok(()));
                }
            })
        };
        entering
            .leave(Job::Leave(1), {
                let (this, did) = (Arc::clone(&entering), did.clone());
                move |job| match job {
                    Job::Enter(bond) => (this.take(bond).unwrap().then)(Ok(())),
                    Job::Leave(_) => wait.recv().unwrap(),
                    Job::Open => unreachable!("nobody asks for it"),
                    Job::Tell(_) => did.send("end").unwrap(),
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

//! The program of one agent, and what it is told of ports.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aya::maps::MapData;
use bond_modes::PortId;
use bond_monitors::Time;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::entering::{Entering, Entrant, Job, Then};
use super::layout::{Armed, Loss, RULES_OF, TRANSMITS};
use super::open::{self, Opened};
use crate::dataplane::tc::errors::{gone_is_fine, map_error};
use crate::dataplane::tc::folder;
use crate::dataplane::{Report, lock};
use crate::heap;
use crate::netlink::Drained;

/// Whether the kernel is to fail over by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FailoverChoice {
    /// Where it can.
    Auto,
    /// Never.
    Off,
}

/// Why there is none with [`FailoverChoice::Off`].
const NOT_ASKED_FOR: &str = "switched off by --in-kernel-failover off";

/// The program of one agent, with its maps. Clones are the same one.
#[derive(Clone)]
pub struct InKernel(Arc<Inner>);

struct Inner {
    choice: FailoverChoice,
    /// Readable when there are notes; it is there before the ring of notes is.
    ready: Epoll,
    /// Who has this may wait for the kernel, for a grace period or longer: never the loop, and nobody who has the lock of a bond's
    /// forwarding.
    waiting: Mutex<()>,
    entering: Entering,
    /// Where it is pinned, once a bond has needed it.
    folder: Mutex<Option<PathBuf>>,
    /// Locked for single requests to ordinary maps.
    state: Mutex<State>,
}

enum State {
    /// No bond has needed it yet.
    Unopened,
    /// The thread brings it in.
    Coming,
    Open(Box<Opened>),
    /// Not on this kernel, or not wanted.
    Without {
        why: String,
        /// When it is to be tried again, if that can help.
        again: Option<Instant>,
    },
}

impl InKernel {
    /// Opened with the first bond.
    pub fn new(choice: FailoverChoice) -> io::Result<InKernel> {
        let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let entering = Entering::new()?;
        ready.add(entering.event_fd(), EpollEvent::new(READABLE, 0))?;
        Ok(InKernel(Arc::new(Inner {
            choice,
            ready,
            waiting: Mutex::new(()),
            entering,
            folder: Mutex::new(None),
            state: Mutex::new(State::Unopened),
        })))
    }

    /// Takes program and maps over, or has the thread bring them into the kernel, if that was not tried before, or failed for a reason
    /// that may have passed.
    pub fn open(&self, at: &Path) {
        let may_help = || match &*lock(&self.0.state) {
            State::Unopened => true,
            State::Coming | State::Open(_) => false,
            State::Without { again, .. } => again.is_some(),
        };
        if !may_help() {
            return;
        }
        let _waiting = lock(&self.0.waiting);
        if may_help() {
            *lock(&self.0.folder) = Some(at.to_owned());
            let comes = self.0.choice == FailoverChoice::Auto && !open::is_there(at);
            let state = match comes.then(|| self.0.entering.leave(Job::Open, self.worker())) {
                None => self.opened(at),
                Some(Ok(())) => State::Coming,
                Some(Err(error)) => State::without(&error),
            };
            *lock(&self.0.state) = state;
        }
    }

    /// As [`InKernel::open`] after a failure of it, once in a while. Whether it is open, or comes.
    pub fn open_again(&self) -> bool {
        let is_due = match &*lock(&self.0.state) {
            State::Coming | State::Open(_) => return true,
            State::Unopened => false,
            State::Without { again, .. } => again.is_some_and(|at| at <= Instant::now()),
        };
        let folder = lock(&self.0.folder).clone().filter(|_| is_due);
        folder.is_some_and(|folder| {
            self.open(&folder);
            self.refuses().is_none()
        })
    }

    fn opened(&self, folder: &Path) -> State {
        if self.0.choice == FailoverChoice::Off {
            let removed = folder.parent().map_or(Ok(()), |all| open::remove_others(all, None));
            if let Err(error) = removed {
                log::warn!("cannot switch failover in the kernel off: {error}");
            }
            return State::Without {
                why: NOT_ASKED_FOR.to_owned(),
                again: None,
            };
        }
        let opened = Opened::open(folder).and_then(|mut opened| {
            opened.found = open::sweep(folder)?;
            self.0.ready.add(opened.ring(), EpollEvent::new(READABLE, 0))?;
            Ok(opened)
        });
        match opened {
            Ok(opened) => State::Open(Box::new(opened)),
            Err(error) => State::without(&error),
        }
    }

    /// Forgets bonds whose pins are gone. May wait for the kernel, with nothing locked.
    pub fn sweep(&self) -> io::Result<()> {
        self.open_folder()
            .map_or(Ok(()), |folder| open::sweep(&folder).map(drop))
    }

    /// The last bond is gone: takes the program out of the kernel.
    pub fn close(&self) -> io::Result<()> {
        let _waiting = lock(&self.0.waiting);
        let folder = lock(&self.0.folder).take();
        let mut state = lock(&self.0.state);
        if matches!(&*state, State::Coming | State::Open(_)) {
            *state = State::Unopened;
        }
        drop(state);
        folder.map_or(Ok(()), |folder| folder::remove(&folder))
    }

    /// Why the kernel does not fail over by itself; nothing if it does.
    pub fn why_not(&self) -> Option<String> {
        let comes = matches!(&*lock(&self.0.state), State::Coming);
        let text = || "the program is brought into the kernel now".to_owned();
        comes.then(text).or_else(|| self.refuses())
    }

    /// As [`InKernel::why_not`]; nothing if it does or will soon.
    pub fn refuses(&self) -> Option<String> {
        match &*lock(&self.0.state) {
            State::Coming | State::Open(_) => None,
            State::Unopened if self.0.choice == FailoverChoice::Off => Some(NOT_ASKED_FOR.to_owned()),
            State::Unopened => Some("not looked for before the first bond".to_owned()),
            State::Without { why, .. } => Some(why.clone()),
        }
    }

    /// Whether the program writes the maps `transmit` and `rules` of a bond.
    pub fn knows(&self, ifindex: u32, [transmit, rules]: &[MapData; 2]) -> io::Result<bool> {
        let Some(folder) = self.open_folder() else {
            return Ok(false);
        };
        Ok(open::is_entered(&folder, TRANSMITS, ifindex, transmit)?
            && open::is_entered(&folder, RULES_OF, ifindex, rules)?)
    }

    /// Lets it do so soon. Then this is done, and the bond is reported.
    pub fn enter(&self, ifindex: u32, maps: [MapData; 2], then: Then) -> io::Result<()> {
        self.0.entering.enter(ifindex, Entrant { maps, then }, self.worker())
    }

    /// The program has nothing to do with a bond any more. The entries of its ports are to be removed before.
    pub fn forget(&self, ifindex: u32) -> io::Result<()> {
        drop(self.0.entering.take(ifindex));
        self.0.entering.leave(Job::Leave(ifindex), self.worker())
    }

    fn worker(&self) -> impl FnMut(Job) + Send + 'static {
        let this = Arc::downgrade(&self.0);
        move |job| {
            if let Some(inner) = this.upgrade() {
                InKernel(inner).work(job);
            }
        }
    }

    fn work(&self, job: Job) {
        let _waiting = lock(&self.0.waiting);
        let folder = self.open_folder();
        match job {
            Job::Open => self.bring_in(),
            Job::Enter(bond) => {
                let Some(entrant) = self.0.entering.take(bond) else {
                    return;
                };
                let [transmit, rules] = &entrant.maps;
                let no_program = || io::Error::other(self.why_not().unwrap_or_default());
                let entered = folder.ok_or_else(no_program).and_then(|folder| {
                    open::enter(&folder, TRANSMITS, bond, transmit)?;
                    open::enter(&folder, RULES_OF, bond, rules)
                });
                let has_entered = entered.is_ok();
                (entrant.then)(entered);
                if has_entered && let Err(error) = self.0.entering.tell(bond) {
                    log::warn!("cannot tell that a bond can fail over in the kernel: {error}");
                }
            }
            Job::Leave(bond) => {
                let left = folder.map_or(Ok(()), |folder| open::forget(&folder, bond));
                if let Err(error) = left.or_else(gone) {
                    log::debug!("a bond that has ended stays known to the kernel: {error}");
                }
            }
            #[cfg(test)]
            Job::Tell(done) => done.send(()).expect("somebody waits for it"),
        }
    }

    fn bring_in(&self) {
        let is_wanted = matches!(&*lock(&self.0.state), State::Coming);
        let folder = lock(&self.0.folder).clone().filter(|_| is_wanted);
        if let Some(folder) = folder {
            let state = self.opened(&folder);
            *lock(&self.0.state) = state;
            heap::give_back();
        }
    }

    fn open_folder(&self) -> Option<PathBuf> {
        let is_open = matches!(&*lock(&self.0.state), State::Open(_));
        lock(&self.0.folder).clone().filter(|_| is_open)
    }

    /// As if another thread were waiting for the kernel, while this lives.
    #[cfg(test)]
    pub fn wait(&self) -> impl Drop + '_ {
        lock(&self.0.waiting)
    }

    /// Returns when the thread has done all that was left to it.
    #[cfg(test)]
    pub fn settle(&self) {
        let (done, told) = std::sync::mpsc::channel();
        self.0.entering.leave(Job::Tell(done), self.worker()).unwrap();
        told.recv().unwrap();
    }

    /// As if it were time to try again.
    #[cfg(test)]
    pub fn hurry(&self) {
        if let State::Without { again: Some(again), .. } = &mut *lock(&self.0.state) {
            *again = Instant::now();
        }
    }

    /// What is prepared for a port, if it is known as a port.
    pub fn armed(&self, port: PortId) -> io::Result<Option<Armed>> {
        self.with(
            |opened| match opened.armed.get(&opened.key(port), 0).map_err(map_error) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                found => found.map(Some),
            },
        )
        .unwrap_or(Ok(None))
    }

    /// Says what is to be done if a port is lost, and with which others.
    pub fn arm(&self, port: PortId, value: Armed) -> io::Result<()> {
        self.with(|opened| {
            let key = opened.key(port);
            opened.armed.insert(key, value, 0).map_err(map_error)
        })
        .unwrap_or(Ok(()))
    }

    /// A port leaves.
    pub fn forget_port(&self, port: PortId) -> io::Result<()> {
        self.with(|opened| {
            let key = opened.key(port);
            gone_is_fine(opened.armed.remove(&key))
        })
        .unwrap_or(Ok(()))
    }

    /// Forgets those ports of a bond, known from an earlier agent, that it has not any more.
    pub fn forget_other_ports(&self, bond: u32, is_port: impl Fn(PortId) -> bool) -> io::Result<()> {
        let found = self.with(|opened| opened.found.get(&bond).cloned()).flatten();
        for port in found.into_iter().flatten().filter(|port| !is_port(*port)) {
            // It may be another bond's by now.
            if self.armed(port)?.is_some_and(|entry| entry.bond == bond) {
                self.forget_port(port)?;
            }
        }
        Ok(())
    }

    /// Takes up to `budget` notes, and which bonds have entered. When all notes have been read, it is known whether others are missing.
    pub fn take_reports(&self, budget: usize, sink: &mut Vec<Report>) -> Drained {
        let entered = self.0.entering.take_entered().into_iter();
        sink.extend(entered.map(|bond| Report::FailsOver { bond }));
        let read = self.with(|opened| {
            for _ in 0..budget {
                let Some(note) = opened.losses.next() else {
                    // A count that cannot be read has not been read either next time.
                    sink.extend(opened.has_missed().unwrap_or_default().then_some(Report::Lost));
                    return Drained::Empty;
                };
                let loss = Loss::read(&note);
                sink.extend(loss.map(|loss| Report::CarrierLost {
                    bond: loss.bond,
                    port: PortId(loss.ifindex),
                    at: Time::from_nanos(loss.at),
                    failed_over: loss.failed_over,
                }));
            }
            Drained::More
        });
        read.unwrap_or(Drained::Empty)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Opened) -> T) -> Option<T> {
        match &mut *lock(&self.0.state) {
            State::Open(opened) => Some(work(opened)),
            State::Unopened | State::Coming | State::Without { .. } => None,
        }
    }
}

impl State {
    fn without(error: &io::Error) -> State {
        let again = may_pass(error).then(|| Instant::now() + PAUSE);
        match again {
            Some(_) => log::warn!("no failover in the kernel for now: {error}"),
            None => log::info!("no failover in the kernel: {error}"),
        }
        let why = error.to_string();
        State::Without { why, again }
    }
}

impl AsRawFd for InKernel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.ready.0.as_raw_fd()
    }
}

/// What is gone needs not be removed.
fn gone(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// Whether another attempt may do better.
fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind::{ArgumentListTooLong, Interrupted, OutOfMemory, ResourceBusy, StorageFull, WouldBlock};
    let passing = [
        // Other programs may leave the function.
        ArgumentListTooLong,
        Interrupted,
        OutOfMemory,
        ResourceBusy,
        StorageFull,
        WouldBlock,
    ];
    passing.contains(&error.kind())
}

const READABLE: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);
/// Between two attempts that no new bond asks for: each may take some hundred milliseconds of a processor.
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_other_programs_trace_is_tried_again() {
        let may_pass = |errno| super::may_pass(&io::Error::from_raw_os_error(errno));
        assert!(may_pass(libc::E2BIG) && may_pass(libc::EBUSY) && !may_pass(libc::EPERM));
    }

    #[test]
    fn before_the_first_bond_it_is_known_whether_it_was_asked_for() {
        let why_not = |choice| InKernel::new(choice).unwrap().why_not();
        assert_eq!(why_not(FailoverChoice::Off).as_deref(), Some(NOT_ASKED_FOR));
        assert_ne!(why_not(FailoverChoice::Auto).as_deref(), Some(NOT_ASKED_FOR));
    }
}

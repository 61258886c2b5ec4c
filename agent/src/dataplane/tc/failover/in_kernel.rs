//! The program of one agent, and what it is told of ports.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use aya::maps::MapData;
use bond_modes::PortId;
use bond_monitors::Time;
use log::Level;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::attempts::{Said, later, later_if_it_may_pass, may_pass};
use super::entering::{Entered, Entering, Entrant, Job, Then, Work};
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

/// Why there is none for an agent without the lock.
const NOT_OURS: &str = "another agent serves the bonds of this network namespace";

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
    /// When bonds that the kernel refused are to enter again.
    enter_again: Mutex<Option<Instant>>,
    /// Says where the pins are to be, if this agent has the lock now. Asked with nothing locked.
    locked_folder: OnceLock<Box<dyn Fn() -> Option<PathBuf> + Send + Sync>>,
    /// Where it is pinned, once a bond has needed it.
    folder: Mutex<Option<PathBuf>>,
    /// Locked for single requests to ordinary maps.
    state: Mutex<State>,
    /// Why it could not come, and why another build's could not be exchanged, as the log has it.
    said: Said,
    exchange_said: Said,
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
            enter_again: Mutex::default(),
            locked_folder: OnceLock::new(),
            folder: Mutex::new(None),
            state: Mutex::new(State::Unopened),
            said: Said::default(),
            exchange_said: Said::default(),
        })))
    }

    /// Takes program and maps over, or has the thread bring them into the kernel, if that was not tried before. What failed for a
    /// reason that may pass the thread tries again, whoever asks meanwhile.
    pub fn open(&self, at: &Path) {
        let is_new = || matches!(&*lock(&self.0.state), State::Unopened);
        if !is_new() {
            return;
        }
        let _waiting = lock(&self.0.waiting);
        if is_new() {
            *lock(&self.0.folder) = Some(at.to_owned());
            let comes = self.0.choice == FailoverChoice::Auto && !open::is_there(at);
            let state = match comes {
                false => self.opened(at),
                true => State::Coming,
            };
            *lock(&self.0.state) = state;
            self.call();
        }
    }

    /// Another agent has the folder: nothing of it is opened, changed or removed until the thread finds that it has not any more.
    pub fn wait_for_lock(&self) {
        let mut state = lock(&self.0.state);
        if self.0.choice == FailoverChoice::Auto && matches!(&*state, State::Unopened) {
            *state = State::not_ours();
            drop(state);
            self.call();
        }
    }

    /// Who says where the pins are to be, if this agent has the lock now.
    pub fn ask_for_folder(&self, folder: impl Fn() -> Option<PathBuf> + Send + Sync + 'static) {
        let _ = self.0.locked_folder.set(Box::new(folder));
    }

    /// The thread is to look at the state.
    fn call(&self) {
        let has_work = match &*lock(&self.0.state) {
            State::Coming => true,
            State::Without { again, .. } => again.is_some(),
            State::Open(opened) => opened.exchange.is_some(),
            State::Unopened => false,
        };
        if has_work && let Err(error) = self.0.entering.leave(Job::Open, self.worker()) {
            *lock(&self.0.state) = self.refused(&error);
        }
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
            Ok(opened) => {
                self.0.said.end();
                State::Open(Box::new(opened))
            }
            Err(error) => self.refused(&error),
        }
    }

    /// There is none, for this reason.
    fn refused(&self, error: &io::Error) -> State {
        let (why, again) = (error.to_string(), later_if_it_may_pass(error));
        match again {
            Some(_) => self.0.said.say(
                Level::Warn,
                "no failover in the kernel for now, so bondd moves the traffic itself",
                &why,
            ),
            None => self.0.said.say(
                Level::Info,
                "no failover in the kernel, so bondd moves the traffic itself",
                &why,
            ),
        };
        State::Without { why, again }
    }

    /// Forgets bonds whose pins are gone. May wait for the kernel, with nothing locked.
    pub fn sweep(&self) -> io::Result<()> {
        self.open_folder()
            .map_or(Ok(()), |folder| open::sweep(&folder).map(drop))
    }

    /// The last bond is gone: takes the program out of the kernel. What the thread has yet to do for bonds is dropped first, so this
    /// waits for no more than what it is at work with.
    pub fn close(&self) -> io::Result<()> {
        let folder = lock(&self.0.folder).take();
        let mut state = lock(&self.0.state);
        let before = match &*state {
            State::Unopened | State::Without { again: None, .. } => None,
            _ => Some(std::mem::replace(&mut *state, State::Unopened)),
        };
        drop(state);
        drop(before);
        self.0.entering.clear();
        let Some(folder) = folder else { return Ok(()) };
        let _waiting = lock(&self.0.waiting);
        folder::remove(&folder)
    }

    /// Why the kernel does not fail over by itself; nothing if it does.
    pub fn why_not(&self) -> Option<String> {
        match &*lock(&self.0.state) {
            State::Open(_) => None,
            State::Coming => Some("the program is brought into the kernel now".to_owned()),
            State::Unopened if self.0.choice == FailoverChoice::Off => Some(NOT_ASKED_FOR.to_owned()),
            State::Unopened => Some("not looked for before the first bond".to_owned()),
            State::Without { why, .. } => Some(why.clone()),
        }
    }

    /// Whether it will not do so later either.
    pub fn is_hopeless(&self) -> bool {
        match &*lock(&self.0.state) {
            State::Coming | State::Open(_) => false,
            State::Unopened => true,
            State::Without { again, .. } => again.is_none(),
        }
    }

    /// Whether the program is there.
    pub fn is_open(&self) -> bool {
        self.open_folder().is_some()
    }

    /// Whether the program writes the maps `transmit` and `rules` of a bond.
    pub fn knows(&self, ifindex: u32, [transmit, rules]: &[MapData; 2]) -> io::Result<bool> {
        let Some(folder) = self.open_folder() else {
            return Ok(false);
        };
        Ok(open::is_entered(&folder, TRANSMITS, ifindex, transmit)?
            && open::is_entered(&folder, RULES_OF, ifindex, rules)?)
    }

    /// Lets it do so as soon as it can. Then this is done, and the bond is reported.
    pub fn enter(
        &self,
        ifindex: u32,
        maps: Box<dyn Fn() -> io::Result<[MapData; 2]> + Send>,
        then: Then,
    ) -> io::Result<()> {
        self.0.entering.enter(ifindex, Entrant { maps, then }, self.worker())
    }

    /// The program has nothing to do with a bond any more. The entries of its ports are to be removed before.
    pub fn forget(&self, ifindex: u32) {
        drop(self.0.entering.take(ifindex));
        let may_know = matches!(&*lock(&self.0.state), State::Coming | State::Open(_));
        if may_know && let Err(error) = self.0.entering.leave(Job::Leave(ifindex), self.worker()) {
            log::debug!("a bond that has ended stays known to the kernel: {error}");
        }
    }

    fn worker(&self) -> impl Work {
        let this = Arc::downgrade(&self.0);
        move |job| this.upgrade().and_then(|inner| InKernel(inner).work(job))
    }

    fn work(&self, job: Option<Job>) -> Option<Instant> {
        match job {
            Some(Job::Enter(bond)) => self.let_in(bond),
            Some(Job::Leave(bond)) => self.let_out(bond),
            Some(Job::Open) | None => self.look_after(),
            #[cfg(test)]
            Some(Job::Tell(done)) => {
                self.look_after();
                done.send(()).expect("somebody waits for it");
            }
        }
        self.due()
    }

    /// Brings the program in, or tries that again, or exchanges another one's, and lets those in that could not enter before; whichever
    /// is due.
    fn look_after(&self) {
        let is_due = |at: &Instant| *at <= Instant::now();
        let (open, exchange) = match &*lock(&self.0.state) {
            State::Coming => (true, false),
            State::Without { again, .. } => (again.as_ref().is_some_and(is_due), false),
            State::Open(opened) => (false, opened.exchange.as_ref().is_some_and(is_due)),
            State::Unopened => (false, false),
        };
        if open {
            self.bring_in();
        }
        if exchange {
            self.exchange();
        }
        if open || lock(&self.0.enter_again).take_if(|at| is_due(at)).is_some() {
            self.0.entering.coming().into_iter().for_each(|bond| self.let_in(bond));
        }
    }

    /// When that is to be looked at without a job.
    fn due(&self) -> Option<Instant> {
        let enter = *lock(&self.0.enter_again);
        let state = match &*lock(&self.0.state) {
            State::Without { again, .. } => *again,
            State::Open(opened) => opened.exchange,
            State::Unopened | State::Coming => None,
        };
        [enter, state].into_iter().flatten().min()
    }

    fn let_in(&self, bond: u32) {
        let Some(mut entrant) = self.0.entering.take(bond) else {
            return;
        };
        let _waiting = lock(&self.0.waiting);
        let Some(folder) = self.open_folder() else {
            (entrant.then)(Entered::NoProgram(self.why_not().unwrap_or_default()));
            if !self.is_hopeless() {
                self.0.entering.put_back(bond, entrant);
            }
            return;
        };
        let entered = (entrant.maps)().and_then(|[transmit, rules]| {
            open::enter(&folder, TRANSMITS, bond, &transmit)?;
            open::enter(&folder, RULES_OF, bond, &rules)
        });
        match entered {
            Ok(()) => {
                (entrant.then)(Entered::Yes);
                if let Err(error) = self.0.entering.tell(bond) {
                    log::warn!("cannot tell that a bond can fail over in the kernel: {error}");
                }
            }
            Err(error) => {
                let again = may_pass(&error);
                (entrant.then)(Entered::No(error));
                if again {
                    self.0.entering.put_back(bond, entrant);
                    lock(&self.0.enter_again).get_or_insert_with(later);
                }
            }
        }
    }

    fn let_out(&self, bond: u32) {
        // Who takes the program out has all of it removed, and is not to wait.
        if !self.is_open() {
            return;
        }
        let _waiting = lock(&self.0.waiting);
        let left = self.open_folder().map_or(Ok(()), |folder| open::forget(&folder, bond));
        if let Err(error) = left.or_else(gone) {
            log::debug!("a bond that has ended stays known to the kernel: {error}");
        }
    }

    fn bring_in(&self) {
        let comes = matches!(&*lock(&self.0.state), State::Coming);
        let folder = match comes {
            true => lock(&self.0.folder).clone(),
            false => self.0.locked_folder.get().and_then(|folder| folder()),
        };
        let _waiting = lock(&self.0.waiting);
        let is_wanted = || {
            matches!(
                &*lock(&self.0.state),
                State::Coming | State::Without { again: Some(_), .. }
            )
        };
        if !is_wanted() {
            return;
        }
        let state = match &folder {
            None => State::not_ours(),
            Some(folder) => {
                *lock(&self.0.folder) = Some(folder.clone());
                self.opened(folder)
            }
        };
        // The last bond may have gone meanwhile.
        if is_wanted() {
            *lock(&self.0.state) = state;
        }
        heap::give_back();
    }

    fn exchange(&self) {
        let _waiting = lock(&self.0.waiting);
        let Some(folder) = self.open_folder() else { return };
        let exchanged = open::exchange(&folder);
        match &exchanged {
            Ok(_) => self.0.exchange_said.end(),
            Err(error) => {
                let what = "the program of another build goes on in the kernel";
                self.0.exchange_said.say(Level::Warn, what, &error.to_string());
            }
        }
        self.with(|opened| match exchanged {
            Ok(link) => opened.exchanged(link),
            Err(error) => opened.exchange = later_if_it_may_pass(&error),
        });
        heap::give_back();
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

    /// As if the process ended: the thread begins nothing any more.
    #[cfg(test)]
    pub fn end(&self) {
        self.0.entering.clear();
        let mut state = lock(&self.0.state);
        if matches!(&*state, State::Coming) {
            *state = State::Unopened;
        }
        drop(state);
        drop(lock(&self.0.waiting));
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
        let now = Instant::now();
        let hasten = |at: &mut Option<Instant>| *at = at.map(|_| now);
        match &mut *lock(&self.0.state) {
            State::Without { again, .. } => hasten(again),
            State::Open(opened) => hasten(&mut opened.exchange),
            State::Unopened | State::Coming => {}
        }
        hasten(&mut lock(&self.0.enter_again));
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
    /// Another agent has the folder.
    fn not_ours() -> State {
        State::Without {
            why: NOT_OURS.to_owned(),
            again: Some(later()),
        }
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

const READABLE: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_first_bond_it_is_known_whether_it_was_asked_for() {
        let why_not = |choice| InKernel::new(choice).unwrap().why_not();
        assert_eq!(why_not(FailoverChoice::Off).as_deref(), Some(NOT_ASKED_FOR));
        assert_ne!(why_not(FailoverChoice::Auto).as_deref(), Some(NOT_ASKED_FOR));
    }
}

//! Signals for the loop: each sets a flag and then writes to a pipe that wakes the loop up.
//!
//! A stray signal must not end the agent, because there is no failover without it. So every signal that would end a program is
//! caught, except requests to end and faults of the program.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use nix::sys::signal::{self, SigHandler, Signal};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// The signals of this process that bondd has taken over.
pub struct Signals {
    /// SIGTERM or SIGINT was received: stop, and leave forwarding as it is.
    stop: Arc<AtomicBool>,
    /// The signals that change nothing: their numbers, and whether they were received since the last look.
    without_effect: Vec<(i32, Arc<AtomicBool>)>,
    pipe: UnixStream,
}

impl Signals {
    /// Takes the signals over for the whole process. The error is the system's.
    pub fn new() -> io::Result<Signals> {
        let (reader, writer) = StdStream::pair()?;
        reader.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            catch(signal, &stop, &writer)?;
        }
        let mut without_effect = Vec::new();
        for number in WITHOUT_EFFECT.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
            let received = Arc::new(AtomicBool::new(false));
            catch(number, &received, &writer)?;
            without_effect.push((number, received));
        }
        for signal in IGNORED {
            // SAFETY: no handler of ours is replaced, and ignoring runs no code.
            unsafe { signal::signal(signal, SigHandler::SigIgn)? };
        }
        Ok(Signals {
            stop,
            without_effect,
            pipe: UnixStream::from_std(reader),
        })
    }

    /// None, without a change to how the process takes signals.
    #[cfg(test)]
    pub(crate) fn none() -> io::Result<Signals> {
        Ok(Signals {
            stop: Arc::default(),
            without_effect: Vec::new(),
            pipe: UnixStream::pair()?.0,
        })
    }

    /// Makes the loop wake up for signals.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.pipe, token, Interest::READABLE)
    }

    /// Empties the pipe, and logs the signals that change nothing. Ask [`Signals::stop_requested`] afterwards.
    pub fn drain(&mut self) {
        let mut buffer = [0; 64];
        while matches!(self.pipe.read(&mut buffer), Ok(read) if read > 0) {}
        for (number, received) in &self.without_effect {
            if received.swap(false, Ordering::Relaxed) {
                log::info!("received {}, which changes nothing; SIGTERM ends bondd", name(*number));
            }
        }
    }

    /// Whether the agent is asked to stop.
    pub fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Handles a signal. The flag is set first, so that it is set when the pipe wakes the loop up.
fn catch(signal: i32, received: &Arc<AtomicBool>, pipe: &StdStream) -> io::Result<()> {
    flag::register(signal, Arc::clone(received))?;
    low_level::pipe::register(signal, OwnedFd::from(pipe.try_clone()?))?;
    Ok(())
}

/// As kill(1) spells it.
fn name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => format!("SIGRTMIN+{}", number - libc::SIGRTMIN()),
    }
}

/// Signals that end a program unless they are caught, and that neither ask it to end nor tell of a fault in it: a terminal that
/// was closed, the operator's, timers that the program which started bondd has set, the limits on processor time. The real-time
/// signals are treated alike. [signal(7), execve(2), setrlimit(2)]
const WITHOUT_EFFECT: [i32; 10] = [
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
];

/// Signals that only say why a system call cannot be done, which then fails or goes on: a peer that has closed, a file beyond the
/// limit, and a terminal that belongs to another job, for which bondd would be stopped.
const IGNORED: [Signal; 4] = [Signal::SIGPIPE, Signal::SIGXFSZ, Signal::SIGTTIN, Signal::SIGTTOU];

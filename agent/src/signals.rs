//! Signals for the loop: each sets a flag and then writes to one pipe, which wakes the loop up.
//!
//! A stray signal must not end the agent, because there is no failover without it. So every signal that would end a program is
//! caught, except requests to end and faults of the program.

use std::io;
use std::os::unix::net::UnixStream as StdStream;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use nix::sys::signal::{self, SigHandler, Signal};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

/// The signals of this process that bondd has taken over.
pub struct Signals {
    received: SignalDelivery<UnixStream, SignalOnly>,
    /// SIGTERM or SIGINT was received: stop, and leave forwarding as it is.
    stop: bool,
}

impl Signals {
    /// Takes the signals over for the whole process. The error is the system's.
    pub fn new() -> io::Result<Signals> {
        let without_effect = WITHOUT_EFFECT.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
        let signals = Signals::caught([SIGTERM, SIGINT].into_iter().chain(without_effect))?;
        for signal in IGNORED {
            // SAFETY: no handler of ours is replaced, and ignoring runs no code.
            unsafe { signal::signal(signal, SigHandler::SigIgn)? };
        }
        Ok(signals)
    }

    /// None, without a change to how the process takes signals.
    #[cfg(test)]
    pub(crate) fn none() -> io::Result<Signals> {
        Signals::caught([])
    }

    /// All of them write to one pipe.
    fn caught(numbers: impl IntoIterator<Item = i32>) -> io::Result<Signals> {
        let (reader, writer) = StdStream::pair()?;
        reader.set_nonblocking(true)?;
        let reader = UnixStream::from_std(reader);
        Ok(Signals {
            received: SignalDelivery::with_pipe(reader, writer, SignalOnly, numbers)?,
            stop: false,
        })
    }

    /// Makes the loop wake up for signals.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(self.received.get_read_mut(), token, Interest::READABLE)
    }

    /// Empties the pipe, and logs the signals that change nothing. Ask [`Signals::stop_requested`] afterwards.
    pub fn drain(&mut self) {
        for number in self.received.pending() {
            match number {
                SIGTERM | SIGINT => self.stop = true,
                _ => log::info!("received {}, which changes nothing; SIGTERM ends bondd", name(number)),
            }
        }
    }

    /// Whether the agent is asked to stop.
    pub fn stop_requested(&self) -> bool {
        self.stop
    }
}

/// As kill(1) spells it.
fn name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => format!("SIGRTMIN+{}", number - libc::SIGRTMIN()),
    }
}

/// Signals that end a program unless they are caught, and are neither requests to end nor faults of the program: a terminal that
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

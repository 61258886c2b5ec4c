//! Signals as something the loop can wait for: a flag each, and a pipe that is poked.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// SIGTERM and SIGINT: stop, and leave forwarding as it is.
pub struct Signals {
    stop: Arc<AtomicBool>,
    pipe: UnixStream,
}

impl Signals {
    /// Takes the signals over for the whole process.
    pub fn new() -> io::Result<Signals> {
        let (reader, writer) = StdStream::pair()?;
        reader.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // The flag first: when the pipe is poked it is set.
            flag::register(signal, Arc::clone(&stop))?;
            low_level::pipe::register(signal, OwnedFd::from(writer.try_clone()?))?;
        }
        Ok(Signals {
            stop,
            pipe: UnixStream::from_std(reader),
        })
    }

    /// Makes the loop wake up for signals.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.pipe, token, Interest::READABLE)
    }

    /// Empties the pipe; test the flags afterwards.
    pub fn drain(&mut self) {
        let mut buffer = [0; 64];
        while matches!(self.pipe.read(&mut buffer), Ok(read) if read > 0) {}
    }

    /// Whether the agent is asked to stop.
    pub fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

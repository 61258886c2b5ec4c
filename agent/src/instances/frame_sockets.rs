//! Sockets that receive the frames for monitors and modes, on the ports of their bonds.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};

use bond_modes::PortId;
use bond_monitors::WantedFrames;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::packet::FrameSocket;
use crate::vital_thread;

/// One socket for each port whose frames are wanted, registered with the loop.
pub(super) struct FrameSockets {
    registry: Registry,
    pub(super) open: BTreeMap<PortId, FrameSocket>,
    /// To the thread that closes them, because that waits.
    closed: Sender<FrameSocket>,
    /// Those that it has not closed yet.
    closing: Arc<AtomicUsize>,
}

impl FrameSockets {
    /// Starts the thread that closes sockets. It has ordinary priority, and nothing waits for it: until a socket is closed, it keeps a
    /// descriptor, and what it receives is not read.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub(super) fn new(registry: Registry) -> io::Result<FrameSockets> {
        let (closed, waiting) = mpsc::channel::<FrameSocket>();
        let closing = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&closing);
        let close_all = move || {
            for listener in waiting {
                drop(listener);
                left.fetch_sub(1, Ordering::Relaxed);
            }
        };
        vital_thread::start("bondd-closer", close_all)?;
        Ok(FrameSockets {
            registry,
            open: BTreeMap::new(),
            closed,
            closing,
        })
    }

    /// Receives these frames on a port, and no others. A socket that is open stays so, also for none.
    pub(super) fn hear(&mut self, port: PortId, wanted: &WantedFrames) -> io::Result<()> {
        if let Some(listener) = self.open.get_mut(&port) {
            return listener.listen_for(wanted);
        }
        if wanted.kinds.is_empty() {
            return Ok(());
        }
        let mut listener = FrameSocket::unbound(port.0)?;
        let begun = listener.begin(wanted).and_then(|()| {
            let token = Token(FIRST_FRAME_TOKEN + port.0 as usize);
            self.registry
                .register(&mut SourceFd(&listener.as_raw_fd()), token, Interest::READABLE)
        });
        match begun {
            Ok(()) => drop(self.open.insert(port, listener)),
            Err(_) => self.close_later(listener),
        }
        begun
    }

    /// Receives no frames on a port.
    pub(super) fn close(&mut self, port: PortId) {
        if let Some(listener) = self.open.remove(&port) {
            // Closing is not enough, and comes later: the descriptor is registered by its number.
            let _ = self.registry.deregister(&mut SourceFd(&listener.as_raw_fd()));
            self.close_later(listener);
        }
    }

    /// Whether so many wait to be closed that nobody should cause more for now: the kernel closes some dozens a second.
    pub(super) fn are_too_many_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed) > MOST_CLOSING
    }

    fn close_later(&self, listener: FrameSocket) {
        self.closing.fetch_add(1, Ordering::Relaxed);
        // The thread ends only with the agent.
        let _ = self.closed.send(listener);
    }
}

/// See [`FrameSockets::are_too_many_closing`].
const MOST_CLOSING: usize = 128;

/// The token of a port is this plus its interface index, which has 31 bits: above all others.
pub(super) const FIRST_FRAME_TOKEN: usize = 1 << (usize::BITS - 1);

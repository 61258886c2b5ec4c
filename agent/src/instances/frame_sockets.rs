//! Sockets that receive the frames for monitors and modes, on the ports of their bonds.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use bond_modes::PortId;
use bond_monitors::{Time, WantedFrames};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::netlink::Drained;
use crate::packet::FrameSocket;
use crate::vital_thread;

/// One socket for each port whose frames are wanted, registered with the loop.
pub(super) struct FrameSockets {
    registry: Registry,
    pub(super) open: BTreeMap<PortId, FrameSocket>,
    /// What was read lately.
    lately: BTreeMap<PortId, Lately>,
    /// Those that are not read before that time.
    paused: BTreeMap<PortId, Time>,
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
            lately: BTreeMap::new(),
            paused: BTreeMap::new(),
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
        let begun = listener
            .begin(wanted)
            .and_then(|()| register(&self.registry, port, &listener));
        match begun {
            Ok(()) => drop(self.open.insert(port, listener)),
            Err(_) => self.close_later(listener),
        }
        begun
    }

    /// Receives no frames on a port.
    pub(super) fn close(&mut self, port: PortId) {
        self.lately.remove(&port);
        self.paused.remove(&port);
        if let Some(listener) = self.open.remove(&port) {
            // Closing is not enough, and comes later: the descriptor is registered by its number.
            let _ = self.registry.deregister(&mut SourceFd(&listener.as_raw_fd()));
            self.close_later(listener);
        }
    }

    /// As [`FrameSocket::read`]. A port that had its share is not read until the end of its [`SPAN`], and wakes nobody: a flood of frames
    /// that pass the filter, such as forged answers, must not keep the loop busy. They say nothing that the first of them does not.
    pub(super) fn read(
        &mut self,
        now: Time,
        port: PortId,
        budget: usize,
        sink: &mut Vec<Vec<u8>>,
    ) -> io::Result<Drained> {
        let Some(socket) = self.open.get_mut(&port).filter(|_| !self.paused.contains_key(&port)) else {
            return Ok(Drained::Empty);
        };
        let before = sink.len();
        let drained = socket.read(budget, sink)?;
        let lately = self.lately.entry(port).or_insert_with(|| Lately::begin(now));
        if now >= lately.end {
            *lately = Lately::begin(now);
        }
        lately.frames += sink.len() - before;
        lately.turns += 1;
        if lately.frames < MOST_FRAMES && lately.turns < MOST_TURNS {
            return Ok(drained);
        }
        self.registry.deregister(&mut SourceFd(&socket.as_raw_fd()))?;
        self.paused.insert(port, lately.end);
        Ok(Drained::Empty)
    }

    /// When the next paused port is to be read again.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.paused.values().min().copied()
    }

    /// Has ports read again whose pause is over. Those that cannot be are returned, with the reason.
    pub(super) fn handle_timeout(&mut self, now: Time) -> Vec<(PortId, io::Error)> {
        let over = self.paused.iter().filter(|(_, end)| **end <= now);
        let over: Vec<PortId> = over.map(|(port, _)| *port).collect();
        over.iter().for_each(|port| {
            self.paused.remove(port);
        });
        let registered = over.into_iter().filter_map(|port| {
            let socket = self.open.get(&port)?;
            Some((port, register(&self.registry, port, socket).err()?))
        });
        registered.collect()
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

/// What there already is to be read is reported at once.
fn register(registry: &Registry, port: PortId, socket: &FrameSocket) -> io::Result<()> {
    let token = Token(FIRST_FRAME_TOKEN + port.0 as usize);
    registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)
}

/// What was read of a port within a [`SPAN`].
struct Lately {
    end: Time,
    frames: usize,
    turns: usize,
}

impl Lately {
    fn begin(now: Time) -> Lately {
        Lately {
            end: now + SPAN,
            frames: 0,
            turns: 0,
        }
    }
}

/// A port is paused until the end of so long a time when it had its share in it. An answer counts so much later at most.
const SPAN: Duration = Duration::from_millis(20);

/// A port's share: that of the monitor with the most targets, asked every 10 ms, is half of it.
const MOST_FRAMES: usize = 128;

/// And turns of the loop, each of which costs as much as some frames.
const MOST_TURNS: usize = 32;

/// See [`FrameSockets::are_too_many_closing`].
const MOST_CLOSING: usize = 128;

/// The token of a port is this plus its interface index, which has 31 bits: above all others.
pub(super) const FIRST_FRAME_TOKEN: usize = 1 << (usize::BITS - 1);

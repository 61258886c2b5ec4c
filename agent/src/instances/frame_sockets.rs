//! Sockets that hear the frames that monitors and modes want to see, on the ports of their bonds.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use bond_modes::{Event, Machine, PortId};
use bond_monitors::{FrameKinds, Time};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::Instances;
use crate::netlink::Drained;
use crate::packet::FrameSocket;

/// One socket for each port that is to be heard, registered with the loop.
pub(super) struct FrameSockets {
    registry: Registry,
    open: BTreeMap<PortId, FrameSocket>,
}

impl FrameSockets {
    pub(super) fn new(registry: Registry) -> FrameSockets {
        FrameSockets {
            registry,
            open: BTreeMap::new(),
        }
    }

    /// Hears frames of these kinds on a port, and no others.
    fn hear(&mut self, port: PortId, kinds: FrameKinds) -> std::io::Result<()> {
        if let Some(listener) = self.open.get_mut(&port) {
            return listener.listen_for(kinds);
        }
        let listener = FrameSocket::open(port.0, kinds)?;
        let token = Token(FIRST_EAR + port.0 as usize);
        self.registry
            .register(&mut SourceFd(&listener.as_raw_fd()), token, Interest::READABLE)?;
        self.open.insert(port, listener);
        Ok(())
    }

    fn close(&mut self, port: PortId) {
        if let Some(listener) = self.open.remove(&port) {
            // Closing would do, were the descriptor not registered by its number.
            let _ = self.registry.deregister(&mut SourceFd(&listener.as_raw_fd()));
        }
    }
}

impl Instances {
    /// The port whose frames a token stands for.
    pub fn frame_token(token: Token) -> Option<PortId> {
        let ifindex = token.0.checked_sub(FIRST_EAR)?;
        u32::try_from(ifindex).ok().map(PortId)
    }

    /// Hands up to `budget` frames that a port has heard to its bond; with [`Drained::More`] the caller owes another call.
    pub fn read_frames(&mut self, now: Time, port: PortId, budget: usize) -> Drained {
        let Some(listener) = self.frame_sockets.open.get_mut(&port) else {
            return Drained::Empty;
        };
        let mut frames = Vec::new();
        let drained = listener.read(budget, &mut frames).unwrap_or_else(|error| {
            log::warn!("cannot hear {port}: {error}");
            self.frame_sockets.close(port);
            Drained::Empty
        });
        if let Some(at) = self.owner_of(port) {
            for frame in frames {
                self.bonds[at].bond.handle_event(now, Event::Frame { port, frame });
            }
            self.drain(now, at);
        }
        drained
    }

    /// Hears what a bond's monitors and its mode want to see, and nothing else.
    pub(super) fn listen(&mut self, at: usize) {
        let instance = &mut self.bonds[at];
        let kinds = instance.bond.wants();
        for port in instance.bond.ports().iter().map(|port| port.id) {
            if kinds.is_empty() {
                self.frame_sockets.close(port);
            } else {
                let opened = self.frame_sockets.hear(port, kinds);
                let doing = format!("hear what arrives at {port}");
                instance.failures.note(&instance.name, &doing, opened);
            }
        }
    }

    /// Stops to hear a port that has left.
    pub(super) fn stop_listening(&mut self, port: PortId) {
        self.frame_sockets.close(port);
    }
}

/// Tokens of frame_sockets: an interface index, which has 31 bits, above all others.
const FIRST_EAR: usize = 1 << (usize::BITS - 1);

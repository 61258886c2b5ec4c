//! Sockets that receive the frames for monitors and modes, on the ports of their bonds.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use bond_modes::PortId;
use bond_monitors::FrameKinds;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::packet::FrameSocket;

/// One socket for each port whose frames are wanted, registered with the loop.
pub(super) struct FrameSockets {
    registry: Registry,
    pub(super) open: BTreeMap<PortId, FrameSocket>,
}

impl FrameSockets {
    pub(super) fn new(registry: Registry) -> FrameSockets {
        FrameSockets {
            registry,
            open: BTreeMap::new(),
        }
    }

    /// Receives frames of these kinds on a port, and no others.
    pub(super) fn hear(&mut self, port: PortId, kinds: FrameKinds) -> std::io::Result<()> {
        if let Some(listener) = self.open.get_mut(&port) {
            return listener.listen_for(kinds);
        }
        let listener = FrameSocket::open(port.0, kinds)?;
        let token = Token(FIRST_FRAME_TOKEN + port.0 as usize);
        self.registry
            .register(&mut SourceFd(&listener.as_raw_fd()), token, Interest::READABLE)?;
        self.open.insert(port, listener);
        Ok(())
    }

    pub(super) fn close(&mut self, port: PortId) {
        if let Some(listener) = self.open.remove(&port) {
            // Closing is not enough: the descriptor is registered by its number.
            let _ = self.registry.deregister(&mut SourceFd(&listener.as_raw_fd()));
        }
    }
}

/// The token of a port is this plus its interface index, which has 31 bits: above all others.
pub(super) const FIRST_FRAME_TOKEN: usize = 1 << (usize::BITS - 1);

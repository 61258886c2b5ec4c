//! Frames that ports hear, for the monitors and the mode of their bond.

use bond_modes::{Event, Machine, PortId};
use bond_monitors::Time;
use mio::Token;

use super::Instances;
use super::frame_sockets::FIRST_FRAME_TOKEN;
use super::id::InstanceId;
use super::logged_failures::Subject;
use crate::dataplane::name_of;
use crate::descriptors::why;
use crate::netlink::Drained;

impl Instances {
    /// The port whose socket has this token.
    pub fn frame_token(token: Token) -> Option<PortId> {
        let ifindex = token.0.checked_sub(FIRST_FRAME_TOKEN)?;
        u32::try_from(ifindex).ok().map(PortId)
    }

    /// Hands up to `budget` frames that a port has received to its bond; with [`Drained::More`] the caller owes another call.
    pub fn read_frames(&mut self, now: Time, port: PortId, budget: usize) -> Drained {
        let Some(listener) = self.frame_sockets.open.get_mut(&port) else {
            return Drained::Empty;
        };
        let mut frames = Vec::new();
        let drained = listener.read(budget, &mut frames).unwrap_or_else(|error| {
            log::warn!("cannot receive the frames of {}: {error}", name_of(port));
            self.frame_sockets.close(port);
            Drained::Empty
        });
        if let Some(at) = self.bonds.owner_of(port) {
            for frame in frames {
                self.bonds[at].bond.handle_event(now, Event::Frame { port, frame });
            }
            self.drain(now, at);
        }
        drained
    }

    /// Opens sockets for the frames that a bond's monitors and its mode ask for, and for no others. Those of a bond that is down stay
    /// open and receive nothing, because it may go down and up faster than the kernel closes them.
    pub(super) fn listen(&mut self, at: InstanceId) {
        let instance = &mut self.bonds[at];
        let wanted = instance.bond.wants();
        for (port, name) in instance.bond.ports().iter().map(|port| (port.id, port.name.clone())) {
            if wanted.kinds.is_empty() && instance.bond.is_up() {
                self.frame_sockets.close(port);
            } else {
                let opened = self.frame_sockets.hear(port, &wanted);
                let opened = opened.map_err(|error| why(&error));
                let doing = format!("receive the frames of {name}");
                instance
                    .failures
                    .record(&instance.name, Subject::Port(port), &doing, opened);
            }
        }
    }

    /// Closes the socket of a port that has left.
    pub(super) fn stop_listening(&mut self, port: PortId) {
        self.frame_sockets.close(port);
    }
}

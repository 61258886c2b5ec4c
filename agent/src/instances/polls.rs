//! What bonds asked for in the polls of a turn.

use bond_modes::PortId;
use bond_monitors::Time;

use super::id::InstanceId;
use crate::netlink::carriers::CarrierSocket;

/// The polls of a turn.
pub(super) struct Polls {
    pub(super) socket: CarrierSocket,
    /// Bonds that asked for carriers, and of which ports.
    pub(super) asked: Vec<(InstanceId, Vec<PortId>)>,
    /// Bonds that asked for the state of their own interface.
    pub(super) devices: Vec<InstanceId>,
    /// No round begins before. Polls get a limited share of the processor: at real-time priority more would keep other programs
    /// from it, until the kernel stopped the agent.
    pub(super) rest_until: Time,
}

impl Polls {
    pub(super) fn open() -> std::io::Result<Polls> {
        Ok(Polls {
            socket: CarrierSocket::open()?,
            asked: Vec::new(),
            devices: Vec::new(),
            rest_until: Time::ZERO,
        })
    }

    pub(super) fn ask(&mut self, at: InstanceId, ports: Vec<PortId>) {
        self.asked.push((at, ports));
    }

    pub(super) fn ask_device(&mut self, at: InstanceId) {
        self.devices.push(at);
    }
}

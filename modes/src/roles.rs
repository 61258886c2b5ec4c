//! The ports that carry the traffic, for the monitors.

use crate::ids::PortId;
use crate::port::Port;

/// Ports in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Roles {
    /// One port carries all traffic, the others wait. `None` while no port is usable.
    One(Option<PortId>),
    /// Every usable port carries traffic.
    Every,
}

impl Roles {
    /// The port that carries all traffic, if there is one.
    pub fn active(self) -> Option<PortId> {
        match self {
            Roles::One(active) => active,
            Roles::Every => None,
        }
    }

    /// Whether one port carries all traffic.
    pub fn is_one(self) -> bool {
        matches!(self, Roles::One(_))
    }

    /// Whether a port carries traffic.
    pub fn carries(self, port: &Port) -> bool {
        match self {
            Roles::One(active) => active == Some(port.id),
            Roles::Every => port.is_usable(),
        }
    }
}

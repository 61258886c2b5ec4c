//! Which ports carry the traffic, as far as those who watch the links need to know.

use crate::ids::PortId;
use crate::port::Port;

/// Who is in use at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Roles {
    /// One port carries everything, the others wait. None while no port is usable.
    One(Option<PortId>),
    /// Every usable port carries traffic.
    Every,
}

impl Roles {
    /// The port that carries everything, where one does.
    pub fn active(self) -> Option<PortId> {
        match self {
            Roles::One(active) => active,
            Roles::Every => None,
        }
    }

    /// Whether one port carries everything.
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

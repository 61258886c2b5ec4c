//! The MII monitor: what a driver says about its own wire, by event and by poll.

use serde::{Deserialize, Serialize};

use crate::link::Carrier;

/// Raw verdict about one port, before delays. [bond_main.c: bond_mii_monitor]
///
/// differs: the kernel's driver looks at each poll only; here a link event counts the moment it arrives, and the poll is the
/// net below it (the kernel may hold events back, up to one a second).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MiiMonitor {
    carrier: Carrier,
}

impl MiiMonitor {
    /// Starts from what the port showed when it was attached.
    pub fn new(carrier: Carrier) -> Self {
        MiiMonitor { carrier }
    }

    /// A link event, or the answer to a poll. Whichever is later wins.
    pub fn report(&mut self, carrier: Carrier) {
        self.carrier = carrier;
    }

    /// The verdict.
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }
}

//! The carrier monitor: what a driver says about its own wire, by event and by poll.

use serde::{Deserialize, Serialize};

use crate::link::Carrier;
use crate::monitor::{Ask, Fact, Monitor, Verdict};
use crate::time::Time;

/// Carrier of one port, before delays. [bond_main.c: bond_mii_monitor]
///
/// differs: the kernel's driver looks at each poll only; here a link event counts the moment it arrives, and the poll is the
/// net below it (the kernel may hold events back, up to one a second).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarrierMonitor {
    carrier: Carrier,
}

impl CarrierMonitor {
    /// Starts from what the port showed when it was attached.
    pub fn new(carrier: Carrier) -> Self {
        CarrierMonitor { carrier }
    }

    /// What was last reported.
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }
}

impl Monitor for CarrierMonitor {
    fn on_fact(&mut self, _now: Time, fact: Fact<'_>, _asks: &mut Vec<Ask>) {
        if let Fact::Carrier(carrier) = fact {
            self.carrier = carrier;
        }
    }

    fn verdict(&self) -> Verdict {
        if self.carrier.is_on() {
            Verdict::Up
        } else {
            Verdict::Down
        }
    }
}

//! The carrier monitor: carrier as reported by the driver, by events and polls.

use crate::link::Carrier;
use crate::monitor::{Ask, Fact, Monitor, Verdict};
use crate::time::Time;

/// Carrier of one port, before delays. [bond_main.c: bond_mii_monitor]
///
/// differs: the kernel's driver only polls. Here a link event counts when it arrives, and polls find changes whose events the
/// kernel delays (it may send only one a second).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarrierMonitor {
    carrier: Carrier,
}

impl CarrierMonitor {
    /// Starts from the carrier at attachment.
    pub fn new(carrier: Carrier) -> Self {
        CarrierMonitor { carrier }
    }

    /// The last report.
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

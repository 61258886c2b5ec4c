//! One port after the other. [bonding.rst: balance-rr]

use bond_monitors::Time;

use super::spreading::Speaker;
use super::{Announces, Change, Forwarding, Mode, ModeSaved, View};
use crate::ids::PortId;
use crate::outbox::Outbox;
use crate::plan::{ForwardingPlan, Spread, Tx};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BalanceRr {
    speaker: Speaker,
}

impl Mode for BalanceRr {
    fn on_change(&mut self, _now: Time, change: &Change<'_>, view: &View<'_>, _out: &mut Outbox) {
        self.speaker.on_change(change, view);
    }

    /// differs: the share of a dead port is spread over all others; the driver gives it to the next port.
    fn forwarding(&self, view: &View<'_>) -> Forwarding {
        let ports = view.senders();
        // The port that speaks for the bond may have lost its carrier just now.
        let speaker = self.speaker().filter(|port| ports.contains(port));
        let kind = Spread::RoundRobin {
            packets_per_port: view.options.packets_per_slave,
            igmp: speaker.or(ports.first().copied()),
        };
        Forwarding {
            steer: view.queues(),
            ..Forwarding::new(Tx { kind, ports }, view)
        }
    }

    /// The port of IGMP, so that a switch sees all memberships at one port.
    fn speaker(&self) -> Option<PortId> {
        self.speaker.port()
    }

    fn announces(&self) -> Announces {
        Announces {
            addresses: false,
            memberships: true,
        }
    }

    fn save(&self) -> ModeSaved {
        self.speaker.save()
    }

    fn adopt(&mut self, saved: &ModeSaved, _plan: &ForwardingPlan, view: &View<'_>, _out: &mut Outbox) {
        self.speaker.adopt(saved, view);
    }

    fn check(&self, view: &View<'_>) {
        self.speaker.check(view);
    }
}

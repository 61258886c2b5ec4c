//! One port after the other. [bonding.rst: balance-rr]

use super::spreading::{Spreading, Way};
use super::{Announces, Forwarding, View};
use crate::ids::PortId;
use crate::plan::{Spread, Tx};

pub(crate) type BalanceRr = Spreading<Turns>;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Turns;

impl Way for Turns {
    const TITLE: &'static str = "load balancing (round-robin)";

    /// IGMP leaves through the port that speaks for the bond, so that a switch sees all memberships at one port.
    ///
    /// differs: the share of a dead port is spread over all others; the driver gives it to the next port.
    fn forwarding(speaker: Option<PortId>, view: &View<'_>) -> Forwarding {
        let ports = view.senders();
        // The port that speaks for the bond may have lost its carrier just now.
        let speaker = speaker.filter(|port| ports.contains(port));
        let kind = Spread::RoundRobin {
            packets_per_port: view.options.packets_per_slave,
            igmp: speaker.or(ports.first().copied()),
        };
        Forwarding {
            steer: view.queues(),
            ..Forwarding::new(Tx { kind, ports }, view)
        }
    }

    fn announces() -> Announces {
        Announces {
            addresses: false,
            memberships: true,
        }
    }
}

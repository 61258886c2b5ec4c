//! One port after the other. [bonding.rst: balance-rr]

use std::collections::BTreeMap;

use crate::ids::PortId;
use crate::mode::{Mode, View};
use crate::plan::{Spread, TxPolicy};

pub(crate) struct BalanceRr;

impl Mode for BalanceRr {
    fn spread(&self) -> Spread {
        Spread::RoundRobin
    }

    /// differs: the driver counts dead ports too and gives their share to a neighbour; here it is spread over all that are left.
    fn tx(&self, view: &View<'_>) -> TxPolicy {
        let ports = view.senders();
        let Some(&first) = ports.first() else {
            return TxPolicy::Drop;
        };
        TxPolicy::RoundRobin {
            // The current port may have lost its carrier just now.
            igmp: view.choice.active.filter(|port| ports.contains(port)).unwrap_or(first),
            packets_per_port: view.options.packets_per_slave,
            ports,
        }
    }

    fn queues(&self, view: &View<'_>) -> BTreeMap<u16, PortId> {
        view.queues()
    }
}

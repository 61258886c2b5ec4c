//! One port carries everything, the others wait. [bonding.rst: active-backup]

use std::collections::BTreeMap;

use crate::ids::PortId;
use crate::mode::{Mode, View};
use crate::plan::{Accept, Spread, TxPolicy};
use crate::port::Port;

pub(crate) struct ActiveBackup;

impl Mode for ActiveBackup {
    fn spread(&self) -> Spread {
        Spread::One
    }

    fn has_active(&self) -> bool {
        true
    }

    fn tx(&self, view: &View<'_>) -> TxPolicy {
        view.choice.active.map_or(TxPolicy::Drop, TxPolicy::One)
    }

    fn queues(&self, view: &View<'_>) -> BTreeMap<u16, PortId> {
        view.queues()
    }

    /// The active port lets everything in, a backup port nothing. [bond_main.c: bond_should_deliver_exact_match]
    ///
    /// differs: the two ends of a cable never switch at the same moment. So a port that is not in use yet, and one that was
    /// just left, let in what is addressed to one station: nothing is lost while the far end is ahead of us or behind.
    fn rx(&self, view: &View<'_>) -> BTreeMap<PortId, Accept> {
        let accept = |port: &Port| {
            if view.choice.active == Some(port.id) || view.options.all_slaves_active {
                Some(Accept::All)
            } else if !port.is_usable() {
                Some(Accept::Unicast)
            } else {
                view.choice
                    .left
                    .filter(|left| left.port == port.id)
                    .map(|_| Accept::Unicast)
            }
        };
        view.ports
            .iter()
            .filter_map(|port| Some((port.id, accept(port)?)))
            .collect()
    }
}

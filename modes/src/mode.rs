//! What a mode is: who sends, and who is listened to.

use std::collections::BTreeMap;

use bond_monitors::LinkState;

use crate::choice::Choice;
use crate::ids::PortId;
use crate::options::{BondOptions, ModeName};
use crate::plan::{Accept, Spread, TxPolicy};
use crate::port::{Port, Ports};
use crate::{active_backup, balance_rr, balance_xor, broadcast};

/// One way to spread traffic. A mode has no state of its own: what it wants follows from the [`View`].
pub(crate) trait Mode: Sync {
    /// Whether one port carries everything, so that it matters who it is: addresses move with it, it is announced, it may have a
    /// primary. [bonding.h: bond_uses_primary]
    fn has_active(&self) -> bool {
        false
    }

    /// How they are spread.
    fn spread(&self) -> Spread;

    /// Where frames of the stack leave.
    fn tx(&self, view: &View<'_>) -> TxPolicy;

    /// Which transmit queues are bound to which port. [bond_main.c: bond_slave_override]
    fn queues(&self, _view: &View<'_>) -> BTreeMap<u16, PortId> {
        BTreeMap::new()
    }

    /// What is let in from which port. Without an active port that is everything, also from a port whose link counts as down.
    /// [bond_main.c: bond_should_deliver_exact_match, bond_set_slave_inactive_flags]
    fn rx(&self, view: &View<'_>) -> BTreeMap<PortId, Accept> {
        view.ports.iter().map(|port| (port.id, Accept::All)).collect()
    }
}

/// What a mode decides from.
pub(crate) struct View<'a> {
    pub ports: &'a Ports,
    pub choice: &'a Choice,
    pub options: &'a BondOptions,
}

impl View<'_> {
    /// The ports that have a transmit queue of their own and can send.
    pub fn queues(&self) -> BTreeMap<u16, PortId> {
        let bound = |port: &&Port| port.options.queue_id != 0 && port.link() == LinkState::Up && port.carrier().is_on();
        let ports = self.ports.iter().filter(bound);
        ports.map(|port| (port.options.queue_id, port.id)).collect()
    }

    /// Ports that may send in modes that spread traffic, in the order of attaching. [bonding.h: bond_slave_can_tx]
    ///
    /// differs: while no link is up, ports in downdelay go on sending; the driver drops everything.
    pub fn senders(&self) -> Vec<PortId> {
        let up = |port: &&Port| port.link() == LinkState::Up && port.carrier().is_on();
        let ids = |ports: Vec<&Port>| ports.into_iter().map(|port| port.id).collect::<Vec<_>>();
        let senders = ids(self.ports.iter().filter(up).collect());
        if senders.is_empty() {
            let going_down = |port: &&Port| matches!(port.link(), LinkState::GoingDown { .. });
            return ids(self.ports.iter().filter(going_down).collect());
        }
        senders
    }
}

/// The mode of that name.
pub(crate) fn of(name: ModeName) -> &'static dyn Mode {
    match name {
        ModeName::BalanceRr => &balance_rr::BalanceRr,
        ModeName::ActiveBackup => &active_backup::ActiveBackup,
        ModeName::BalanceXor => &balance_xor::BalanceXor,
        ModeName::Broadcast => &broadcast::Broadcast,
    }
}

/// How a bond with these options spreads traffic.
pub fn spread(options: &BondOptions) -> Spread {
    of(options.mode).spread()
}

//! Tries the ports of active-backup in turn while none works. [bond_main.c: bond_ab_arp_probe]

use bond_monitors::{Time, Trial};

use super::{Probing, running};
use crate::ids::PortId;
use crate::port::{Port, Ports};

impl Probing {
    /// Without an active port they are tried one after the other, one a tick. The first one tried is the second of the list.
    pub(super) fn next_candidate(&mut self, now: Time, ports: &mut Ports) -> Option<PortId> {
        let running = running(ports);
        let ids: Vec<PortId> = ports.iter().map(|port| port.id).collect();
        let from = self.candidate.or(ids.first().copied())?;
        let place = ids.iter().position(|id| *id == from).unwrap_or(0);
        let next = ids[place + 1..]
            .iter()
            .chain(&ids)
            .find(|id| running.contains(id))
            .copied();
        self.candidate = next;
        let arp = ports.get_mut(next?).and_then(Port::arp_mut)?;
        arp.set_trial(Trial::Candidate);
        arp.became_active(now);
        next
    }
}

//! One port carries everything: it is probed, the others listen. [bond_main.c: bond_ab_arp_inspect, bond_ab_arp_probe]

use bond_monitors::{Time, Trial};

use super::{Probing, Scene, Verdict, running};
use crate::ids::PortId;
use crate::port::{Port, Ports};

impl Probing {
    pub(super) fn verdict_active_backup(&self, now: Time, port: &Port, scene: &Scene<'_>) -> Option<Verdict> {
        let window = scene.options.window();
        let rx = self.last_rx(port, scene);
        if !port.is_usable() {
            return if port.carrier().is_on() && window.contains(rx, now, 1) {
                Some(Verdict::Up)
            } else {
                (port.arp.trial() == Trial::Candidate).then_some(Verdict::Failed)
            };
        }
        if window.contains(port.arp.since(), now, GRACE) {
            return None;
        }
        let missed = u32::from(scene.options.arp_missed_max);
        let lives = if self.is_active(port, scene) {
            window.contains(port.arp.last_tx(), now, missed) && window.contains(rx, now, missed)
        } else {
            // While candidates are tried nobody speaks for a backup port to hear.
            self.candidate.is_some() || window.contains(rx, now, missed + 1)
        };
        (!lives).then_some(Verdict::Down)
    }

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
        let port = ports.get_mut(next?)?;
        port.arp.set_trial(Trial::Candidate);
        port.arp.used(now);
        next
    }
}

/// Intervals that a port is left alone after it was taken into use.
const GRACE: u32 = 2;

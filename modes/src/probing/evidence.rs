//! Checks frames for evidence that a port works. [bond_main.c: bond_rcv_validate, bond_arp_rcv, bond_na_rcv]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bond_monitors::classic::ProbeAnswer;
use bond_monitors::wire::nd::solicited_node;
use bond_monitors::{AnswerKind, MacAddr, ReceiveStamps, SignOfLife, Time};

use super::{ProbeContext, Probing};
use crate::ids::PortId;
use crate::port::{Port, Ports};

impl Probing {
    /// Restarts the time of ports whose stamps could not be read, because their silence is unknown.
    pub(super) fn restart_grace_of_unread(
        &self,
        now: Time,
        heard: &[(PortId, ReceiveStamps)],
        ports: &mut Ports,
        context: &ProbeContext<'_>,
    ) {
        let unread = |port: &Port| {
            self.counts(port, context) != SignOfLife::Validated && heard.iter().all(|(read, _)| *read != port.id)
        };
        // The evidence of backup ports depends on whether the active port gets answers.
        let active = context.roles.active().and_then(|id| ports.get(id));
        let all = active.is_some_and(unread);
        let unjudged = ports.iter().filter(|port| port.is_usable() && (all || unread(port)));
        let unjudged: Vec<PortId> = unjudged.map(|port| port.id).collect();
        for id in unjudged {
            if let Some(arp) = ports.get_mut(id).and_then(Port::arp_mut) {
                arp.restart_grace(now);
            }
        }
    }

    /// Records the stamps of the data plane: arrivals that count without validation. Overheard questions count now or never,
    /// because the answers to them have been read.
    pub(super) fn take_stamps(
        &self,
        now: Time,
        stamps: &[(PortId, ReceiveStamps)],
        ports: &mut Ports,
        context: &ProbeContext<'_>,
    ) {
        for (id, heard) in stamps {
            let Some(counts) = ports.get(*id).map(|port| self.counts(port, context)) else {
                continue;
            };
            let at = match counts {
                SignOfLife::Any => heard.any,
                SignOfLife::Probes => heard.probes,
                SignOfLife::Validated => None,
            };
            note_heard(ports, *id, at);
        }
        // A probe of the active port that came back through a backup port shows that the network connects the two. It says
        // nothing about the targets, so it counts only while the active port is in touch with them.
        if self.active_in_touch(now, ports, context) {
            for (id, heard) in stamps {
                let listens =
                    |port| !self.is_active(port, context) && self.counts(port, context) != SignOfLife::Validated;
                if ports.get(*id).is_some_and(listens) {
                    note_heard(ports, *id, heard.own);
                }
            }
            self.count_overheard(ports, context);
        }
        for arp in ports.iter_mut().filter_map(Port::arp_mut) {
            arp.forget_overheard();
        }
    }

    /// Counts for the backup ports the questions of the active port, which is in touch with its targets.
    fn count_overheard(&self, ports: &mut Ports, context: &ProbeContext<'_>) {
        let active = |port: &Port| self.is_active(port, context);
        for arp in ports.iter_mut().filter(|port| !active(port)).filter_map(Port::arp_mut) {
            arp.count_overheard();
        }
    }

    /// Whether the active port gets answers. [bond_main.c: bond_arp_rcv]
    fn active_in_touch(&self, now: Time, ports: &Ports, context: &ProbeContext<'_>) -> bool {
        let missed = context.options.arp_missed_max.into();
        let active = context.roles.active().and_then(|id| ports.get(id));
        active.is_some_and(|port| {
            let rx = self.last_rx(port, context);
            port.arp().is_some_and(|arp| rx > arp.became_active_at())
                && context.options.window().contains(rx, now, missed)
        })
    }

    /// Validates a frame that arrived at a port.
    pub fn on_frame(&self, now: Time, id: PortId, frame: &[u8], ports: &mut Ports, context: &ProbeContext<'_>) {
        if !self.runs(ports, context) {
            return;
        }
        let Some(seen) = ProbeAnswer::parse(frame) else { return };
        let own = |mac: MacAddr| context.plan.mac == mac || context.plan.ports.values().any(|port| port.mac == mac);
        if seen.destination.is_valid_unicast() && !own(seen.destination) {
            return;
        }
        let Some(port) = ports.get(id) else { return };
        let listens = context.roles.is_one() && !self.is_active(port, context);
        if let Some(target) = self.asked(seen.to, seen.from, context).filter(|_| listens) {
            // A backup port receives the questions of the active one.
            if let Some(arp) = ports.get_mut(id).and_then(Port::arp_mut) {
                arp.overheard(now, target);
            }
        } else if let Some(target) = self.asked(seen.from, seen.to, context)
            // differs: in modes without an active port the driver requires this of ports in use only.
            && !own(seen.source)
            && (!listens || self.answers_candidate(now, &seen, ports, context))
            && let Some(arp) = ports.get_mut(id).and_then(Port::arp_mut)
        {
            arp.answered(now, target, AnswerKind::Reply);
            arp.heard(now);
        }
        if self.active_in_touch(now, ports, context) {
            self.count_overheard(ports, context);
        }
    }

    /// Whether a frame at a backup port may answer the port that is tried: the network may deliver an answer to the port where it
    /// last received our frames.
    fn answers_candidate(&self, now: Time, seen: &ProbeAnswer, ports: &Ports, context: &ProbeContext<'_>) -> bool {
        let tried = self.candidate.and_then(|id| ports.get(id)?.arp());
        tried.is_some_and(|arp| seen.reply && context.options.window().contains(arp.last_tx(), now, 1))
            && !self.active_in_touch(now, ports, context)
    }

    /// The target with address `there`, if `here` is an address of this host. [bond_main.c: bond_validate_arp,
    /// bond_validate_na]
    fn asked(&self, there: IpAddr, here: IpAddr, context: &ProbeContext<'_>) -> Option<IpAddr> {
        let is_target = |target: &IpAddr| {
            *target == there
                || matches!((target, there), (IpAddr::V6(target), IpAddr::V6(there)) if solicited_node(*target) == there)
        };
        let target = context.options.targets().find(is_target)?;
        let asked_from = self
            .paths_through()
            .any(|(to, source, _)| to == target && source.unwrap_or(unspecified(to)) == here);
        let mut local = context.addresses.iter();
        let ours = asked_from || local.any(|address| address.ip == here) || here == IpAddr::V6(ALL_NODES);
        ours.then_some(target)
    }

    /// Addresses with which this host asks, and is asked.
    pub(super) fn ours<'a>(&'a self, context: &'a ProbeContext<'_>) -> impl Iterator<Item = IpAddr> + 'a {
        let asks_from = self
            .paths_through()
            .map(|(to, source, _)| source.unwrap_or(unspecified(to)));
        asks_from.chain(context.addresses.iter().map(|address| address.ip))
    }
}

fn note_heard(ports: &mut Ports, id: PortId, at: Option<Time>) {
    if let (Some(arp), Some(at)) = (ports.get_mut(id).and_then(Port::arp_mut), at) {
        arp.heard(at);
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

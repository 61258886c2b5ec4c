//! Which frames prove that a port works. [bond_main.c: bond_rcv_validate, bond_arp_rcv, bond_na_rcv]

use std::net::{IpAddr, Ipv6Addr};

use bond_monitors::wire::arp::{Arp, Operation};
use bond_monitors::wire::nd::{Discovery, solicited_node};
use bond_monitors::{AnswerKind, Evidence, Heard, MacAddr, Time};

use crate::bond::Bond;
use crate::ids::PortId;
use crate::port::Port;

/// What ARP and neighbour discovery have in common.
struct Seen {
    source: MacAddr,
    destination: MacAddr,
    from: IpAddr,
    to: IpAddr,
    /// It may answer a question, and is none itself.
    reply: bool,
}

impl Seen {
    fn parse(frame: &[u8]) -> Option<Seen> {
        if let Some(arp) = Arp::parse(frame) {
            return Some(Seen {
                source: arp.source,
                destination: arp.destination,
                from: arp.sender_ip.into(),
                to: arp.target_ip.into(),
                reply: arp.operation == Operation::Reply,
            });
        }
        let nd = Discovery::parse(frame)?;
        Some(Seen {
            source: nd.source,
            destination: nd.destination,
            from: nd.source_ip.into(),
            to: nd.destination_ip.into(),
            reply: true,
        })
    }
}

impl Bond {
    /// A port whose stamps could not be read gets time: nobody knows whether it is silent.
    pub(super) fn excuse_unread(&mut self, now: Time, ports: &[(PortId, Heard)]) {
        let unread =
            |port: &Port| self.evidence(port) != Evidence::Validated && ports.iter().all(|(read, _)| *read != port.id);
        // What backup ports may hear depends on whether the active one is in touch.
        let active = self.active().and_then(|id| self.ports.get(id));
        let all = active.is_some_and(unread);
        let excused = self
            .ports
            .iter()
            .filter(|port| port.is_usable() && (all || unread(port)));
        let excused: Vec<PortId> = excused.map(|port| port.id).collect();
        for id in excused {
            if let Some(port) = self.ports.get_mut(id) {
                port.arp.excuse(now);
            }
        }
    }

    /// Frames that nobody looks into, by the stamps of the data plane.
    pub(super) fn take_stamps(&mut self, now: Time, ports: &[(PortId, Heard)]) {
        for (id, heard) in ports {
            let Some(evidence) = self.ports.get(*id).map(|port| self.evidence(port)) else {
                continue;
            };
            let at = match evidence {
                Evidence::Any => heard.any,
                Evidence::Probes => heard.probes,
                Evidence::Validated => None,
            };
            self.note_heard(*id, at);
        }
        // A probe of the active port that came back through a backup port shows that the network connects the two. It says
        // nothing about the targets, so it counts only while the active port is in touch with them.
        if !self.active_in_touch(now) {
            return;
        }
        for (id, heard) in ports {
            let listens = |port| !self.is_active(port) && self.evidence(port) != Evidence::Validated;
            if self.ports.get(*id).is_some_and(listens) {
                self.note_heard(*id, heard.own);
            }
        }
    }

    fn note_heard(&mut self, id: PortId, at: Option<Time>) {
        if let (Some(port), Some(at)) = (self.ports.get_mut(id), at) {
            port.arp.heard(at);
        }
    }

    /// Whether the one port that carries everything gets answers. [bond_main.c: bond_arp_rcv]
    fn active_in_touch(&self, now: Time) -> bool {
        let missed = self.options.arp_missed_max.into();
        let active = self.active().and_then(|id| self.ports.get(id));
        active.is_some_and(|port| {
            let rx = self.last_rx(port);
            rx > port.arp.since() && self.options.window().contains(rx, now, missed)
        })
    }

    /// Validates a frame that arrived at a port.
    pub(crate) fn on_frame(&mut self, now: Time, id: PortId, frame: &[u8]) {
        if !self.probes() {
            return;
        }
        let Some(seen) = Seen::parse(frame) else { return };
        let own = |mac: MacAddr| self.plan.mac == mac || self.plan.ports.values().any(|port| port.mac == mac);
        if seen.destination.is_valid_unicast() && !own(seen.destination) {
            return;
        }
        let Some(port) = self.ports.get(id) else { return };
        let candidate = self.probing.candidate.and_then(|id| self.ports.get(id));
        let found = if !self.mode().has_active() || self.is_active(port) {
            // differs: in modes without an active port the driver asks this of ports in use only.
            self.asked(seen.from, seen.to).filter(|_| !own(seen.source))
        } else if self.active_in_touch(now) {
            return self.note_request(now, id, &seen);
        } else if candidate.is_some_and(|port| seen.reply && self.options.window().contains(port.arp.last_tx(), now, 1))
        {
            // The network may deliver an answer where it last heard us.
            self.asked(seen.from, seen.to).filter(|_| !own(seen.source))
        } else {
            None
        };
        if let Some(target) = found {
            self.note_answer(now, id, target, AnswerKind::Reply);
        }
    }

    /// A backup port hears what the active one asks.
    fn note_request(&mut self, now: Time, id: PortId, seen: &Seen) {
        if let Some(target) = self.asked(seen.to, seen.from) {
            self.note_answer(now, id, target, AnswerKind::Request);
        }
    }

    fn note_answer(&mut self, now: Time, id: PortId, target: IpAddr, by: AnswerKind) {
        if let Some(port) = self.ports.get_mut(id) {
            port.arp.answered(now, target, by);
            port.arp.heard(now);
        }
    }

    /// The target that `there` is, if `here` is one of ours. [bond_main.c: bond_validate_arp, bond_validate_na]
    fn asked(&self, there: IpAddr, here: IpAddr) -> Option<IpAddr> {
        let is_target = |target: &IpAddr| {
            *target == there
                || matches!((target, there), (IpAddr::V6(target), IpAddr::V6(there)) if solicited_node(*target) == there)
        };
        let target = self.options.targets().find(is_target)?;
        let asked_from = self
            .paths_through()
            .any(|(to, source, _)| to == target && source.unwrap_or(unspecified(to)) == here);
        let mut local = self.addresses.iter().flatten();
        let ours = asked_from || local.any(|address| address.ip == here) || here == IpAddr::V6(ALL_NODES);
        ours.then_some(target)
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

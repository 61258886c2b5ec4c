//! A bond's state for people and programs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bond_monitors::{Monitor as _, Time, Trial};

use super::Bond;
use crate::event::Reach;
use crate::options::{millis, show_all};
use crate::port::Port;
use crate::status::{AnswerStatus, BondStatus, EvidenceStatus, LinkWord, PortStatus, Role, Snapshot, TargetStatus};

impl Bond {
    /// The state at `now`.
    pub(super) fn snapshot(&self, now: Time) -> Snapshot {
        let mut snapshot = self.snapshot_without_options(now);
        snapshot.bond.options = show_all(&self.options, snapshot.bond.active_port.as_deref());
        snapshot
    }

    /// As [`status`](crate::Machine::status) without the options: cheap enough to be asked after every input.
    pub fn snapshot_without_options(&self, now: Time) -> Snapshot {
        let active = self.active().and_then(|id| self.ports().name(id));
        let plan = self.plan();
        Snapshot {
            bond: BondStatus {
                mode: self.options.mode.name().to_owned(),
                mode_number: self.options.mode.number(),
                up: self.device.up,
                carrier: self.device.up && plan.carrier.is_on(),
                mii_status: plan.carrier.into(),
                mac: plan.mac,
                mtu: self.device.mtu,
                of_mode: self.mode.status(now, &self.view()),
                options: BTreeMap::new(),
                active_port: active,
                primary: self.options.primary.clone(),
                monitor: if self.options.asks_targets() {
                    Some("arp".to_owned())
                } else {
                    self.options.polls_carrier().then(|| "mii".to_owned())
                },
                unmonitored: self.unmonitored().is_some(),
                targets: self.target_status(),
            },
            ports: self.ports.iter().map(|port| self.port_status(now, port)).collect(),
        }
    }

    fn port_status(&self, now: Time, port: &Port) -> PortStatus {
        let context = self.probe_context();
        let probes = self.probing.runs(&self.ports, &context);
        PortStatus {
            name: port.name.clone(),
            ifindex: port.id,
            link: match port.trial() {
                // The driver shows ports that it tries in turn like this. [bond_main.c: bond_ab_arp_probe]
                Trial::Candidate if !port.is_usable() => LinkWord::GoingBack,
                Trial::Failed if !port.is_usable() && probes => LinkWord::GoingDown,
                _ => port.link().into(),
            },
            usable: port.is_usable(),
            sends: self.plan().tx.ports.contains(&port.id),
            role: if context.roles.carries(port) || probes && self.probing.is_active(port, &context) {
                Role::Active
            } else {
                Role::Backup
            },
            carrier: port.carrier().is_on(),
            speed_mbps: port.speed,
            duplex: port.duplex,
            mac: self.plan().ports.get(&port.id).map_or(port.own_mac, |plan| plan.mac),
            permanent_mac: port.permanent_mac,
            link_failures: port.failures,
            prio: port.options.prio,
            queue_id: port.options.queue_id,
            delay_left_ms: port.link().deadline().map(|until| millis(until.since(now))),
            evidence: self.evidence_status(now, port),
        }
    }

    fn target_status(&self) -> Vec<TargetStatus> {
        if !self.options.asks_targets() {
            return Vec::new();
        }
        let status = |target: IpAddr| {
            let path = self.probing.paths().iter().find(|path| path.target == target);
            let (source, vlans, elsewhere) = match path.map(|path| &path.reach) {
                Some(Reach::Through { source, tags }) => (*source, tags.iter().map(|tag| tag.id).collect(), None),
                Some(Reach::Elsewhere { device }) => (None, Vec::new(), Some(device.clone())),
                None => (None, Vec::new(), None),
            };
            TargetStatus {
                target,
                monitored: path.map(|_| elsewhere.is_none()),
                source,
                vlans,
                elsewhere,
            }
        };
        self.options.targets().map(status).collect()
    }

    fn evidence_status(&self, now: Time, port: &Port) -> Option<EvidenceStatus> {
        let evidence = port.arp()?.evidence();
        let answer = |target: IpAddr| {
            evidence.answers.get(&target).map(|answer| AnswerStatus {
                target,
                by: answer.by,
                ms_ago: millis(now.since(answer.at)),
            })
        };
        Some(EvidenceStatus {
            counts: self.probing.counts(port, &self.probe_context()),
            heard_ms_ago: evidence.heard.map(|at| millis(now.since(at))),
            answers: self.options.targets().filter_map(answer).collect(),
        })
    }
}

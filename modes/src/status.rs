//! A bond's state as people and programs see it; the fields of `bondctl show --json` that the core knows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bond_monitors::{AnswerKind, Carrier, Duplex, Evidence, LinkState, MacAddr, Speed, Time, Trial};
use serde::{Deserialize, Serialize};

use crate::bond::Bond;
use crate::event::Reach;
use crate::ids::PortId;
use crate::options::{Monitor, OptionValue, millis, show_all};
use crate::port::Port;

/// Snapshot of a bond and its attached ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The bond itself.
    pub bond: BondStatus,
    /// In the order of attaching.
    pub ports: Vec<PortStatus>,
}

impl Snapshot {
    /// Without what changes by itself while time passes, to be compared with another one.
    pub fn without_ages(mut self) -> Snapshot {
        for port in &mut self.ports {
            port.delay_left_ms = None;
            if let Some(evidence) = &mut port.evidence {
                evidence.heard_ms_ago = None;
                evidence.answers.clear();
            }
        }
        self
    }
}

/// Snapshot of one bond without its ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BondStatus {
    /// Name of the mode.
    pub mode: String,
    /// Number of the mode in the kernel's driver.
    pub mode_number: u8,
    /// The bond's interface is administratively up.
    pub up: bool,
    /// The bond's interface has carrier.
    pub carrier: bool,
    /// The same as the status file's word.
    pub mii_status: UpDown,
    /// Address of the bond's interface.
    pub mac: MacAddr,
    /// MTU of the bond's interface in bytes.
    pub mtu: u32,
    /// Name of the port that carries the traffic.
    pub active_port: Option<String>,
    /// Name of the primary port, attached or not.
    pub primary: Option<String>,
    /// What decides about a port's link: `mii`, `arp` or null.
    pub monitor: Option<String>,
    /// Nothing decides about links: ports count as up for ever.
    pub unmonitored: bool,
    /// Whom the ARP monitor asks and how; empty without it.
    #[serde(default)]
    pub targets: Vec<TargetStatus>,
    /// Every option with its effective value: numbers, strings or lists.
    pub options: BTreeMap<String, OptionValue>,
}

/// `up` or `down`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpDown {
    /// Carrier.
    Up,
    /// No carrier.
    Down,
}

impl From<Carrier> for UpDown {
    fn from(carrier: Carrier) -> Self {
        if carrier.is_on() { UpDown::Up } else { UpDown::Down }
    }
}

/// Snapshot of one attached port. The default is that of a port of which nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortStatus {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub ifindex: PortId,
    /// Verdict of the monitor after delays.
    pub link: LinkWord,
    /// Whether it counts as up, wherever ports that are up are counted: frames may leave through it. `link` alone does not say so:
    /// a port that the ARP monitor tries out may read `going down` without being used.
    pub usable: bool,
    /// Whether it carries traffic.
    pub role: Role,
    /// Signal on the wire right now.
    pub carrier: bool,
    /// As the interface said last, by ethtool; null where unknown.
    pub speed_mbps: Speed,
    /// As `speed_mbps`.
    pub duplex: Duplex,
    /// Address in use.
    pub mac: MacAddr,
    /// Address before it was attached.
    pub permanent_mac: MacAddr,
    /// How often the link went down.
    pub link_failures: u32,
    /// Preference among ports without a primary.
    pub prio: i32,
    /// Transmit queue that is bound to this port; 0 for none.
    pub queue_id: u16,
    /// What is left of a running updelay or downdelay, in milliseconds.
    pub delay_left_ms: Option<u64>,
    /// What the verdict of the ARP monitor rests on; null without it.
    #[serde(default)]
    pub evidence: Option<EvidenceStatus>,
}

/// One target of the ARP monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Its address.
    pub target: IpAddr,
    /// Whether it is reached through the bond, so that it counts; null until the routing table was read.
    pub monitored: Option<bool>,
    /// The address that asks; null for 0.0.0.0 or ::.
    pub source: Option<IpAddr>,
    /// VLAN ids of its probes, outermost first.
    pub vlans: Vec<u16>,
    /// The other interface through which it is reached, if it is not monitored.
    pub elsewhere: Option<String>,
}

/// What the ARP monitor goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// What counts on this port in its role: `any` frame of somebody else, `probes` (ARP and IPv6) or `validated` answers.
    pub counts: Evidence,
    /// How long ago the last sign of life that counts came, in milliseconds; null for never.
    pub heard_ms_ago: Option<u64>,
    /// The last good answer of each target that ever gave one through this port.
    pub answers: Vec<AnswerStatus>,
}

/// The last sign of life of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerStatus {
    /// Who answered.
    pub target: IpAddr,
    /// `reply`: the target's own; `request`: the active port's question, as this backup port heard it.
    pub by: AnswerKind,
    /// How long ago, in milliseconds.
    pub ms_ago: u64,
}

/// Link state without its deadline; the words of the status file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkWord {
    /// Used.
    #[serde(rename = "up")]
    Up,
    /// Carrier lost, downdelay runs; still used.
    #[serde(rename = "going down")]
    GoingDown,
    /// Not used.
    #[default]
    #[serde(rename = "down")]
    Down,
    /// Carrier back, updelay runs; not used yet.
    #[serde(rename = "going back")]
    GoingBack,
}

impl LinkWord {
    /// As the status file prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            LinkWord::Up => "up",
            LinkWord::GoingDown => "going down",
            LinkWord::Down => "down",
            LinkWord::GoingBack => "going back",
        }
    }
}

impl From<LinkState> for LinkWord {
    fn from(state: LinkState) -> Self {
        match state {
            LinkState::Up => LinkWord::Up,
            LinkState::GoingDown { .. } => LinkWord::GoingDown,
            LinkState::Down => LinkWord::Down,
            LinkState::GoingBack { .. } => LinkWord::GoingBack,
        }
    }
}

/// Whether a port carries traffic. In load-balancing modes every usable port is active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sends and receives for the bond.
    Active,
    /// Waits.
    #[default]
    Backup,
}

impl Bond {
    /// The state at `now`.
    pub fn status(&self, now: Time) -> Snapshot {
        let mut snapshot = self.state(now);
        snapshot.bond.options = show_all(&self.options, snapshot.bond.active_port.as_deref());
        snapshot
    }

    /// As [`status`](Bond::status) without the options: cheap enough to be asked after every input.
    pub fn state(&self, now: Time) -> Snapshot {
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
                options: BTreeMap::new(),
                active_port: active,
                primary: self.options.primary.clone(),
                monitor: match self.options.monitor() {
                    Monitor::None => None,
                    Monitor::Mii => Some("mii".to_owned()),
                    Monitor::Arp => Some("arp".to_owned()),
                },
                unmonitored: match self.options.monitor() {
                    Monitor::None => true,
                    Monitor::Mii => false,
                    Monitor::Arp => self.blind(),
                },
                targets: self.target_status(),
            },
            ports: self.ports.iter().map(|port| self.port_status(now, port)).collect(),
        }
    }

    fn port_status(&self, now: Time, port: &Port) -> PortStatus {
        PortStatus {
            name: port.name.clone(),
            ifindex: port.id,
            link: match port.arp.trial() {
                // As the driver shows ports that it tries one after the other. [bond_main.c: bond_ab_arp_probe]
                Trial::Candidate if !port.is_usable() => LinkWord::GoingBack,
                Trial::Failed if !port.is_usable() && self.probes() => LinkWord::GoingDown,
                _ => port.link().into(),
            },
            usable: port.is_usable(),
            role: if self.carries(port.id) || self.probes() && self.is_active(port) {
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
        if self.options.monitor() != Monitor::Arp {
            return Vec::new();
        }
        let status = |target: IpAddr| {
            let path = self.paths().iter().find(|path| path.target == target);
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
        let answer = |target: IpAddr| {
            port.arp.answer(target).map(|answer| AnswerStatus {
                target,
                by: answer.by,
                ms_ago: millis(now.since(answer.at)),
            })
        };
        (self.options.monitor() == Monitor::Arp).then(|| EvidenceStatus {
            counts: self.evidence(port),
            heard_ms_ago: port.arp.ever_heard().map(|at| millis(now.since(at))),
            answers: self.options.targets().filter_map(answer).collect(),
        })
    }
}

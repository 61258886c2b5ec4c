//! A bond's state for people and programs: the fields of `bondctl show --json` that the core knows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bond_monitors::{AnswerKind, Carrier, Duplex, LinkState, MacAddr, SignOfLife, Speed};
use serde::{Deserialize, Serialize};

use crate::ids::PortId;
use crate::options::OptionValue;

/// Snapshot of a bond and its attached ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The bond itself.
    pub bond: BondStatus,
    /// In the order of attaching.
    pub ports: Vec<PortStatus>,
}

impl Snapshot {
    /// Without the values that change while time passes, for comparison.
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
    /// What its mode adds for the status files.
    #[serde(skip)]
    pub of_mode: ModeStatus,
    /// Name of the port that carries the traffic.
    pub active_port: Option<String>,
    /// Name of the primary port, attached or not.
    pub primary: Option<String>,
    /// The monitor of links: `mii`, `arp` or null.
    pub monitor: Option<String>,
    /// No monitor judges links: ports count as up for ever.
    pub unmonitored: bool,
    /// Targets of the ARP monitor with their ways; empty without it.
    #[serde(default)]
    pub targets: Vec<TargetStatus>,
    /// Every option with its effective value: numbers, strings or lists.
    pub options: BTreeMap<String, OptionValue>,
}

/// What a mode shows beyond what every bond has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModeStatus {
    /// One port carries everything; [`BondStatus::active_port`] is which, if any does.
    pub has_active: bool,
    /// What only this mode has: a paragraph of the status file, before the ports.
    pub paragraph: Option<Paragraph>,
}

/// A paragraph of the status file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paragraph {
    /// The first line.
    pub title: String,
    /// Names and values, a line each.
    pub lines: Vec<(String, String)>,
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

/// Snapshot of one attached port. The default is that of an unknown port.
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
    /// Whether the mode lets frames leave through it now. A usable port does not send while it waits as a backup, or in downdelay
    /// while another port is up. Frames of a queue that is bound to the port (`queue_id`) do not count.
    pub sends: bool,
    /// Whether it carries traffic.
    pub role: Role,
    /// Signal on the wire right now.
    pub carrier: bool,
    /// The interface's last report, by ethtool; null if unknown.
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
    /// Time left of a running updelay or downdelay, in milliseconds.
    pub delay_left_ms: Option<u64>,
    /// Evidence of the ARP monitor; null without it.
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
    /// The source address of its probes; null for 0.0.0.0 or ::.
    pub source: Option<IpAddr>,
    /// VLAN ids of its probes, outermost first.
    pub vlans: Vec<u16>,
    /// The other interface through which it is reached, if it is not monitored.
    pub elsewhere: Option<String>,
}

/// Evidence of the ARP monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// Frames that count on this port in its role: `any` frame of another host, `probes` (ARP and IPv6) or `validated` answers.
    pub counts: SignOfLife,
    /// How long ago the last sign of life that counts came, in milliseconds; null for never.
    pub heard_ms_ago: Option<u64>,
    /// The last valid answer of each target that has answered through this port.
    pub answers: Vec<AnswerStatus>,
}

/// The last sign of life of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerStatus {
    /// The target.
    pub target: IpAddr,
    /// `reply`: the target's own; `request`: the active port's question, received by this backup port.
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

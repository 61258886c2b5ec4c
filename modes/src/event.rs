//! Facts that go into a [`Bond`](crate::Bond).

use std::collections::BTreeMap;
use std::net::IpAddr;

use bond_monitors::wire::ethernet::Tag;
use bond_monitors::{Carrier, LinkReport, MacAddr, ReceiveStamps, Time};

use crate::ids::{Epoch, PortId};
use crate::port::PortFacts;

/// A fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The data plane has attached the port (still without traffic).
    PortAttached {
        /// The new port.
        port: PortId,
        /// Its state right after.
        facts: PortFacts,
    },
    /// The port is to leave, or has gone away.
    PortDetached {
        /// The port that left.
        port: PortId,
        /// Its interface has disappeared.
        gone: bool,
    },
    /// A link message about a port.
    Link {
        /// The port.
        port: PortId,
        /// Its state now.
        report: LinkReport,
    },
    /// The data plane saw a port lose its carrier, which ended all that the plan in force had prepared for that. The fact may be older
    /// than others that were handled, and the port may have its carrier back.
    CarrierLost {
        /// The port.
        port: PortId,
        /// When.
        at: Time,
        /// The data plane has done what was prepared for the loss of this port.
        failed_over: bool,
    },
    /// A link message about the bond's own interface: the operator's settings of MAC, MTU, up and down.
    BondLink {
        /// Its state now.
        report: LinkReport,
    },
    /// The addresses that live on the bond or above it.
    Addresses {
        /// All of them, in a stable order.
        addresses: Vec<LocalAddress>,
    },
    /// Answer to [`Action::PollCarriers`](crate::Action::PollCarriers).
    CarriersPolled {
        /// Carriers of the ports. A port that gave no answer is left out: it is about to go away.
        carriers: Vec<(PortId, Carrier)>,
    },
    /// Answer to [`Action::ReadCounters`](crate::Action::ReadCounters).
    Counters {
        /// Counters of the attached ports. Ports that could not be read are left out.
        ports: BTreeMap<PortId, Counters>,
    },
    /// Answer to [`Action::ReadHostsBehind`](crate::Action::ReadHostsBehind).
    HostsBehind {
        /// Hosts behind the bond, each once.
        hosts: Vec<HostBehind>,
    },
    /// Answer to [`Action::FindPaths`](crate::Action::FindPaths).
    Paths {
        /// One for each target.
        paths: Vec<TargetPath>,
    },
    /// Answer to [`Action::ReadReceiveStamps`](crate::Action::ReadReceiveStamps).
    ReceiveStamps {
        /// Stamps of the attached ports. Ports that could not be read are missing here and are not judged.
        ports: Vec<(PortId, ReceiveStamps)>,
    },
    /// A wanted frame that arrived at a port, whether accepted or dropped.
    Frame {
        /// Where.
        port: PortId,
        /// From the destination address on.
        frame: Vec<u8>,
    },
    /// A plan failed, wholly or in part.
    ProgramFailed {
        /// Which plan.
        epoch: Epoch,
        /// Whether trying again can help.
        retry: bool,
        /// The address that the bond's interface has kept because the plan's could not be set.
        mac: Option<MacAddr>,
    },
}

/// Traffic of one port through the bond, since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames let in.
    pub rx_frames: u64,
    /// Bytes let in.
    pub rx_bytes: u64,
}

/// A host behind the bond: beyond a bridge that has the bond as a port, or on a device above with an address of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostBehind {
    /// Its address.
    pub mac: MacAddr,
    /// Tags that its frames get on the way to the bond, outermost first.
    pub tags: Vec<Tag>,
}

/// An address to announce after a failover.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalAddress {
    /// The address.
    pub ip: IpAddr,
    /// The address of the interface that has it (a VLAN on the bond, a bridge above it); `None` for the bond itself.
    pub mac: Option<MacAddr>,
    /// Tags that its frames carry on the wire, the outermost first: those of the VLAN interfaces between it and the bond.
    pub tags: Vec<Tag>,
    /// Of IPv6: whether this host forwards packets, for the neighbour advertisement.
    pub router: bool,
}

/// One target and the way to it, by the routing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPath {
    /// The target.
    pub target: IpAddr,
    /// The way.
    pub reach: Reach,
}

/// The way to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Through the bond. [bond_main.c: bond_arp_send_all]
    Through {
        /// The source address; `None` if this host has no suitable one and asks from 0.0.0.0 or ::.
        source: Option<IpAddr>,
        /// Tags of the VLAN devices on the way, outermost first.
        tags: Vec<Tag>,
    },
    /// Through another interface, so it is no evidence about the bond's ports.
    Elsewhere {
        /// That interface.
        device: String,
    },
}

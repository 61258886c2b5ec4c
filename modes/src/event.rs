//! Facts that go into a [`Bond`](crate::Bond).

use std::net::IpAddr;

use bond_monitors::{Carrier, LinkReport, MacAddr};
use serde::{Deserialize, Serialize};

use crate::plan::{Epoch, PortId};

/// Something that happened outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The data plane has taken the port in (still without traffic).
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
    /// A link message about the bond's own interface: the operator's wishes for MAC, MTU, up and down.
    BondLink {
        /// Its state now.
        report: LinkReport,
    },
    /// The addresses that live on the bond or directly above it.
    Addresses {
        /// All of them, in a stable order.
        addresses: Vec<LocalAddress>,
    },
    /// Answer to [`Action::PollMii`](crate::Action::PollMii).
    MiiPolled {
        /// The port asked about.
        port: PortId,
        /// What it said.
        carrier: Carrier,
    },
    /// A plan could not be brought about, wholly or in part.
    ProgramFailed {
        /// Which plan.
        epoch: Epoch,
        /// Whether trying again can help.
        retry: bool,
    },
}

/// What is known of a port when it is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFacts {
    /// The address it had before we touched it: "Permanent HW addr" of the status file. [bond_main.c: bond_enslave]
    pub permanent_mac: MacAddr,
    /// Its state after attaching.
    pub report: LinkReport,
}

/// An address to announce after a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalAddress {
    /// The address.
    pub ip: IpAddr,
    /// The address of the interface that has it (a VLAN on the bond, a bridge above it); none where it is the bond's.
    pub mac: Option<MacAddr>,
    /// Tag of the VLAN interface that has it.
    pub vlan: Option<u16>,
    /// Whether this host forwards for that family: goes into a neighbour advertisement.
    pub router: bool,
}

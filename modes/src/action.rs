//! Actions that a [`Bond`](crate::Bond) asks for.

use std::net::IpAddr;
use std::time::Duration;

use bond_monitors::{Carrier, Duplex, SignOfLife, Speed};
use serde::Serialize;

use crate::ids::{Epoch, PortId};
use crate::plan::ForwardingPlan;
use crate::warning::Warning;

/// Something that the agent must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the kernel match this plan.
    Program {
        /// Number of the plan, for `ProgramFailed`.
        epoch: Epoch,
        /// The whole plan.
        plan: ForwardingPlan,
    },
    /// Send this Ethernet frame out of this port.
    Transmit {
        /// Where it leaves.
        port: PortId,
        /// From the destination address on, without FCS.
        frame: Vec<u8>,
    },
    /// Send this probe, an Ethernet frame, out of this port. It does not change the bond.
    Probe {
        /// Where it leaves.
        port: PortId,
        /// From the destination address on, without FCS.
        frame: Vec<u8>,
    },
    /// Read the carriers of these ports and answer with `CarriersPolled`.
    PollCarriers {
        /// Which ports.
        ports: Vec<PortId>,
    },
    /// Read the counters of every port and answer with `Counters`, in any case.
    ReadCounters,
    /// Read the bond's own interface and answer with `BondLink`, because devices above it may have changed its promiscuity, and
    /// not every such change has an event.
    PollDevice,
    /// Read when each port was last heard and answer with `ReceiveStamps`, in any case.
    ReadReceiveStamps,
    /// Look up the ways to these targets and answer with `Paths`.
    FindPaths {
        /// Targets of the ARP monitor.
        targets: Vec<IpAddr>,
    },
    /// List the hosts behind the bond and answer with `HostsBehind`.
    ReadHostsBehind,
    /// Report all multicast memberships of this host on and above the bond through this port. [bonding.rst: resend_igmp]
    ReportMemberships {
        /// Where the reports leave.
        port: PortId,
    },
    /// A notice for log and subscribers, as the core itself does not log.
    Notify(Notice),
}

/// One change of state and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Notice {
    /// A port joined. [bond_main.c: bond_enslave]
    Attached {
        /// The port's name.
        port: String,
        /// Active rather than backup.
        active: bool,
        /// Link state at that moment is not `down`.
        link_up: bool,
    },
    /// A port left. [bond_main.c: __bond_release_one]
    Detached {
        /// The port's name.
        port: String,
        /// It was the active one.
        was_active: bool,
    },
    /// The bond still uses the address of a port that left. [bond_main.c: __bond_release_one]
    MacStillInUse {
        /// The port's name.
        port: String,
        /// The address.
        mac: bond_monitors::MacAddr,
    },
    /// Carrier lost, downdelay runs.
    GoingDown {
        /// The port's name.
        port: String,
        /// It carries the traffic.
        active: bool,
        /// Time left.
        delay: Duration,
    },
    /// Carrier came back within downdelay.
    UpAgain {
        /// The port's name.
        port: String,
        /// Since the loss.
        after: Duration,
    },
    /// Carrier seen, updelay runs.
    GoingBack {
        /// The port's name.
        port: String,
        /// Time left.
        delay: Duration,
    },
    /// Carrier lost again within updelay.
    DownAgain {
        /// The port's name.
        port: String,
        /// Since carrier was seen.
        after: Duration,
    },
    /// The link is used from now on.
    Up {
        /// The port's name.
        port: String,
        /// Mbit/s.
        speed: Speed,
        /// By ethtool.
        duplex: Duplex,
    },
    /// updelay was cut short because no other port is usable. [bonding.rst: updelay]
    UpdelaySkipped {
        /// The port's name.
        port: String,
        /// How long it had waited.
        waited: Duration,
    },
    /// No sign of life for too long: the port goes down.
    Silent {
        /// The port's name.
        port: String,
        /// Frames that count as a sign of life.
        counts: SignOfLife,
        /// Time since the last sign of life.
        silent_for: Duration,
    },
    /// The link is not used any more.
    Down {
        /// The port's name.
        port: String,
        /// Failures of this port so far.
        failures: u32,
    },
    /// A port lost its carrier, and the kernel moved its traffic by itself.
    FailedOver {
        /// The port's name.
        port: String,
        /// How long ago.
        ago: Duration,
    },
    /// Another port carries the traffic.
    ActiveChanged {
        /// The old one's name.
        from: Option<String>,
        /// The new one's name.
        to: Option<String>,
        /// Why.
        reason: SwitchReason,
    },
    /// The bond's carrier changed.
    Carrier {
        /// The new carrier.
        carrier: Carrier,
    },
    /// A target that was reached through another interface is reached through the bond again.
    TargetCounts {
        /// Its address.
        target: IpAddr,
    },
    /// The bond is monitored again.
    Monitored {
        /// By a target that can be asked, rather than by carrier.
        targets: bool,
    },
    /// An option was changed.
    OptionChanged {
        /// Its name.
        option: String,
        /// The name of the port that it belongs to; `None` for an option of the bond.
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<String>,
        /// Its effective value now.
        value: String,
    },
    /// A warning about an option or a port.
    Warning {
        /// Its subject.
        about: Warning,
    },
}

impl Notice {
    /// A warning about this.
    pub fn warning(about: Warning) -> Notice {
        Notice::Warning { about }
    }
}

/// Why another port carries the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SwitchReason {
    /// There was no active port.
    FirstUsable,
    /// The old one's link went down.
    LinkDown,
    /// The old one left the bond or its interface disappeared.
    PortGone,
    /// The primary is preferred by `primary_reselect`.
    Primary,
    /// A higher `prio` is preferred by `primary_reselect`.
    Priority,
    /// By the operator.
    Manual,
}

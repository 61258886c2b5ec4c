//! Data planes: they make the kernel match a [`ForwardingPlan`] and decide nothing themselves.

use std::io;

use bond_modes::{ForwardingPlan, PortId};
use bond_monitors::{Heard, LinkReport, MacAddr};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod frames;
pub mod script;
pub mod tc;
pub mod team;

/// Name of a bond's interface: 1 to 15 bytes without `/`, blanks or a leading dot.
pub type BondName = String;

/// A mechanism of the kernel that forwards for bonds. Dropping one leaves forwarding as it is.
pub trait Dataplane {
    /// Short name: `tc` or `team`.
    fn name(&self) -> &'static str;
    /// Whether this kernel can do it; an error that names what is missing otherwise. Leaves nothing behind.
    fn probe(&mut self) -> Result<(), PlaneError>;
    /// The names of all bonds of ours that the kernel has, except those that another agent serves.
    fn bonds(&mut self) -> Result<Vec<BondName>, PlaneError>;
    /// What the kernel already does under this name, if the device there is ours.
    fn observe(&mut self, bond: &BondName) -> Result<Option<Observed>, PlaneError>;
    /// Makes the bond's interface, administratively down and without carrier. Undone whole on failure.
    fn create(&mut self, bond: &BondName) -> Result<BondDevice, PlaneError>;
    /// What a port is now, for [`detach`](Dataplane::detach) to restore. Asked before it is attached. What an earlier
    /// attachment left on it, as on one that was moved to another namespace, is not part of it as far as it can be told.
    fn original(&mut self, port: PortId) -> Result<OriginalPort, PlaneError>;
    /// Takes a port in: settings, hook, administratively up. It neither sends nor lets in until programmed. Undone whole on
    /// failure; harmless if it is attached already.
    fn attach(&mut self, bond: &BondName, port: PortId, base: &PortBase) -> Result<(), PlaneError>;
    /// Gives a port back as `original` says. A step that fails does not stop the others.
    fn detach(&mut self, bond: &BondName, port: PortId, original: &OriginalPort) -> Result<(), PlaneError>;
    /// Makes the kernel match the plan: only differences, make before break.
    fn program(&mut self, bond: &BondName, plan: &ForwardingPlan) -> Result<(), PlaneError>;
    /// Reads anew what somebody else may have changed and the next [`program`](Dataplane::program) is to put back: the bond's
    /// address and carrier, and that its ports hear every group. Address and MTU of a port are the operator's to change. A CPU
    /// that has come since learns which traffic nobody gave to a queue.
    fn refresh(&mut self, bond: &BondName) -> Result<(), PlaneError>;
    /// Removes the bond's interface and everything kept for it. Ports must be detached before.
    fn destroy(&mut self, bond: &BondName) -> Result<(), PlaneError>;
    /// The bond's interface has another name now.
    fn renamed(&mut self, old: &str, new: &BondName);
    /// For an orderly stop without bonds: leaves nothing behind.
    fn close(&mut self) -> io::Result<()>;
    /// Frames and bytes per attached port since it was attached.
    fn counters(&mut self, bond: &BondName) -> Result<Vec<(PortId, PortCounters)>, PlaneError>;
    /// When frames came to each attached port, and from whom, as far as their source addresses tell. `probes` is exact; `any` may
    /// be a millisecond older than the last frame, and `own` leaves out what is no probe and came within one of such a frame.
    fn heard(&mut self, bond: &BondName) -> Result<Vec<(PortId, Heard)>, PlaneError>;
}

/// The bond's own interface right after it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondDevice {
    /// Interface index.
    pub ifindex: u32,
    /// State with the address and MTU that the kernel chose.
    pub report: LinkReport,
}

/// What a port gets when it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortBase {
    /// Address to use; `None` keeps its own.
    pub mac: Option<MacAddr>,
    /// The bond's MTU in bytes.
    pub mtu: u32,
}

/// How the alias of an attached port begins. Whoever meets it on an interface that is no port knows that it was one.
pub const PORT_MARK: &str = "port of ";

/// What a port was before it was attached, to be restored on detach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginalPort {
    /// Address.
    pub mac: MacAddr,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub admin_up: bool,
    /// IFF_PROMISC.
    pub promisc: bool,
    /// IFF_ALLMULTI.
    pub allmulti: bool,
    /// `net.ipv6.conf.<port>.disable_ipv6`; `None` where the kernel has no IPv6.
    pub disable_ipv6: Option<bool>,
    /// Interface alias; empty for none.
    pub ifalias: String,
    /// Whether a clsact qdisc was there already.
    pub clsact: bool,
}

/// What the kernel does for a bond at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The bond's own interface.
    pub ifindex: u32,
    /// Its state.
    pub report: LinkReport,
    /// Attached ports and their state, by interface index.
    pub ports: Vec<(PortId, LinkReport)>,
    /// The plan in force, read back from the kernel.
    pub plan: ForwardingPlan,
}

/// Traffic of one port through the bond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames let in.
    pub rx_frames: u64,
    /// Bytes let in.
    pub rx_bytes: u64,
    /// Frames refused on a backup port.
    pub rx_dropped: u64,
    /// When the last frame came, let in or not; nanoseconds of `CLOCK_MONOTONIC`, 0 for never.
    pub last_rx: u64,
}

/// Why a data plane could not do something.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// The port's interface does not exist any more.
    #[error("{port} has gone away")]
    PortGone {
        /// Which one.
        port: PortId,
    },
    /// The kernel lacks something.
    #[error("this kernel has no {feature}; it needs {config}")]
    Unsupported {
        /// What is missing.
        feature: &'static str,
        /// The kernel options that bring it.
        config: &'static str,
    },
    /// The process may not do it.
    #[error("no permission to {doing}; bondd needs {capability} (run it as root)")]
    Permission {
        /// What was tried.
        doing: String,
        /// Which capability is missing.
        capability: &'static str,
    },
    /// The name is taken by a device that is not ours.
    #[error("{name} is the name of another device already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The bond lacks something that only a new one can have.
    #[error(
        "{bond} has one transmit queue, so a queue_id has no effect; delete it and make it anew (needs a kernel from 5.15 on)"
    )]
    OneQueue {
        /// The bond's name.
        bond: BondName,
    },
    /// Anything else the kernel refused.
    #[error("cannot {doing}")]
    Kernel {
        /// What was tried, naming the object.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

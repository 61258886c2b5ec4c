//! What a plane has in the kernel for a bond and the kernel reports no change of.

use bond_modes::PortId;

/// One such thing of a bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// What lets its forwarding outlive this process.
    Pins,
    /// The far end of its interface.
    Wire,
    /// What forwards the frames of this host.
    Tx,
    /// What forwards the frames that a port receives.
    Rx(PortId),
}

/// One that is not as the bond needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amiss {
    /// Which.
    pub what: Kept,
    /// What another program did, in the past tense.
    pub done: String,
    /// What the plane does to put that back, as a participle. `None` if it cannot.
    pub mending: Option<&'static str>,
    /// What the bond does not do meanwhile; it completes "cannot ...".
    pub lacks: String,
    /// Why the plane cannot put it back, and who can; empty if it can.
    pub why: String,
    /// Nothing passes through the bond meanwhile.
    pub is_cut: bool,
}

//! What a change is at work with: while it waits, the loop takes facts in, and looks here for what it leaves alone or is to remember.

use std::collections::BTreeSet;

use bond_modes::PortId;

use super::id::InstanceId;
use crate::control::proto::BondEvent;

/// Nothing, while no change is under way.
#[derive(Default)]
pub(super) struct Underway {
    /// The bond whose plane it is at work with.
    pub(super) at_work: Option<InstanceId>,
    /// The bond whose state it is writing, or is about to: the loop does not.
    pub(super) written_now: Option<InstanceId>,
    /// The interface that it attaches: its events are of our own making.
    pub(super) in_hand: Option<PortId>,
    /// Interfaces of which events told, while it reads one.
    pub(super) heard: Option<BTreeSet<u32>>,
    /// What bonds told while it carries out a call of a client.
    pub(super) overheard: Option<Vec<BondEvent>>,
}

//! What bonds that are gone have left behind.

use std::collections::{BTreeMap, BTreeSet};

use bond_modes::PortId;

use crate::saved::LeftPort;

/// Kept until the ports have their settings again.
#[derive(Default)]
pub(super) struct Left {
    /// Ports that did not get their original settings back when their bond was removed.
    pub(super) ports: BTreeMap<PortId, LeftPort>,
    /// They have changed, and are to be saved.
    pub(super) changed: bool,
    /// They could not be saved.
    pub(super) unsaved: bool,
    /// The interfaces of bonds whose states are to be removed once the ports are saved: the states hold the same.
    pub(super) states: BTreeSet<u32>,
    /// Files that could not be removed are to be removed again.
    pub(super) remove_again: bool,
}

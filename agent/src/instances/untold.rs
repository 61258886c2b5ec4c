//! What bonds have yet to be told after facts were lost: some of it a turn, between which the loop looks at new events.
//!
//! A reading of everything may bring thousands of interfaces. The picture has them at once, and bonds are told of those only that
//! differ from what was known; first of ports that have another carrier than their bond knows, which may move traffic. The others are
//! looked at by the thread that waits for the kernel, for what link messages do not say, such as the speed.
//!
//! Bonds are told what is in the picture by then. What an event tells of an interface meanwhile is newer, and complete: nothing is left
//! to tell. Where only a carrier was told that is newer, by a poll or a plane, it stays as the bond knows it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bond_modes::PortId;

use super::id::InstanceId;

/// See the module.
#[derive(Default)]
pub(super) struct Untold {
    /// Bonds whose failovers are to be prepared anew, as notes may have been lost. They come first: what is in force of them may not
    /// be what is known.
    pub(super) unprepared: BTreeSet<InstanceId>,
    /// The order of `links`, and of others that have been told.
    pub(super) order: VecDeque<u32>,
    /// Whether their carrier is to be told, too.
    pub(super) links: BTreeMap<u32, bool>,
    /// Bonds that are to get their addresses anew.
    pub(super) addresses: BTreeSet<InstanceId>,
    /// Interfaces whose events are in the picture and were told to nobody. The next reading tells of them, the same as before or not.
    pub(super) dropped: BTreeSet<u32>,
}

impl Untold {
    /// Something newer was told of an interface, and all of it.
    pub(super) fn told(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
        self.dropped.remove(&ifindex);
    }

    /// A newer carrier of a port was told.
    pub(super) fn carrier_told(&mut self, port: PortId) {
        if let Some(carrier) = self.links.get_mut(&port.0) {
            *carrier = false;
        }
    }

    /// An event of an interface came into the picture and is told to nobody.
    pub(super) fn note_dropped(&mut self, ifindex: u32) {
        self.dropped.insert(ifindex);
    }

    /// The failovers of these bonds are to be prepared anew.
    pub(super) fn prepare_anew(&mut self, bonds: impl IntoIterator<Item = InstanceId>) {
        self.unprepared.extend(bonds);
    }

    /// The next interface, and whether its carrier is to be told.
    pub(super) fn next_link(&mut self) -> Option<(u32, bool)> {
        std::iter::from_fn(|| self.order.pop_front()).find_map(|ifindex| self.links.remove_entry(&ifindex))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unprepared.is_empty() && self.links.is_empty() && self.addresses.is_empty()
    }
}

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
use bond_monitors::Time;

use super::Instances;
use super::id::InstanceId;
use super::looks::Look;
use crate::netlink::Link;

/// See the module.
#[derive(Default)]
pub(super) struct Untold {
    /// Bonds whose failovers are to be prepared anew, as notes may have been lost. They come first: what is in force of them may not
    /// be what is known.
    unprepared: BTreeSet<InstanceId>,
    /// The order of `links`, and of others that have been told.
    order: VecDeque<u32>,
    /// Whether their carrier is to be told, too.
    links: BTreeMap<u32, bool>,
    /// Bonds that are to get their addresses anew.
    addresses: BTreeSet<InstanceId>,
    /// Interfaces whose events are in the picture and were told to nobody. The next reading tells of them, the same as before or not.
    dropped: BTreeSet<u32>,
}

impl Untold {
    /// Something newer was told of an interface, and all of it.
    pub(super) fn is_told(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
        self.dropped.remove(&ifindex);
    }

    /// A newer carrier of a port was told.
    pub(super) fn is_carrier_told(&mut self, port: PortId) {
        if let Some(carrier) = self.links.get_mut(&port.0) {
            *carrier = false;
        }
    }

    /// An event of an interface came into the picture and is told to nobody.
    pub(super) fn was_dropped(&mut self, ifindex: u32) {
        self.dropped.insert(ifindex);
    }

    /// The failovers of these bonds are to be prepared anew.
    pub(super) fn prepare_anew(&mut self, bonds: impl IntoIterator<Item = InstanceId>) {
        self.unprepared.extend(bonds);
    }

    /// The next interface, and whether its carrier is to be told.
    fn next_link(&mut self) -> Option<(u32, bool)> {
        std::iter::from_fn(|| self.order.pop_front()).find_map(|ifindex| self.links.remove_entry(&ifindex))
    }

    fn is_empty(&self) -> bool {
        self.unprepared.is_empty() && self.links.is_empty() && self.addresses.is_empty()
    }
}

impl Instances {
    /// A reading has found these interfaces different, or the same.
    pub(super) fn tell_later(&mut self, different: impl IntoIterator<Item = u32>, same: Vec<u32>) {
        let dropped = std::mem::take(&mut self.untold.dropped);
        let (again, same): (Vec<u32>, Vec<u32>) = same.into_iter().partition(|link| dropped.contains(link));
        let mut first = Vec::new();
        let mut others = Vec::new();
        for ifindex in different.into_iter().chain(again) {
            match self.is_carrier_news(ifindex) {
                true => first.push(ifindex),
                false => others.push(ifindex),
            }
        }
        for ifindex in same {
            match self.is_carrier_news(ifindex) {
                true => first.push(ifindex),
                false => self.look_again(ifindex),
            }
        }
        let untold = &mut self.untold;
        untold.links.extend(others.iter().map(|ifindex| (*ifindex, false)));
        untold.links.extend(first.iter().map(|ifindex| (*ifindex, true)));
        // What was left of an earlier reading, and has a new place, comes in that.
        first.iter().rev().for_each(|ifindex| untold.order.push_front(*ifindex));
        untold.order.extend(others);
        untold.addresses.extend(self.bonds.ids());
    }

    /// Whether there is something left to tell. The loop owes a turn for it.
    pub fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Tells a turn's share of what is left.
    pub fn tell_untold(&mut self, now: Time) {
        if !self.has_untold() {
            return;
        }
        let mut left = TOLD_A_TURN;
        while left > 0
            && let Some(at) = self.untold.unprepared.pop_first()
        {
            left -= 1;
            self.prepare_anew(now, at);
        }
        let mut links = Vec::new();
        while left > 0
            && let Some((ifindex, carrier)) = self.untold.next_link()
        {
            left -= 1;
            links.extend(self.link_to_tell(ifindex, carrier));
        }
        self.in_a_row(now, |instances| instances.told_of(now, &links));
        while left > 0
            && let Some(at) = self.untold.addresses.pop_first()
        {
            left -= 1;
            self.refresh_addresses(now, at);
        }
        self.refresh_outdated_addresses(now);
    }

    /// Tells all that is left, where nothing waits for the loop.
    pub(super) fn tell_all(&mut self, now: Time) {
        while self.has_untold() {
            self.tell_untold(now);
        }
    }

    fn look_again(&mut self, ifindex: u32) {
        let port = PortId(ifindex);
        if let Some(at) = self.bonds.owner_of(port) {
            self.look_at(at, Look::Port(port));
        } else if let Some(at) = self.bonds.on_device(ifindex) {
            self.look_at(at, Look::Device);
        }
    }

    /// `None` if it is gone, which its event has told.
    fn link_to_tell(&mut self, ifindex: u32, carrier: bool) -> Option<Link> {
        let mut link = self.host.link(ifindex)?.clone();
        let port = PortId(ifindex);
        if !carrier
            && let Some(at) = self.bonds.owner_of(port)
            && let Some(known) = self.bonds.get(at).and_then(|instance| instance.bond.ports().get(port))
        {
            link.report.carrier = known.carrier();
        }
        Some(link)
    }

    /// Whether the picture has another carrier of a port than its bond knows.
    fn is_carrier_news(&mut self, ifindex: u32) -> bool {
        let port = PortId(ifindex);
        let owner = self.bonds.owner_of(port).and_then(|at| self.bonds.get(at));
        let Some((instance, link)) = owner.zip(self.host.link(ifindex)) else {
            return false;
        };
        let known = instance.bond.ports().get(port).map(|known| known.carrier());
        known.is_some_and(|known| known != instance.settled_carrier(port, link.report.carrier, link.in_service))
    }
}

/// Interfaces and bonds of a turn.
pub(super) const TOLD_A_TURN: usize = 64;

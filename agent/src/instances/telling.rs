//! How bonds are told of links: of several in a row at once, and of what was lost some of it a turn.

use bond_modes::{Event, Machine, PortId};
use bond_monitors::{LinkReport, Time};

use super::Instances;
use super::id::InstanceId;
use super::looks::Look;
use crate::netlink::Link;

impl Instances {
    /// Tells of links by `tell`, which leaves no more to the end of the row than a turn may do.
    pub(super) fn in_a_row(&mut self, now: Time, tell: impl FnOnce(&mut Instances)) {
        if !self.row.begins() {
            return tell(self);
        }
        tell(self);
        for at in self.row.end() {
            if self.bonds.get(at).is_some() {
                self.drain(now, at);
            }
        }
    }

    /// As [`Instances::feed`], with the state of a port's link.
    pub(super) fn feed_link(&mut self, now: Time, at: InstanceId, port: PortId, report: LinkReport) {
        let instance = &mut self.bonds[at];
        let waits = self.row.takes(at, &instance.bond.plan().tx);
        instance.bond.handle_event(now, Event::Link { port, report });
        if !waits {
            self.drain(now, at);
        }
    }

    /// A reading has found these interfaces different, or the same.
    pub(super) fn tell_later(&mut self, different: impl IntoIterator<Item = u32>, same: Vec<u32>) {
        let mut first = Vec::new();
        let mut others = Vec::new();
        let different = different.into_iter().map(|ifindex| (ifindex, true));
        for (ifindex, differs) in different.chain(same.into_iter().map(|ifindex| (ifindex, false))) {
            // What was dropped and is not here was dropped after this reading began, and the next one tells of it.
            let was_dropped = self.untold.dropped.remove(&ifindex);
            match (self.is_carrier_news(ifindex), differs || was_dropped) {
                (true, _) => first.push(ifindex),
                (false, true) => others.push(ifindex),
                (false, false) => self.look_again(ifindex),
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

//! Ports that stand on their own bond: what is sent through one comes back to the bond, and is sent again, for ever.
//!
//! The kernel's driver refuses to put a bond under one of its own ports. [dev.c: __netdev_upper_dev_link] Nobody asks bondd, so such
//! a port leaves the bond at the event that says so, and is wanted still. It is attached again when nothing is in its way any more.

use std::collections::BTreeSet;

use bond_modes::PortId;
use bond_monitors::Time;

use super::Instances;
use super::id::InstanceId;
use super::logged_failures::Subject;
use crate::host::Relation;
use crate::netlink::Link;

impl Instances {
    /// Takes ports out that stand on their own bond since an interface was put under another one, and has those tried again that may
    /// stand on it no more. It costs next to nothing where the moved interface carries no bond.
    pub(super) fn follow_moves(&mut self, now: Time) {
        let moves = self.host.take_moves();
        for (lower, upper) in moves.under {
            if self.bonds_under(lower).is_empty() {
                continue;
            }
            let above = self.host.above(upper, |_| true).into_iter();
            let above: Vec<PortId> = above.map(|(link, _)| PortId(link.ifindex)).collect();
            above.into_iter().for_each(|port| self.end_circle(now, port));
        }
        for (lower, _) in moves.away {
            for at in self.bonds_under(lower) {
                if self
                    .bonds
                    .get(at)
                    .is_some_and(|instance| instance.attempts.have_circles())
                {
                    self.bonds[at].attempts.lower_moved(now);
                }
            }
        }
    }

    /// As [`Instances::follow_moves`], for all ports of a bond that was just taken over.
    pub(super) fn end_circles_of(&mut self, now: Time, at: InstanceId) {
        let ports = self.bonds[at].bond.ports().iter();
        let ports: Vec<PortId> = ports.map(|port| port.id).collect();
        ports.into_iter().for_each(|port| self.end_circle(now, port));
    }

    /// Takes a port out of its bond if it stands on it. The traffic moves first.
    fn end_circle(&mut self, now: Time, port: PortId) {
        let Some(at) = self.bonds.owner_of(port) else { return };
        if !self.bonds_under(port.0).contains(&at) {
            return;
        }
        let named = self.bonds[at].bond.ports().name(port);
        let (Some(name), Some(link)) = (named.map(|name| name.to_string()), self.host.link(port.0).cloned()) else {
            return;
        };
        self.port_taken(now, at, port);
        let Some(reason) = self.why_no_port(at, &link) else {
            return;
        };
        let instance = &mut self.bonds[at];
        log::warn!(
            "{}: {name} was taken out of the bond, and joins again when that has ended: {reason}",
            instance.name
        );
        instance
            .failures
            .told(&Subject::Wanted(name.clone()), &format!("attach {name}"), &reason);
        instance
            .attempts
            .failed(now, &name, Some(&link), &instance.bond, reason);
        instance.attempts.stands_on_its_bond(&name);
    }

    /// Why an interface cannot be a port of a bond: it is, or stands on, a bond.
    pub(super) fn why_no_port(&mut self, at: InstanceId, link: &Link) -> Option<String> {
        let under = self.bonds_under(link.ifindex);
        let port = &link.report.name;
        if under.contains(&at)
            && let Some((lower, upper)) = self.last_way_down(at, link)
        {
            let [lower, upper] = [lower, upper].map(|ifindex| self.name_of(ifindex));
            let bond = &self.bonds[at].name;
            return Some(format!(
                "{port} stands on {bond} itself, because {lower} belongs to {upper}, and frames would circle; \
                 `ip link set {lower} nomaster` ends that"
            ));
        }
        let owner = self.bonds.get(*under.first()?)?;
        Some(format!(
            "{port} is or stands on {} itself, expected an interface that is not part of a bond",
            owner.name
        ))
    }

    /// Of the interfaces that carry traffic of a port to its own bond, the last one that belongs to another, and that other one.
    fn last_way_down(&mut self, at: InstanceId, port: &Link) -> Option<Relation> {
        let below = self.host.below(port.ifindex).into_iter();
        let below: Vec<(u32, Option<u32>)> = below.map(|link| (link.ifindex, link.master)).collect();
        let known: BTreeSet<u32> = below.iter().map(|(ifindex, _)| *ifindex).collect();
        let belonging = below
            .into_iter()
            .rev()
            .filter_map(|(lower, master)| Some((lower, master?)));
        let mut belonging = belonging.filter(|(_, master)| known.contains(master));
        belonging.find(|(lower, _)| self.bonds_under(*lower).contains(&at))
    }

    /// The bonds whose interface or wire this is, or carries traffic through it: at any depth, and through the ports of other bonds.
    pub(super) fn bonds_under(&mut self, ifindex: u32) -> BTreeSet<InstanceId> {
        let ends = |link: &Link| [Some(link.ifindex), link.far_end()];
        let mut under = BTreeSet::new();
        let mut tops = vec![ifindex];
        while let Some(top) = tops.pop() {
            let below = self.host.below(top).into_iter().flat_map(ends).flatten();
            for end in below.collect::<Vec<_>>() {
                let Some(at) = self.bonds.on_device(end).filter(|at| under.insert(*at)) else {
                    continue;
                };
                tops.extend(self.bonds[at].bond.ports().iter().map(|port| port.id.0));
            }
        }
        under
    }
}

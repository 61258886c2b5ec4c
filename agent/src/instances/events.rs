//! Events of the kernel: links that change, appear and disappear, changed addresses, and a new reading of all after an overrun.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use bond_modes::{Port, PortId};
use bond_monitors::{Carrier, Time};

use super::Instances;
use super::id::InstanceId;
use super::logged_failures::Subject;
use super::looks::Look;
use crate::dataplane::Kept;
use crate::host::Host;
use crate::netlink::{Address, Drained, Link, LinkEvent, RouteSocket, mii};
use crate::status::Device;

impl Instances {
    /// Reads and handles up to `budget` link messages; with [`Drained::More`] the caller owes another call. If they cannot be
    /// read, some may be lost.
    pub fn read_links(&mut self, now: Time, budget: usize) -> Drained {
        let drained = self.read_pending(budget).unwrap_or_else(|error| {
            if !std::mem::replace(&mut self.events_broken, true) {
                log::error!("cannot read link events: {error}");
                self.pending_events.push_back(LinkEvent::Overrun);
            }
            Drained::Empty
        });
        while !self.pending_events.is_empty() {
            self.in_a_row(now, |instances| {
                for _ in 0..BATCH {
                    let Some(event) = instances.pending_events.pop_front() else {
                        return;
                    };
                    instances.on_link_event(now, event);
                }
            });
        }
        self.refresh_outdated_addresses(now);
        drained
    }

    /// Gives bonds their addresses anew, once for all events.
    pub(super) fn refresh_outdated_addresses(&mut self, now: Time) {
        for at in std::mem::take(&mut self.outdated_addresses) {
            self.refresh_addresses(now, at);
        }
    }

    /// Whether link messages were read that [`Instances::read_links`] has yet to handle.
    pub fn has_pending_events(&self) -> bool {
        !self.pending_events.is_empty()
    }

    /// Descriptors of the data planes that report changes by other programs, for the loop to wait on.
    pub fn plane_events(&self) -> Vec<RawFd> {
        self.watches.iter().map(|watch| watch.event_fd()).collect()
    }

    /// Reads the events of the data planes, up to `budget` messages of each, so that changes by other programs are put back.
    pub fn read_planes(&mut self, now: Time, budget: usize) -> Drained {
        let mut read = Vec::new();
        let mut drained = Drained::Empty;
        for watch in &mut self.watches {
            let mut reports = Vec::new();
            match watch.read_events(budget, &mut reports) {
                Ok(Drained::Empty) => {}
                Ok(Drained::More) => drained = Drained::More,
                Err(error) => log::warn!("cannot read the changes that other programs make to bonds: {error}"),
            }
            read.push((watch.plane(), reports));
        }
        for (plane, reports) in read {
            self.on_reports(now, plane, reports);
        }
        drained
    }

    /// The descriptor of the link events, for the loop to wait on.
    pub fn link_events(&self) -> RawFd {
        self.events.as_raw_fd()
    }

    /// Forgets the events of a port that was just attached: they report our own settings, and its state is read afterwards.
    pub(super) fn skip_events_of(&mut self, port: PortId) {
        self.untold.told(port.0);
        self.forget_queued(|event| matches!(event, LinkEvent::Link(link) if link.ifindex == port.0));
    }

    fn read_pending(&mut self, budget: usize) -> io::Result<Drained> {
        let mut read = Vec::new();
        let drained = self.events.read(budget, &mut read);
        self.pending_events.extend(read);
        self.events_broken &= drained.is_err();
        drained
    }

    pub(super) fn on_link_event(&mut self, now: Time, event: LinkEvent) {
        let far_end = match &event {
            LinkEvent::Gone { ifindex, .. } => self.host.link(*ifindex).and_then(Link::far_end),
            _ => None,
        };
        in_picture(&mut self.host, &event);
        self.follow_moves(now);
        // It is gone together with its bond, or was moved to another namespace.
        if let Some(at) = far_end.and_then(|bond| self.bonds.on_device(bond)) {
            self.look_after_at(at, now);
        }
        match event {
            LinkEvent::Link(link) => {
                self.untold.told(link.ifindex);
                if !link.report.carrier.is_on() {
                    self.waiting_port_failed(PortId(link.ifindex));
                }
                self.told_of(now, std::slice::from_ref(&link));
            }
            LinkEvent::Gone { ifindex, name, moved } => {
                let port = PortId(ifindex);
                self.untold.told(ifindex);
                self.waiting_port_failed(port);
                let leaver = moved.and_then(|to| self.leaver(port, &name, to));
                self.told_gone(now, ifindex, &name);
                if let Some(leaver) = leaver {
                    self.give_back_there(leaver);
                }
            }
            LinkEvent::Address { ifindex, .. } => {
                self.each_kind(|kind, shared| kind.on_addresses(shared, now, ifindex));
            }
            LinkEvent::Ipv6 { ifindex } => {
                let port = PortId(ifindex);
                if let Some(at) = self.bonds.owner_of(port) {
                    self.look_at(at, Look::Port(port));
                }
            }
            LinkEvent::Overrun => {
                log::warn!("link events were lost, reading the state of every interface");
                self.resync_later(now);
            }
        }
    }

    pub(super) fn told_of(&mut self, now: Time, links: &[Link]) {
        links.iter().for_each(|link| self.heard_of(link.ifindex));
        self.each_kind(|kind, shared| kind.on_links(shared, now, links));
    }

    fn told_gone(&mut self, now: Time, ifindex: u32, name: &str) {
        self.heard_of(ifindex);
        self.each_kind(|kind, shared| kind.on_gone(shared, now, ifindex, name));
    }

    /// Something newer was told of an interface than a change may be reading.
    fn heard_of(&mut self, ifindex: u32) {
        if let Some(heard) = &mut self.underway.heard {
            heard.insert(ifindex);
        }
    }

    /// Compares everything with the state in the kernel: after lost events.
    pub(super) fn resync_later(&mut self, now: Time) {
        if !self.begin_reading(now) {
            return;
        }
        self.threads.kernel.ask(move |kernel| {
            let read = read_all(&mut kernel.links);
            Box::new(move |instances, now| instances.finish_reading(now, read))
        });
    }

    /// Events that are queued by now are older than the reading. They are dropped: a loss of carrier among them may be over, and
    /// the event of its end may be lost. After an overrun the kernel queues nothing new until all of them have been read.
    ///
    /// Whether the reading is to be asked for.
    pub(super) fn begin_reading(&mut self, now: Time) -> bool {
        self.resync_at = None;
        let ran = self.running_ports();
        self.forget_queued(|_| true);
        // That a port has ceased to run may be among what was lost or dropped, and the reading may take long.
        self.in_a_row(now, |instances| {
            for port in mii::not_running(&ran).into_iter().map(PortId) {
                instances.on_lost_carrier(now, port);
            }
        });
        self.host.begin_reading()
    }

    /// A port has ceased to run, and no event said so.
    fn on_lost_carrier(&mut self, now: Time, port: PortId) {
        let owner = self.bonds.owner_of(port);
        let known = owner.and_then(|at| self.bonds.get(at)?.bond.ports().get(port));
        if let (Some(at), Some(known), Some(link)) = (owner, known, self.host.link(port.0)) {
            let mut report = link.report.clone();
            report.carrier = Carrier::Off;
            (report.speed, report.duplex) = (known.speed, known.duplex);
            self.host.touch(port.0);
            self.heard_of(port.0);
            self.polls.told(port);
            self.untold.carrier_told(port);
            self.feed_link(now, at, port, report);
        }
    }

    /// Ports whose carrier counts, and which were running at their last event.
    fn running_ports(&self) -> Vec<u32> {
        let ran = |port: &&Port| {
            let known = self.host.link(port.id.0);
            port.carrier().is_on() && known.is_some_and(Link::is_running)
        };
        let bonds = self.bonds.iter().map(|instance| &instance.bond);
        let bonds = bonds.filter(|bond| bond.options().use_carrier);
        let ports = bonds.flat_map(|bond| bond.ports().iter());
        ports.filter(ran).map(|port| port.id.0).collect()
    }

    pub(super) fn finish_reading(&mut self, now: Time, read: io::Result<Everything>) {
        let (links, addresses) = match read {
            Ok(read) => read,
            Err(error) => {
                self.host.abandon_reading();
                return self.read_all_later(now, &error);
            }
        };
        let read = self.host.finish_reading(links, addresses);
        let ports = self
            .bonds
            .iter()
            .flat_map(|m| m.bond.ports().iter().map(|port| (port.id.0, port.name.clone())));
        let devices = self
            .bonds
            .iter()
            .map(|instance| (instance.ifindex, instance.name.clone()));
        let missing = ports
            .chain(devices)
            .filter(|(index, _)| self.host.link(*index).is_none());
        let gone: BTreeMap<u32, String> = read.gone.into_iter().chain(missing).collect();
        for (ifindex, name) in gone {
            self.waiting_port_failed(PortId(ifindex));
            self.told_gone(now, ifindex, &name);
        }
        let changed = read.links.iter().map(|link| link.ifindex);
        for ifindex in changed.clone().chain(read.same.iter().copied()) {
            if self.host.link(ifindex).is_some_and(|link| !link.report.carrier.is_on()) {
                self.waiting_port_failed(PortId(ifindex));
            }
        }
        // All together: two may have exchanged theirs.
        self.rename_ports(&read.links);
        self.tell_later(changed, read.same);
        self.order_takeovers();
        if read.outdated {
            self.resync_later(now);
        }
    }

    pub(super) fn read_all_later(&mut self, now: Time, error: &io::Error) {
        log::error!("cannot read the interfaces, trying again: {error}");
        self.resync_at = Some(now + RESYNC_RETRY);
    }

    /// Reads the events that are queued by now and forgets those that are `old`.
    fn forget_queued(&mut self, old: impl Fn(&LinkEvent) -> bool) {
        self.pending_events.retain(|event| !old(event));
        until_empty(|| {
            let before = self.pending_events.len();
            let drained = self.read_pending(BATCH);
            let mut at = 0;
            let (host, untold) = (&mut self.host, &mut self.untold);
            self.pending_events.retain(|event| {
                at += 1;
                let kept = at <= before || !old(event);
                if !kept {
                    in_picture(host, event);
                    if let LinkEvent::Link(link) = event {
                        untold.note_dropped(link.ifindex);
                    }
                }
                kept
            });
            matches!(drained, Ok(Drained::More))
        });
    }

    /// Follows the new names of ports in one reading: all together, because two may have exchanged theirs.
    pub(super) fn rename_ports(&mut self, links: &[Link]) {
        let mut renamed: BTreeMap<InstanceId, BTreeMap<String, String>> = BTreeMap::new();
        for link in links {
            let port = PortId(link.ifindex);
            let owner = self.bonds.owner_of(port);
            let old = owner.and_then(|at| self.bonds.get(at)?.bond.ports().name(port));
            if let (Some(at), Some(old)) = (owner, old)
                && *old != link.report.name
            {
                let names = renamed.entry(at).or_default();
                names.insert(old.to_string(), link.report.name.clone());
            }
        }
        for (at, names) in renamed {
            self.bonds[at].ports_renamed(&names);
        }
    }

    /// A link as it is now, after [`Instances::rename_ports`].
    pub(super) fn on_link(&mut self, now: Time, link: &Link) {
        let port = PortId(link.ifindex);
        if self.underway.in_hand == Some(port) {
            return;
        }
        if let Some(at) = self.bonds.owner_of(port) {
            return self.on_port(now, at, port, link);
        }
        if let Some(at) = self.bonds.on_device(link.ifindex) {
            return self.look_at(at, Look::Device);
        }
        if let Some(at) = self.bonds.wanting(&link.report.name)
            && !self.agenda.owes_ports(at)
        {
            // One that was tried before is tried again at its time, or because it is not as that attempt left it.
            if self.bonds[at].attempts.is_due(now, link) {
                let wanted = (at, link.report.name.clone());
                if !self.to_attach.contains(&wanted) {
                    self.to_attach.push_back(wanted);
                }
            }
        }
        if let Some(at) = link.far_end().and_then(|bond| self.bonds.on_device(bond)) {
            return self.on_wire(now, at, link);
        }
        if let Some(at) = link.stands_on().and_then(|below| self.bonds.on_device(below)) {
            // A device above may have changed the bond's promiscuity; only the wire's event reports that.
            self.look_at(at, Look::Device);
        }
        // A VLAN that was put on the bond or on what is above it, or a bridge whose address changed.
        self.outdated_addresses.extend(self.bonds.below(link.ifindex));
        if let Some(below) = link.peer {
            self.outdated_addresses.extend(self.bonds.below(below));
        }
    }

    pub(super) fn on_port(&mut self, now: Time, at: InstanceId, port: PortId, link: &Link) {
        let instance = &mut self.bonds[at];
        if !instance.plane.signs().is_attached(link) {
            return self.on_taken_away(at, port, &link.report.name);
        }
        instance.devices.insert(port.0, Device::of(link));
        instance.dirty = true;
        self.polls.told(port);
        let instance = &mut self.bonds[at];
        let mut report = link.report.clone();
        report.carrier = instance.settled_carrier(port, report.carrier, link.in_service);
        // The failover first, with the last known speed: reading it takes time.
        let known = instance.bond.ports().get(port);
        (report.speed, report.duplex) = known.map_or_else(Default::default, |port| (port.speed, port.duplex));
        self.feed_link(now, at, port, report);
        self.look_at(at, Look::Port(port));
    }

    /// The far end of the bond's interface, whose administrative state is the bond's carrier.
    fn on_wire(&mut self, now: Time, at: InstanceId, link: &Link) {
        if self.bonds[at].unfulfilled.kept().contains(&Kept::Wire) {
            // It is back, and is set up first.
            return self.look_after_at(at, now);
        }
        if link.report.admin_up != self.bonds[at].bond.plan().carrier.is_on() {
            self.look_at(at, Look::Wire(link.ifindex));
        }
    }

    /// Another program removed this port from the bond, or deleted the bond: the kernel says which.
    pub(super) fn on_taken_away(&mut self, at: InstanceId, port: PortId, name: &str) {
        let (device, name) = (self.bonds[at].ifindex, name.to_owned());
        self.threads.kernel.ask(move |kernel| {
            let is_deleted = matches!(kernel.links.by_index(device), Ok(None));
            Box::new(move |instances, now| {
                if instances.bonds.owner_of(port) == Some(at) {
                    instances.let_go(now, at, port, &name, is_deleted);
                }
            })
        });
    }

    /// A port that was taken away stays out until it is attached again.
    fn let_go(&mut self, now: Time, at: InstanceId, port: PortId, name: &str, is_deleted: bool) {
        let instance = &self.bonds[at];
        let (bond, device, signs) = (instance.name.clone(), instance.ifindex, instance.plane.signs());
        if is_deleted {
            return self.on_gone(now, device, &bond);
        }
        // A client may have attached it anew meanwhile.
        let link = self.host.link(port.0);
        if link.is_some_and(|link| signs.is_attached(link)) {
            return;
        }
        let master = link.and_then(|link| self.host.link(link.master?));
        let where_to = master.map_or(String::new(), |master| {
            format!(", it belongs to {} now", master.report.name)
        });
        log::warn!("{bond}: {name} was taken out of the bond by another program{where_to}");
        self.bonds[at].forget_wanted(name);
        self.port_taken(now, at, port);
    }

    pub(super) fn on_gone(&mut self, now: Time, ifindex: u32, name: &str) {
        self.unadopted_gone(now, ifindex);
        if let Some(at) = self.bonds.on_device(ifindex) {
            self.gone.insert(at);
            return;
        }
        for at in self.bonds.all_wanting(name) {
            let instance = &mut self.bonds[at];
            instance.attempts.forget(name);
            instance.failures.forget(&Subject::Wanted(name.to_owned()));
        }
        let port = PortId(ifindex);
        for at in self.bonds.keeping(port) {
            let instance = &mut self.bonds[at];
            if let Some(original) = instance.unrestored.get(&port)
                && instance.wanted.iter().any(|wanted| wanted == name)
            {
                instance.vanished.insert(name.to_owned(), original.clone());
            }
        }
        self.forget_unrestored(port);
        if let Some(at) = self.bonds.owner_of(port) {
            log::warn!(
                "{}: {name} has disappeared, it joins again when it is back",
                self.bonds[at].name
            );
            let instance = &mut self.bonds[at];
            if let Some(original) = instance.originals.get(&port) {
                instance.vanished.insert(name.to_owned(), original.clone());
            }
            self.port_gone(now, at, port);
        }
    }
}

/// All interfaces, and by index of each its addresses.
pub(super) type Everything = (Vec<Link>, Vec<(u32, Address)>);

pub(super) fn read_all(links: &mut RouteSocket) -> io::Result<Everything> {
    Ok((links.all()?, links.addresses()?))
}

/// Brings an event into the picture.
fn in_picture(host: &mut Host, event: &LinkEvent) {
    match event {
        LinkEvent::Link(link) => host.changed(link.as_ref().clone()),
        LinkEvent::Gone { ifindex, .. } => host.gone(*ifindex),
        LinkEvent::Address {
            ifindex,
            address,
            usable,
        } => host.address(*ifindex, *address, *usable),
        LinkEvent::Ipv6 { .. } | LinkEvent::Overrun => {}
    }
}

/// How long to wait after the interfaces could not be read.
const RESYNC_RETRY: Duration = Duration::from_millis(100);

/// Calls `read` as long as it says that more is queued, but not for ever: while interfaces change all the time, the queue never
/// becomes empty. Events left in it are handled as usual.
fn until_empty(mut read: impl FnMut() -> bool) {
    for _ in 0..MOST_READ / BATCH {
        if !read() {
            return;
        }
    }
}

/// Events that are read at a time.
const BATCH: usize = 64;

/// Events that are read in a row, more than the receive buffer holds.
const MOST_READ: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_never_becomes_empty_is_left_after_as_many_events_as_the_receive_buffer_holds() {
        let mut calls = 0;
        until_empty(|| {
            calls += 1;
            assert!(calls <= MOST_READ / BATCH, "there is no end of it");
            true
        });
        assert_eq!(calls, MOST_READ / BATCH);
        let mut left = 3;
        until_empty(|| {
            left -= 1;
            left > 0
        });
        assert_eq!(left, 0);
    }
}

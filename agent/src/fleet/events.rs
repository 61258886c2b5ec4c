//! What the kernel tells: links that change, appear and go, addresses, and everything again after an overrun.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use bond_modes::{Event, PortId};
use bond_monitors::{LinkReport, Time};

use super::Fleet;
use crate::netlink::{Drained, Link, LinkEvent};

impl Fleet {
    /// Reads and handles up to `budget` link messages; with [`Drained::More`] the caller owes another call.
    pub fn read_links(&mut self, now: Time, budget: usize) -> io::Result<Drained> {
        let drained = self.read_news(budget)?;
        while let Some(event) = self.news.pop_front() {
            self.on_link_event(now, event);
        }
        Ok(drained)
    }

    /// Whether link messages were read that [`Fleet::read_links`] has yet to handle.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// The descriptor of the link events, for the loop to wait on.
    pub fn link_events(&self) -> RawFd {
        self.events.as_raw_fd()
    }

    /// Forgets what was said about a port while it was being attached: its settings were ours and its state is read after.
    pub(super) fn skip_news_of(&mut self, port: PortId) {
        while let Ok(Drained::More) = self.read_news(64) {}
        self.news
            .retain(|event| !matches!(event, LinkEvent::Link(link) if link.ifindex == port.0));
    }

    fn read_news(&mut self, budget: usize) -> io::Result<Drained> {
        let mut read = Vec::new();
        let drained = self.events.read(budget, &mut read);
        self.news.extend(read);
        drained
    }

    fn on_link_event(&mut self, now: Time, event: LinkEvent) {
        match event {
            LinkEvent::Link(link) => self.on_link(now, &link),
            LinkEvent::Gone { ifindex, name } => self.on_gone(now, ifindex, &name),
            LinkEvent::AddressesChanged { ifindex } => {
                for at in 0..self.bonds.len() {
                    if self.bonds[at].announced.contains(&ifindex) {
                        self.refresh_addresses(now, at);
                    }
                }
            }
            LinkEvent::Overrun => {
                log::warn!("link events were lost, reading the state of every interface");
                self.resync(now);
            }
        }
    }

    /// Compares everything with what the kernel says now: at start and after lost events.
    pub fn resync(&mut self, now: Time) {
        let links = match self.links.all() {
            Ok(links) => links,
            Err(error) => {
                log::error!("cannot read the interfaces: {error}");
                return;
            }
        };
        let there: BTreeSet<u32> = links.iter().map(|link| link.ifindex).collect();
        let ports = self
            .bonds
            .iter()
            .flat_map(|m| m.bond.ports().iter().map(|port| (port.id.0, port.name.clone())));
        let devices = self.bonds.iter().map(|member| (member.ifindex, member.name.clone()));
        let gone: Vec<(u32, String)> = ports
            .chain(devices)
            .filter(|(index, _)| !there.contains(index))
            .collect();
        for (ifindex, name) in gone {
            self.on_gone(now, ifindex, &name);
        }
        for link in &links {
            self.on_link(now, link);
        }
        for at in 0..self.bonds.len() {
            self.refresh_addresses(now, at);
        }
    }

    fn on_link(&mut self, now: Time, link: &Link) {
        let port = PortId(link.ifindex);
        if let Some(at) = self
            .bonds
            .iter()
            .position(|member| member.bond.ports().get(port).is_some())
        {
            return self.on_port(now, at, port, link);
        }
        if let Some(at) = self.bonds.iter().position(|member| member.ifindex == link.ifindex) {
            return self.on_bond_device(now, at);
        }
        if let Some(at) = self
            .bonds
            .iter()
            .position(|member| member.wanted.contains(&link.report.name))
        {
            self.attach_wanted(now, at, &link.report.name);
        }
        for at in 0..self.bonds.len() {
            // A VLAN that was put on the bond, or a bridge whose address changed.
            if link.peer == Some(self.bonds[at].ifindex) || self.bonds[at].announced.contains(&link.ifindex) {
                self.refresh_addresses(now, at);
            }
        }
    }

    fn on_port(&mut self, now: Time, at: usize, port: PortId, link: &Link) {
        let mut report = link.report.clone();
        let member = &mut self.bonds[at];
        if let Some(old) = member.bond.ports().name(port).filter(|old| *old != report.name) {
            for name in member.wanted.iter_mut().filter(|name| **name == old) {
                name.clone_from(&report.name);
            }
        }
        member.dirty = true;
        if self.ignore_link_events {
            return;
        }
        if report.carrier.is_on() {
            // Asked for only with carrier: a failover must not wait for it.
            (report.speed, report.duplex) = self.links.speed_duplex(&report.name);
        }
        self.feed(now, at, Event::Link { port, report });
    }

    /// The bond's own interface changed. It is read anew: an event may tell of a state that we have changed since.
    fn on_bond_device(&mut self, now: Time, at: usize) {
        let Ok(Some(link)) = self.links.by_index(self.bonds[at].ifindex) else {
            return;
        };
        let mac = link.report.mac;
        if link.report.name != self.bonds[at].name {
            self.rename(at, &link.report.name);
        }
        self.feed(now, at, Event::BondLink { report: link.report });
        let member = &mut self.bonds[at];
        member.dirty = true;
        let wanted = member.bond.plan().mac;
        if mac != wanted
            && let Err(error) = self.links.set_mac(member.ifindex, wanted)
        {
            log::warn!("{}: cannot set its address back to {wanted}: {error}", member.name);
        }
        self.refresh_addresses(now, at);
    }

    fn rename(&mut self, at: usize, name: &str) {
        let old = std::mem::replace(&mut self.bonds[at].name, name.to_owned());
        log::info!("{old}: renamed to {name}");
        self.plane.renamed(&old, &name.to_owned());
        // First the new one: a crash in between must not lose both.
        self.save(at);
        self.store.remove(&old);
        self.publisher.remove(&old);
    }

    fn on_gone(&mut self, now: Time, ifindex: u32, name: &str) {
        if let Some(at) = self.bonds.iter().position(|member| member.ifindex == ifindex) {
            log::warn!("{name}: its interface was deleted by someone else, giving its ports back");
            if let Err(error) = self.remove(at) {
                log::error!("{name}: {error}");
            }
            return;
        }
        let port = PortId(ifindex);
        let owner = self
            .bonds
            .iter()
            .position(|member| member.bond.ports().get(port).is_some());
        if let Some(at) = owner {
            log::warn!(
                "{}: {name} has disappeared, it joins again when it is back",
                self.bonds[at].name
            );
            if let Err(error) = self.release(now, at, port) {
                log::debug!("{name}: {error}");
            }
        }
    }

    /// Attaches a port that was waited for; a refusal is logged once.
    pub(super) fn attach_wanted(&mut self, now: Time, at: usize, name: &str) {
        let result = self
            .possible_port(at, name)
            .and_then(|link| self.attach(now, at, &link));
        let member = &mut self.bonds[at];
        match result {
            Ok(()) => {
                member.refused.remove(name);
            }
            Err(error) => {
                if member.refused.insert(name.to_owned(), error.message.clone()).as_ref() != Some(&error.message) {
                    log::warn!("{}: cannot attach {name}: {}", member.name, error.message);
                }
            }
        }
    }

    /// State of a port with speed and duplex.
    pub(super) fn read_port(&mut self, port: PortId) -> Option<LinkReport> {
        let mut report = self.links.by_index(port.0).ok().flatten()?.report;
        (report.speed, report.duplex) = self.links.speed_duplex(&report.name);
        Some(report)
    }
}

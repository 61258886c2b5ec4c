//! Bonds that are known and not there: a start has not come to them, or an attempt to take them over or to make them failed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bond_modes::PortId;
use bond_modes::options::millis;
use bond_monitors::Time;

use super::Instances;
use super::agenda::Stage;
use super::polls::POLLS_SHARE;
use super::unadopted::{FIRST_PAUSE, Unadopted};
use crate::clock;
use crate::control::proto::WaitingReport;
use crate::saved::SavedBond;

impl Instances {
    /// The bonds that are to be adopted, and those that are still to be made.
    pub(super) fn waiting(&mut self, now: Time) -> Vec<WaitingReport> {
        let adopted = |bond: &Unadopted| WaitingReport {
            name: bond.name.clone(),
            why: bond.reason.clone(),
            next_attempt_ms: bond.retry.map_or(0, |retry| millis(retry.since(now))),
            starting: bond.retry.is_none(),
            unmade: bond.is_unmade(),
            since_ms: bond.failed_since.map(|since| millis(now.since(since))),
        };
        let made = |name: String| WaitingReport {
            name,
            why: MAKES.to_owned(),
            next_attempt_ms: 0,
            starting: true,
            unmade: false,
            since_ms: None,
        };
        let adopted: Vec<WaitingReport> = self.unadopted.iter().map(adopted).collect();
        adopted
            .into_iter()
            .chain(self.still_to_make().into_iter().map(made))
            .collect()
    }

    /// The bonds that a start is still to make.
    pub(super) fn still_to_make(&mut self) -> Vec<String> {
        let named = self.agenda.specs().iter().map(|spec| spec.name.clone());
        let mut named: Vec<String> = named.collect();
        let unadopted: BTreeSet<&str> = self.unadopted.iter().map(|bond| bond.name.as_str()).collect();
        named.retain(|name| self.bonds.named(name).is_none() && !unadopted.contains(name.as_str()));
        named
    }

    /// Why a bond that is known is not there; `None` if none of this name is expected.
    pub(super) fn why_missing(&self, bond: &str) -> Option<String> {
        if let Some(waiting) = self.unadopted.iter().find(|waiting| waiting.name == bond) {
            let again = if waiting.retry.is_some() {
                ", bondd tries again"
            } else {
                ""
            };
            let done = if waiting.is_unmade() { "made" } else { "adopted" };
            return Some(format!("{bond} is not {done} yet{again}: {}", waiting.reason));
        }
        let to_be_made = self.agenda.specs().iter().any(|spec| spec.name == bond);
        to_be_made.then(|| format!("{bond} is not made yet: {MAKES}"))
    }

    /// A bond of this name is there, or is not wanted any more, so that the one of the option files that could not be made is not tried
    /// again. Whether there was one.
    pub(super) fn forget_unmade(&mut self, name: &str) -> bool {
        let is_it = |bond: &mut Unadopted| bond.is_unmade() && bond.name == name;
        self.unadopted.extract_if(.., is_it).count() > 0
    }

    /// First come bonds whose traffic is lost and can be moved, then those that miss any other port; those whose interface is gone come
    /// last.
    pub(super) fn order_takeovers(&mut self) {
        if self.agenda.stage() != Stage::Saved {
            return;
        }
        let waits = self.unadopted.iter().filter_map(|bond| Some((bond, bond.saved()?)));
        let values: BTreeMap<&str, u8> = waits
            .map(|(bond, saved)| (bond.name.as_str(), self.lost_by(saved)))
            .collect();
        self.agenda
            .order_takeovers(|bond| values.get(bond).copied().unwrap_or(u8::MAX));
    }

    /// The less, the sooner a bond is to be taken over.
    fn lost_by(&self, saved: &SavedBond) -> u8 {
        let is_dead = |port: &&PortId| {
            let link = self.host.link(port.0);
            self.waiting_ports.polled_off.contains(port) || link.is_none_or(|link| !link.report.carrier.is_on())
        };
        if self.host.link(saved.ifindex).is_none() {
            return 3;
        }
        let (dead, alive): (Vec<PortId>, Vec<PortId>) = saved.originals.keys().partition(is_dead);
        match saved.bond.active_port() {
            _ if dead.is_empty() => 2,
            // Its traffic has nowhere to go, or is not touched.
            _ if alive.is_empty() => 1,
            Some(active) if alive.contains(&active) => 1,
            _ => 0,
        }
    }

    /// A port has failed. Nobody moves the traffic of a bond that is not taken over yet.
    pub(super) fn waiting_port_failed(&mut self, port: PortId) {
        if self.has_unadopted() {
            self.waiting_ports.failed.insert(port);
        }
    }

    /// Bonds whose ports have failed meanwhile are taken over sooner, and tried again sooner.
    pub(super) fn hurry_takeovers(&mut self, now: Time) {
        let failed = std::mem::take(&mut self.waiting_ports.failed);
        if failed.is_empty() {
            return;
        }
        for bond in self.unadopted.iter_mut().filter(|bond| bond.has_any(&failed)) {
            bond.retry = bond.retry.map(|retry| retry.min(now + FIRST_PAUSE));
        }
        self.order_takeovers();
    }

    /// When the ports of bonds that wait are to be polled.
    pub(super) fn waiting_poll_timeout(&self) -> Option<Time> {
        let waits = self.unadopted.iter().any(|bond| bond.saved().is_some());
        (waits && !self.waiting_ports.is_polled).then_some(self.waiting_ports.next_poll)
    }

    /// Polls them: the kernel may report a lost carrier a second late.
    pub(super) fn poll_waiting(&mut self, now: Time) {
        if self.waiting_poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        self.waiting_ports.is_polled = true;
        let waits = self.unadopted.iter().filter_map(Unadopted::saved);
        let ports: Vec<u32> = waits
            .flat_map(|saved| saved.originals.keys().map(|port| port.0))
            .collect();
        self.threads.kernel.ask(move |kernel| {
            let before = clock::worked();
            let links = kernel.carriers.read(&ports).unwrap_or_else(|error| {
                log::debug!("cannot poll: {error}");
                BTreeMap::new()
            });
            let work = clock::worked() - before;
            let off = links.into_iter().filter(|(_, state)| !state.carrier.is_on());
            let off: BTreeSet<PortId> = off.map(|(ifindex, _)| PortId(ifindex)).collect();
            Box::new(move |instances, now| instances.on_waiting_polled(now, off, work))
        });
    }

    fn on_waiting_polled(&mut self, now: Time, off: BTreeSet<PortId>, work: Duration) {
        let before = std::mem::take(&mut self.waiting_ports.polled_off);
        // Of the others an event has told, or the last poll.
        let was_on = |port: &&PortId| self.host.link(port.0).is_some_and(|link| link.report.carrier.is_on());
        let failed: Vec<PortId> = off.difference(&before).filter(was_on).copied().collect();
        self.waiting_ports.failed.extend(failed);
        self.waiting_ports.polled_off = off;
        self.waiting_ports.is_polled = false;
        self.waiting_ports.next_poll = now + WAITING_INTERVAL.max(work * (POLLS_SHARE - 1));
    }

    /// An interface is gone. If it is that of a bond that is to be adopted, its ports are given back at once.
    pub(super) fn unadopted_gone(&mut self, now: Time, ifindex: u32) {
        for bond in &mut self.unadopted {
            if bond.ifindex() == Some(ifindex) && bond.retry.is_some() {
                bond.retry = Some(now);
            }
        }
    }
}

/// The usual interval of polls.
const WAITING_INTERVAL: Duration = Duration::from_millis(100);

/// Why a bond of the option files is not there at the beginning.
const MAKES: &str = "bondd has just started and makes one bond after the other";

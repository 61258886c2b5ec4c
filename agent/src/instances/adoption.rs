//! Adopts bonds that could not be adopted before, or gives their ports back.

use std::time::Duration;

use bond_modes::options::millis;
use bond_monitors::Time;

use super::Instances;
use super::unadopted::{State, Unadopted};
use crate::control::proto::WaitingReport;
use crate::dataplane::PlaneError;
use crate::dataplane::step::step;
use crate::netlink::Link;
use crate::text::chain;

impl Instances {
    /// Adopts a bond, or gives its ports back if it is gone. After a failure it is tried again later.
    pub(super) fn try_adoption(&mut self, now: Time, mut bond: Unadopted) -> Option<Unadopted> {
        match self.adopt_or_give_back(now, &mut bond) {
            Ok(()) => {
                self.wait_no_more(&mut bond);
                Some(bond)
            }
            Err(error) => {
                self.adopt_later(now, bond, &error);
                None
            }
        }
    }

    /// A bond may also wait under the name that it has got, because its state could not be read: the file's lines under this name
    /// are then followed with those that wait for it.
    fn wait_no_more(&mut self, bond: &mut Unadopted) {
        let Some(at) = bond.ifindex().and_then(|ifindex| self.bonds.on_device(ifindex)) else {
            return;
        };
        let name = &self.bonds.get(at).expect("it is indexed").name;
        let is_same = |waiting: &mut Unadopted| matches!(waiting.state, State::Lost) && waiting.name == *name;
        for waiting in self.unadopted.extract_if(.., is_same) {
            bond.specs.extend(waiting.specs);
        }
    }

    /// Keeps a bond for a later attempt. The log reports each reason once.
    pub(super) fn adopt_later(&mut self, now: Time, mut bond: Unadopted, error: &PlaneError) {
        let reason = chain(error);
        if bond.reason != reason {
            log::error!(
                "{}: cannot be adopted, left as it is until another attempt succeeds: {reason}",
                bond.name
            );
        }
        bond.reason = reason;
        bond.retry = now + FIRST_PAUSE * (1 << bond.failures.min(MOST_DOUBLINGS));
        bond.failures += 1;
        self.unadopted.push(bond);
    }

    /// The place of a bond that is to be adopted and has this name, in its state file or in the kernel.
    pub(super) fn find_unadopted(&mut self, name: &str) -> Result<Option<usize>, PlaneError> {
        if self.unadopted.is_empty() {
            return Ok(None);
        }
        if let Some(place) = self.unadopted.iter().position(|bond| bond.name == name) {
            return Ok(Some(place));
        }
        let link = step(|| format!("read {name}"), || self.links.by_name(name))?;
        let same = |link: &Link| {
            self.unadopted
                .iter()
                .position(|bond| bond.ifindex() == Some(link.ifindex))
        };
        Ok(link.as_ref().and_then(same))
    }

    /// The bonds that are to be adopted.
    pub(super) fn waiting(&self, now: Time) -> Vec<WaitingReport> {
        let report = |bond: &Unadopted| WaitingReport {
            name: bond.name.clone(),
            why: bond.reason.clone(),
            next_attempt_ms: millis(bond.retry.since(now)),
        };
        self.unadopted.iter().map(report).collect()
    }

    /// Whether a bond may forward that this agent has not adopted yet.
    pub fn has_unadopted(&self) -> bool {
        !self.unadopted.is_empty()
    }

    /// When the next bond is tried again.
    pub(super) fn adopt_timeout(&self) -> Option<Time> {
        self.unadopted.iter().map(|bond| bond.retry).min()
    }

    /// Makes the attempts that are due. An adopted bond then follows the files and its interfaces as at a start.
    pub(super) fn adopt_due(&mut self, now: Time) {
        self.as_a_change(|instances| instances.adopt_all_due(now));
    }

    fn adopt_all_due(&mut self, now: Time) {
        let mut done = Vec::new();
        while let Some(place) = self.unadopted.iter().position(|bond| bond.retry <= now) {
            let bond = self.unadopted.remove(place);
            done.extend(self.try_adoption(now, bond));
        }
        if done.is_empty() {
            return;
        }
        for bond in done {
            self.finish_adoption(now, bond);
        }
        self.resync(now);
        self.prune_files();
    }

    /// An interface is gone. If it is that of a bond that is to be adopted, its ports are given back at once.
    pub(super) fn unadopted_gone(&mut self, now: Time, ifindex: u32) {
        for bond in &mut self.unadopted {
            if bond.ifindex() == Some(ifindex) {
                bond.retry = now;
            }
        }
    }

    fn adopt_or_give_back(&mut self, now: Time, bond: &mut Unadopted) -> Result<(), PlaneError> {
        if matches!(bond.state, State::Unread) {
            let read = || format!("read the saved state of {}", bond.name);
            let saved = step(read, || self.store.read(&bond.name))?;
            bond.state = saved.map_or(State::Lost, |saved| State::Saved(Box::new(saved)));
        }
        let State::Saved(saved) = &mut bond.state else {
            return match bond.specs.iter().find(|spec| spec.name == bond.name) {
                Some(spec) => {
                    self.try_ensure(now, spec)?;
                    bond.followed = true;
                    Ok(())
                }
                None => self.adopt_orphan(now, &bond.name, None).map(drop),
            };
        };
        if let Some(at) = self.bonds.on_device(saved.ifindex) {
            log::warn!(
                "{}: ignoring its saved state from before it was renamed to {}",
                saved.name,
                self.bonds[at].name
            );
            self.save(at);
            return Ok(());
        }
        match self.look_for(saved)? {
            Some((plane, seen)) => self.adopt(now, saved.as_ref().clone(), plane, seen),
            None => self.give_back_all(now, saved),
        }
        Ok(())
    }

    /// Does for a bond that was adopted late, or turned out to be gone, what a start does for all.
    fn finish_adoption(&mut self, now: Time, bond: Unadopted) {
        // Another bond may have its former name by now.
        let found = match bond.ifindex() {
            Some(ifindex) => self.bonds.on_device(ifindex),
            None => self.bonds.named(&bond.name),
        };
        let found = found.and_then(|at| self.bonds.get(at));
        let mut names: Vec<String> = found.map(|known| known.name.clone()).into_iter().collect();
        for spec in &bond.specs {
            if !bond.followed || spec.name != bond.name {
                self.ensure(now, spec);
            }
            if !names.contains(&spec.name) {
                names.push(spec.name.clone());
            }
        }
        for name in names {
            if !bond.specs.iter().any(|spec| spec.name == name) {
                self.leave_behind_one(now, &name);
            }
            if let Ok(at) = self.find(&name) {
                self.bonds[at].dirty = true;
                self.attach_all_wanted(now, at);
            }
        }
    }
}

/// The pause after the first failure. It doubles with each one,
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// this many times at most, to 51 seconds.
const MOST_DOUBLINGS: u32 = 9;

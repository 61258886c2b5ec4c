//! Adopts bonds that could not be adopted before, or gives their ports back.

use std::time::Duration;

use bond_monitors::Time;

use super::super::Instances;
use super::super::id::InstanceId;
use super::super::unadopted::{State, Unadopted};
use crate::dataplane::PlaneError;
use crate::dataplane::step::step;
use crate::netlink::{Link, LinkEvent};
use crate::text::chain;

impl Instances {
    /// Adopts a bond, or gives its ports back if it is gone. After a failure it is tried again later.
    pub(in crate::instances) fn try_adoption(&mut self, now: Time, mut bond: Unadopted) -> Option<Unadopted> {
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
    pub(in crate::instances) fn adopt_later(&mut self, now: Time, mut bond: Unadopted, error: &PlaneError) {
        let reason = chain(error);
        if bond.reason != reason {
            log::error!(
                "{}: cannot be adopted, left as it is until another attempt succeeds: {reason}",
                bond.name
            );
        }
        bond.reason = reason;
        bond.retry = Some(now + FIRST_PAUSE * (1 << bond.failures.min(MOST_DOUBLINGS)));
        bond.failures += 1;
        bond.is_asked = false;
        self.unadopted.push(bond);
    }

    /// The place of a bond that is to be adopted and has this name, in its state file or in the kernel.
    pub(in crate::instances) fn find_unadopted(&mut self, name: &str) -> Result<Option<usize>, PlaneError> {
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

    /// Whether a bond may forward that this agent has not adopted yet.
    pub fn has_unadopted(&self) -> bool {
        !self.unadopted.is_empty()
    }

    /// When the next bond is tried again.
    pub(in crate::instances) fn adopt_timeout(&self) -> Option<Time> {
        let left = self.unadopted.iter().filter(|bond| !bond.is_asked);
        left.filter_map(|bond| bond.retry).min()
    }

    /// Makes the attempts that are due, each as soon as the kernel answers: it may have failed because others have its lock.
    pub(in crate::instances) fn adopt_due(&mut self, now: Time) {
        let is_due = |bond: &&mut Unadopted| !bond.is_asked && bond.retry.is_some_and(|retry| retry <= now);
        for bond in self.unadopted.iter_mut().filter(is_due) {
            bond.is_asked = true;
            self.threads.kernel.ask(|kernel| {
                // The attempt finds out more.
                let _ = kernel.links.by_index(LOOPBACK);
                Box::new(|instances, now| instances.as_a_change(|instances| instances.adopt_asked(now)))
            });
        }
    }

    /// Attempts that the kernel is still to answer for are not made.
    pub(in crate::instances) fn give_up_adoptions(&mut self) {
        for bond in &mut self.unadopted {
            bond.is_asked = false;
        }
    }

    /// Makes one attempt. An adopted bond then follows the files and its interfaces as at a start.
    fn adopt_asked(&mut self, now: Time) {
        let Some(place) = self.unadopted.iter().position(|bond| bond.is_asked) else {
            return;
        };
        let bond = self.unadopted.remove(place);
        let Some(bond) = self.try_adoption(now, bond) else {
            return;
        };
        self.finish_adoption(now, bond);
        if self.has_started() {
            self.prune_files();
        }
    }

    /// Reads the interfaces of a bond that has just been taken over, as a reading of everything does: the events that described
    /// them came before. If an interface cannot be read, everything is read later.
    pub(in crate::instances) fn look_over(&mut self, now: Time, at: InstanceId) {
        let Some(instance) = self.bonds.get(at) else { return };
        let device = instance.ifindex;
        let mut parts = vec![(device, instance.name.clone())];
        parts.extend(instance.bond.ports().iter().map(|port| (port.id.0, port.name.clone())));
        for (ifindex, name) in parts {
            self.look_at_link(now, ifindex, &name);
        }
        let wire = self.host.link(device).and_then(|link| link.peer);
        if let Some(wire) = wire
            && self.bonds.get(at).is_some()
        {
            self.look_at_link(now, wire, "");
        }
        self.refresh_addresses(now, at);
    }

    fn look_at_link(&mut self, now: Time, ifindex: u32, name: &str) {
        match self.links.by_index(ifindex) {
            Ok(Some(link)) => self.on_link_event(now, LinkEvent::Link(Box::new(link))),
            Ok(None) => {
                let name = name.to_owned();
                self.on_link_event(now, LinkEvent::Gone { ifindex, name });
            }
            Err(error) => self.read_all_later(now, &error),
        }
    }

    /// Where the bond is, now that it is adopted. Another one may have its former name by now.
    pub(in crate::instances) fn place_of(&mut self, bond: &Unadopted) -> Option<InstanceId> {
        match bond.ifindex() {
            Some(ifindex) => self.bonds.on_device(ifindex),
            None => self.bonds.named(&bond.name),
        }
    }

    fn adopt_or_give_back(&mut self, now: Time, bond: &mut Unadopted) -> Result<(), PlaneError> {
        if matches!(bond.state, State::Unread) {
            let read = || format!("read the saved state of {}", bond.name);
            let saved = step(read, || self.read_state(&bond.name))?;
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
            Some((plane, seen)) => {
                self.complete_originals(saved, &seen)?;
                self.adopt(now, saved.as_ref().clone(), plane, seen);
            }
            None => self.give_back_all(now, saved),
        }
        Ok(())
    }

    /// Does for a bond that was adopted late, or turned out to be gone, what a start does for all.
    fn finish_adoption(&mut self, now: Time, mut bond: Unadopted) {
        let found = self.place_of(&bond);
        if let Some(at) = found {
            self.look_over(now, at);
        }
        let found = found.and_then(|at| self.bonds.get(at));
        let mut names: Vec<String> = found.map(|known| known.name.clone()).into_iter().collect();
        // The start may not have come to them.
        let left = names.iter().chain([&bond.name]);
        bond.specs.extend(left.filter_map(|name| self.agenda.take_spec(name)));
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

/// The interface that every network namespace has.
const LOOPBACK: u32 = 1;

/// The pause after the first failure. It doubles with each one,
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// this many times at most, to 51 seconds.
const MOST_DOUBLINGS: u32 = 9;

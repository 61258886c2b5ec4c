//! Adopts bonds that could not be adopted before, or gives their ports back; and makes those that could not be made.

use super::super::agenda::Stage;
use super::super::attempts::backoff;
use super::super::id::InstanceId;
use super::super::unadopted::{FIRST_PAUSE, NotThere, State, Unadopted};
use super::change::Change;
use crate::dataplane::PlaneError;
use crate::dataplane::step::step;
use crate::netlink::{Link, LinkEvent};
use crate::text::chain;

impl Change<'_> {
    /// Makes the attempt that is due. An adopted bond then follows the files and its interfaces as at a start.
    pub(in crate::instances) fn adopt_late(&mut self) {
        let now = self.now();
        let is_due = |bond: &Unadopted| bond.retry.is_some_and(|retry| retry <= now);
        let place = self.unadopted.iter().position(|bond| is_due(bond) && !bond.is_unmade());
        if let Some(place) = place {
            self.try_late(place);
        }
    }

    /// As [`Change::adopt_late`], for a bond that could not be made.
    pub(in crate::instances) fn make_late(&mut self) {
        let now = self.now();
        let is_due = |bond: &Unadopted| bond.is_unmade() && bond.retry.is_some_and(|retry| retry <= now);
        let due = self.unadopted.iter().enumerate().filter(|(_, bond)| is_due(bond));
        // With many of them, the pauses may be too short for an attempt at each: the longest overdue comes first.
        let first = due.min_by_key(|(_, bond)| bond.retry);
        if let Some(place) = first.map(|(place, _)| place) {
            self.try_late(place);
        }
    }

    fn try_late(&mut self, place: usize) {
        if let Some(bond) = self.try_adoption(place) {
            if self.agenda.stage() < Stage::Change {
                // The start does the rest, when all bonds are taken over.
                return self.look_over_adopted(&bond);
            }
            self.finish_adoption(bond);
            // Before that, the start does.
            if self.agenda.stage() >= Stage::End {
                self.prune_files();
            }
        }
    }

    pub(in crate::instances) fn look_over_adopted(&mut self, bond: &Unadopted) {
        if let Some(at) = self.place_of(bond) {
            self.look_over(at);
        }
    }

    /// Adopts the bond at this place, or gives its ports back if it is gone, or makes it. It is shown as waiting meanwhile. After a
    /// failure it is tried again later.
    pub(in crate::instances) fn try_adoption(&mut self, place: usize) -> Option<Unadopted> {
        self.unadopted[place].in_hand = true;
        let mut bond = self.unadopted[place].clone();
        let adopted = self.adopt_or_give_back(&mut bond);
        self.wait_no_more();
        match adopted {
            Ok(()) => {
                self.take_specs_of_same(&mut bond);
                Some(bond)
            }
            Err(error) => {
                self.adopt_later(bond, error);
                None
            }
        }
    }

    /// The bond that is being adopted does not wait for that any more.
    pub(in crate::instances) fn wait_no_more(&mut self) {
        self.unadopted.retain(|bond| !bond.in_hand);
    }

    /// A bond may also wait under the name that it has got, because its state could not be read: the file's lines under this name
    /// are then followed with those that wait for it.
    fn take_specs_of_same(&mut self, bond: &mut Unadopted) {
        let Some(at) = bond.ifindex().and_then(|ifindex| self.bonds.on_device(ifindex)) else {
            return;
        };
        let name = self.bonds.get(at).expect("it is indexed").name.clone();
        let is_same =
            |waiting: &mut Unadopted| matches!(waiting.state, State::Lost | State::Unmade) && waiting.name == name;
        for waiting in self.unadopted.extract_if(.., is_same) {
            bond.specs.extend(waiting.specs);
        }
    }

    /// Keeps a bond for a later attempt. The log reports each reason once.
    pub(in crate::instances) fn adopt_later(&mut self, mut bond: Unadopted, error: impl Into<NotThere>) {
        let reason = match error.into() {
            NotThere::Unadopted(error) => chain(&error),
            NotThere::Unmade(why) => {
                bond.state = State::Unmade;
                why
            }
        };
        let name = &bond.name;
        let spec = bond.specs.iter().find(|spec| spec.name == *name);
        match spec.filter(|_| bond.is_unmade()) {
            _ if bond.reason == reason => {}
            Some(spec) => log::error!(
                "{}: {name}: cannot be made, bondd tries again until it can: {reason}",
                spec.place
            ),
            None => log::error!("{name}: cannot be adopted, left as it is until another attempt succeeds: {reason}"),
        }
        bond.reason = reason;
        let now = self.now();
        let pause = match bond.is_unmade() {
            true => backoff(bond.failures),
            false => FIRST_PAUSE * (1 << bond.failures.min(MOST_DOUBLINGS)),
        };
        bond.retry = Some(now + pause);
        bond.failed_since.get_or_insert(now);
        bond.failures += 1;
        bond.in_hand = false;
        self.unadopted.push(bond);
    }

    /// The place of a bond that is to be adopted and has this name, in its state file or in the kernel.
    pub(in crate::instances) fn find_unadopted(&mut self, name: &str) -> Result<Option<usize>, PlaneError> {
        let others = |bond: &&Unadopted| !bond.in_hand;
        if !self.unadopted.iter().any(|bond| others(&bond)) {
            return Ok(None);
        }
        let waits = |bond: &Unadopted| others(&bond) && bond.name == name;
        if let Some(place) = self.unadopted.iter().position(waits) {
            return Ok(Some(place));
        }
        let link = step(|| format!("read {name}"), || self.read_name(name))?;
        let same = |link: Link| {
            let is_it = |bond: &Unadopted| others(&bond) && bond.ifindex() == Some(link.ifindex);
            self.unadopted.iter().position(is_it)
        };
        Ok(link.and_then(same))
    }

    /// Reads the interfaces of a bond that has just been taken over, as a reading of everything does: the events that described
    /// them came before. If an interface cannot be read, everything is read later.
    pub(in crate::instances) fn look_over(&mut self, at: InstanceId) {
        let Some(instance) = self.bonds.get(at) else { return };
        let device = instance.ifindex;
        let mut parts = vec![(device, instance.name.clone())];
        parts.extend(instance.bond.ports().iter().map(|port| (port.id.0, port.name.clone())));
        for (ifindex, name) in parts {
            self.look_at_link(ifindex, &name);
        }
        let wire = self.host.link(device).and_then(|link| link.peer);
        if let Some(wire) = wire
            && self.bonds.get(at).is_some()
        {
            self.look_at_link(wire, "");
        }
        let now = self.now();
        self.refresh_addresses(now, at);
    }

    fn look_at_link(&mut self, ifindex: u32, name: &str) {
        let read = self.read_index(ifindex);
        let now = self.now();
        match read {
            Ok(Some(link)) => self.on_link_event(now, LinkEvent::Link(Box::new(link))),
            Ok(None) => {
                let name = name.to_owned();
                self.on_link_event(
                    now,
                    LinkEvent::Gone {
                        ifindex,
                        name,
                        moved: None,
                    },
                );
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

    fn adopt_or_give_back(&mut self, bond: &mut Unadopted) -> Result<(), NotThere> {
        if matches!(bond.state, State::Unread) {
            let doing = || format!("read the saved state of {}", bond.name);
            let saved = match step(doing, || self.read_state(&bond.name)) {
                // Nobody moves its traffic meanwhile.
                Err(error) if bond.failures >= READS => {
                    log::error!(
                        "{}: taken over without its saved state, its ports will be given back as they are now: {}",
                        bond.name,
                        chain(&error)
                    );
                    self.store.give_up(&bond.name);
                    None
                }
                read => read?,
            };
            bond.state = saved.map_or(State::Lost, |saved| State::Saved(Box::new(saved)));
        }
        let place = bond.place;
        let State::Saved(saved) = &mut bond.state else {
            return match bond.specs.iter().find(|spec| spec.name == bond.name) {
                Some(spec) => {
                    self.try_ensure(spec)?;
                    bond.followed = true;
                    Ok(())
                }
                None => Ok(self.adopt_orphan(&bond.name, None).map(drop)?),
            };
        };
        if let Some(at) = self.bonds.on_device(saved.ifindex) {
            log::warn!(
                "{}: ignoring its saved state from before it was renamed to {}",
                saved.name,
                self.bonds[at].name
            );
            self.bonds[at].dirty = true;
            return Ok(());
        }
        match self.look_for(saved)? {
            Some((plane, seen)) => {
                self.complete_originals(saved, &seen)?;
                self.adopt(place, saved.as_ref().clone(), plane, seen);
            }
            None => self.give_back_all(saved),
        }
        Ok(())
    }

    /// Does for a bond that was adopted late, or turned out to be gone, what a start does for all.
    fn finish_adoption(&mut self, mut bond: Unadopted) {
        let found = self.place_of(&bond);
        if let Some(at) = found {
            self.look_over(at);
            if self.gone.remove(&at) {
                // The files' bond is another one then.
                self.remove_deleted(at);
            }
        }
        let found = found.and_then(|at| self.bonds.get(at));
        let mut names: Vec<String> = found.map(|known| known.name.clone()).into_iter().collect();
        // The start may not have come to them.
        let left = names.iter().chain([&bond.name]);
        bond.specs.extend(left.filter_map(|name| self.agenda.take_spec(name)));
        for spec in &bond.specs {
            if !bond.followed || spec.name != bond.name {
                self.ensure(spec);
            }
            if !names.contains(&spec.name) {
                names.push(spec.name.clone());
            }
        }
        for name in names {
            if !bond.specs.iter().any(|spec| spec.name == name) {
                self.leave_behind_one(&name);
            }
            if let Ok(at) = self.find(&name) {
                self.bonds[at].dirty = true;
                self.attach_all_wanted(at);
            }
        }
    }
}

/// The pause after the first failure to adopt a bond doubles with each one, this many times at most, to 51 seconds.
const MOST_DOUBLINGS: u32 = 9;

/// Failed attempts to read a state that may be lost, within 3.1 seconds.
const READS: u32 = 5;

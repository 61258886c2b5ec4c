//! Start: adopts the bonds that forward already, gives back the ports of lost bonds, and makes the bonds of the files, one task a
//! turn of the loop.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bond_modes::{AdoptedState, Bond, BondOptions, ForwardingPlan, PortFacts, PortId, options};
use bond_monitors::Time;

use super::super::Instances;
use super::super::agenda::{Agenda, Stage, StartFiles, Task};
use super::super::id::InstanceId;
use super::super::instance::Instance;
use super::super::losses::can_fail_over;
use super::super::saving::Loop;
use super::super::unadopted::{State, Unadopted};
use crate::config::BondSpec;
use crate::dataplane::step::{step, twice};
use crate::dataplane::{self, Adopted, Observed, OriginalPort, Plane, PlaneBond, PlaneChoice, PlaneError, PortBase};
use crate::origins::{Origins, absolute};
use crate::plane_option::{is_plane, without_plane};
use crate::saved::SavedBond;
use crate::status::writer::{START_LIMIT, warn_late};
use crate::text::chain;

impl Instances {
    /// Reads the interfaces and says what [`Instances::go_on_starting`] has to do: adopt saved bonds, change them to match the
    /// option files, and make those of `specs` that are missing; `files` are the option files that were read. Call it once.
    ///
    /// # Errors
    /// The saved states cannot be read. Nothing was changed.
    pub fn begin_start(&mut self, now: Time, specs: &[BondSpec], files: &[PathBuf]) -> std::io::Result<()> {
        let loaded = self.store.load(&mut Loop)?;
        self.files = files.iter().map(|file| absolute(file)).collect();
        self.unrestored = loaded.left;
        for (name, error) in loaded.unread {
            let error = PlaneError::Kernel {
                doing: format!("read the saved state of {name}"),
                source: error,
            };
            self.adopt_later(now, Unadopted::new(&name, State::Unread), &error);
        }
        let saved: Vec<String> = loaded.states.iter().map(|saved| saved.name.clone()).collect();
        for saved in loaded.states {
            let name = saved.name.clone();
            self.unadopted
                .push(Unadopted::new(&name, State::Saved(Box::new(saved))));
        }
        self.agenda = Agenda::new(saved, specs);
        self.resync(now);
        Ok(())
    }

    /// Whether the work of the start is done. Until then no bond may be made or changed for a client: one that is still to be
    /// adopted may have the name, or the port.
    pub fn has_started(&self) -> bool {
        self.agenda.stage() == Stage::Done
    }

    /// Does the next task of the start, for one bond. To be called when the link events that came before were handled.
    pub fn go_on_starting(&mut self, now: Time) {
        self.as_a_change(|instances| instances.do_next_task(now));
    }

    fn do_next_task(&mut self, now: Time) {
        match self.next_task() {
            Some(Task::Adopt(name)) => self.adopt_in_turn(now, &name),
            Some(Task::Orphan(name)) => match self.adopt_orphan(now, &name, None) {
                Ok(Some(at)) => self.look_over(now, at),
                Ok(None) => {}
                Err(error) => self.adopt_later(now, Unadopted::new(&name, State::Lost), &error),
            },
            Some(Task::Examine) => self.examine_kernel(),
            Some(Task::Follow(name)) => self.follow_in_turn(now, &name),
            Some(Task::LeaveBehind(name)) => self.leave_behind_one(now, &name),
            Some(Task::Attach(at, port)) => self.attach_in_turn(now, at, &port),
            Some(Task::Prune) => self.prune_files(),
            Some(Task::Files) => self.wait_for_files(now),
            None => {}
        }
    }

    /// Not before bonds that forward are taken over: it makes devices and loads programs, in which the kernel takes its time, and
    /// meanwhile nobody would move their traffic.
    fn examine_kernel(&mut self) {
        // No bond can be made, but clients get an answer with the reason.
        if let Err(error) = self.planes.probe() {
            log::error!("no data plane: {}", chain(&error));
        }
        for (plane, why) in self.planes.short_lived() {
            log::warn!("bonds on plane {plane}: {why}");
        }
    }

    /// When [`Instances::go_on_starting`] has something to do.
    pub(in crate::instances) fn start_timeout(&mut self) -> Option<Time> {
        if self.has_started() {
            return None;
        }
        // While something is still to be handed over, or to be written, the thread that writes files wakes the loop.
        let handed_over = !self.bonds.has_dirty() && !self.prune_due;
        let files = self.start_files.as_ref();
        let waits = files.filter(|files| files.settling.is_some() || !handed_over);
        Some(waits.map_or(Time::ZERO, |files| files.limit))
    }

    fn next_task(&mut self) -> Option<Task> {
        loop {
            if let Some(task) = self.agenda.pop() {
                return Some(task);
            }
            let stage = self.agenda.advance();
            let tasks = match stage {
                Stage::Saved | Stage::Done => return None,
                Stage::Orphans => self.orphans(),
                Stage::Examine => vec![Task::Examine],
                Stage::Change => self.changes(),
                Stage::Attach => self
                    .bonds
                    .ids()
                    .into_iter()
                    .flat_map(|at| self.attachments(at))
                    .collect(),
                Stage::Make => self
                    .agenda
                    .specs()
                    .iter()
                    .map(|spec| Task::Follow(spec.name.clone()))
                    .collect(),
                Stage::End => vec![Task::Prune, Task::Files],
            };
            self.agenda.add(tasks);
        }
    }

    /// Bonds without saved state: an agent was killed while it made them, or their state was lost. Those that no file names get the
    /// default options of their mode, so that they can be shown, changed and deleted.
    fn orphans(&mut self) -> Vec<Task> {
        let mut found = self.planes.bonds();
        found.retain(|name| self.bonds.named(name).is_none());
        let task = |name: String| match self.agenda.names(&name) {
            true => Task::Follow(name),
            false => Task::Orphan(name),
        };
        found.into_iter().map(task).collect()
    }

    fn changes(&mut self) -> Vec<Task> {
        let named = self.agenda.specs().iter().map(|spec| spec.name.clone());
        let mut followed: Vec<String> = named.collect();
        followed.retain(|name| self.bonds.named(name).is_some());
        let once_named = self.bonds.iter().filter(|instance| instance.configured.is_some());
        let left = once_named.map(|instance| instance.name.clone());
        let left = left.filter(|name| !self.agenda.names(name));
        let followed = followed.into_iter().map(Task::Follow);
        followed.chain(left.map(Task::LeaveBehind)).collect()
    }

    /// In the order of the ports: the first one gives the bond its address.
    fn attachments(&self, at: InstanceId) -> Vec<Task> {
        let Some(instance) = self.bonds.get(at) else {
            return Vec::new();
        };
        let attached = instance.bond.ports();
        let missing = instance.wanted.iter().filter(|port| attached.named(port).is_none());
        missing.map(|port| Task::Attach(at, port.clone())).collect()
    }

    /// The files show all bonds when the start is done, unless the disk does not answer.
    fn wait_for_files(&mut self, now: Time) {
        let handed_over = !self.bonds.has_dirty() && !self.prune_due;
        let limit = now + START_LIMIT;
        let files = self.start_files.get_or_insert(StartFiles { limit, settling: None });
        let is_late = now >= files.limit;
        if handed_over {
            let settling = files.settling.get_or_insert_with(|| self.writer.settling());
            if settling.is_done() {
                self.start_files = None;
                return;
            }
        }
        if is_late {
            warn_late(START_LIMIT);
            self.start_files = None;
            return;
        }
        self.agenda.add([Task::Files]);
    }

    fn adopt_in_turn(&mut self, now: Time, name: &str) {
        let is_it = |bond: &Unadopted| bond.name == name && bond.retry.is_none();
        let Some(place) = self.unadopted.iter().position(is_it) else {
            return;
        };
        let bond = self.unadopted.remove(place);
        if let Some(bond) = self.try_adoption(now, bond)
            && let Some(at) = self.place_of(&bond)
        {
            self.look_over(now, at);
        }
    }

    fn follow_in_turn(&mut self, now: Time, name: &str) {
        let Some(spec) = self.agenda.take_spec(name) else {
            return;
        };
        let was_there = self.bonds.named(name).is_some();
        self.ensure(now, &spec);
        let Some(at) = self.bonds.named(name).filter(|_| !was_there) else {
            return;
        };
        self.look_over(now, at);
        // Another stage attaches those of bonds that were there before.
        if self.agenda.stage() == Stage::Make {
            self.agenda.add_first(self.attachments(at));
        }
    }

    fn attach_in_turn(&mut self, now: Time, at: InstanceId, port: &str) {
        if self.bonds.get(at).is_some_and(|instance| instance.wants(port)) {
            self.attach_if_there(now, at, port);
        }
    }

    /// What a saved bond is now, also under another name, with which it is saved then; none if its interface is gone.
    ///
    /// # Errors
    /// It cannot be found out whether the interface is there, or the interface is there and not recognised.
    pub(in crate::instances) fn look_for(&mut self, saved: &mut SavedBond) -> Result<Option<Adopted>, PlaneError> {
        self.plane_of(saved)?;
        let ifindex = saved.ifindex;
        let link = step(|| format!("read {}", saved.name), || self.links.by_index(ifindex))?;
        let there = link.map(|link| link.report.name);
        let name = there.clone().unwrap_or_else(|| saved.name.clone());
        let found = self.plane_of(saved)?.adopt(&name)?;
        match found {
            Some(found) if found.1.ifindex == ifindex => {
                if name != saved.name {
                    self.renamed_meanwhile(saved, name);
                }
                Ok(Some(found))
            }
            _ if there.is_some() && name == saved.name => Err(not_recognised(saved)),
            found if there.is_none() => self.under_its_name(saved, found),
            _ => {
                let found = self.plane_of(saved)?.adopt(&saved.name)?;
                self.under_its_name(saved, found)
            }
        }
    }

    /// As [`Instances::look_for`], for one whose interface is not the one of the saved state. If a bond of ours was `found` under its
    /// name all the same, and no other saved state is of that one, only the number in the file is wrong.
    fn under_its_name(&mut self, saved: &mut SavedBond, found: Option<Adopted>) -> Result<Option<Adopted>, PlaneError> {
        let name = saved.name.clone();
        let Some(found) = found else { return Ok(None) };
        let ifindex = found.1.ifindex;
        if ifindex == saved.ifindex || self.bonds.on_device(ifindex).is_some() {
            return Ok(None);
        }
        if self.unadopted.iter().any(|bond| bond.ifindex() == Some(ifindex)) {
            return Ok(None);
        }
        self.may_have_state(&name)?;
        // Another agent's: the ports may be in its use.
        if !self.plane_of(saved)?.bonds()?.contains(&name) {
            return Err(not_recognised(saved));
        }
        log::warn!(
            "{name}: its saved state says that it is interface {}, it is {ifindex}",
            saved.ifindex
        );
        self.store.is_of(saved.ifindex, ifindex);
        saved.ifindex = ifindex;
        let _ = self.store.save(saved, &mut Loop);
        Ok(Some(found))
    }

    fn plane_of(&mut self, saved: &SavedBond) -> Result<&mut dyn Plane, PlaneError> {
        self.planes.known(saved.plane())
    }

    /// A bond was renamed while no agent ran.
    fn renamed_meanwhile(&mut self, saved: &mut SavedBond, name: String) {
        log::info!("{}: renamed to {name}", saved.name);
        if let Some(origins) = &mut saved.origins {
            origins.taken_by_operator(saved.bond.options(), saved.configured.as_ref());
        }
        saved.configured = None;
        saved.name = name;
        let _ = self.store.save(saved, &mut Loop);
    }

    /// A port is attached only when its settings are on disk. If they are missing there all the same, it is to be given back as one of
    /// a bond without a saved state.
    pub(in crate::instances) fn complete_originals(
        &mut self,
        saved: &mut SavedBond,
        seen: &Observed,
    ) -> Result<(), PlaneError> {
        for (port, report) in &seen.ports {
            if saved.originals.contains_key(port) {
                continue;
            }
            if let Some(original) = saved.unrestored.remove(port) {
                saved.originals.insert(*port, original);
                continue;
            }
            let original = match self.original_of_orphan(*port) {
                Ok(original) => original,
                Err(PlaneError::PortGone { .. }) => continue,
                Err(error) => return Err(error),
            };
            log::warn!(
                "{}: {}: its saved state does not say what this port was, it will be given back as it is now",
                saved.name,
                report.name
            );
            saved.originals.insert(*port, original);
        }
        Ok(())
    }

    pub(in crate::instances) fn adopt(
        &mut self,
        now: Time,
        saved: SavedBond,
        plane: Box<dyn PlaneBond>,
        observed: Observed,
    ) {
        let ifindex = observed.ifindex;
        let options = saved.bond.options().clone();
        let mut seen = self.seen(observed, &saved.originals);
        seen.fails_over = can_fail_over(plane.as_ref());
        let mut unsaved: Vec<PortId> = seen.ports.iter().map(|(port, _)| *port).collect();
        unsaved.retain(|port| saved.bond.port_names().all(|(known, _)| known != *port));
        let renamed: BTreeMap<String, String> = (saved.bond.port_names())
            .filter_map(|(port, old)| {
                let new = &seen.ports.iter().find(|(id, _)| *id == port)?.1.report.name;
                (new != old).then(|| (old.to_owned(), new.clone()))
            })
            .collect();
        let bond = Bond::adopt(now, options, seen, Some(saved.bond));
        log::info!("{}: adopted with {}", saved.name, in_use(&bond));
        let mut instance = Instance::new(saved.name, ifindex, plane, bond);
        instance.originals = saved.originals;
        instance.vanished = saved.vanished;
        instance.unrestored = saved.unrestored;
        instance.wanted = saved.wanted;
        let options = instance.bond.options();
        let unknown = || Origins::unknown(options, saved.configured.as_ref(), &instance.wanted);
        instance.origins = saved.origins.unwrap_or_else(unknown);
        instance.configured = saved.configured;
        instance.ports_renamed(&renamed);
        // A port may have been attached and not yet written down.
        for port in instance.bond.ports().iter() {
            if !instance.wanted.contains(&port.name) {
                instance.wanted.push(port.name.clone());
            }
        }
        let at = self.bonds.insert(instance);
        self.drain(now, at);
        self.take_early_losses(now);
        self.release_half_attached(now, at);
        self.complete_attachments(now, at, &unsaved);
    }

    fn seen(&mut self, observed: Observed, originals: &BTreeMap<PortId, OriginalPort>) -> AdoptedState {
        let ports = observed.ports.into_iter().map(|(port, mut report)| {
            (report.speed, report.duplex) = self.links.speed_duplex(&report.name);
            let permanent_mac = originals.get(&port).map_or(report.mac, |original| original.mac);
            (port, PortFacts { permanent_mac, report })
        });
        AdoptedState {
            ports: ports.collect(),
            report: observed.report,
            plan: observed.plan,
            fails_over: false,
        }
    }

    /// A crash in the middle of attaching leaves a port that the plane does not know: it is put back, then attached anew. If that
    /// fails, its settings are kept for when it is.
    fn release_half_attached(&mut self, now: Time, at: InstanceId) {
        let instance = &mut self.bonds[at];
        let is_port = |port: &PortId| instance.bond.ports().get(*port).is_some();
        let originals = std::mem::take(&mut instance.originals);
        let (attached, half) = originals.into_iter().partition(|(port, _)| is_port(port));
        instance.originals = attached;
        let half: BTreeMap<PortId, OriginalPort> = half;
        for (port, original) in half {
            self.give_back(now, at, port, original);
        }
    }

    /// A crash before the end of attaching may also leave a port that the plane knows already, and the saved state does not. What is
    /// missing is done, or the port is given back and attached anew. Every other port stays as it is: an operator may have set it
    /// down.
    fn complete_attachments(&mut self, now: Time, at: InstanceId, unsaved: &[PortId]) {
        for &port in unsaved {
            let instance = &self.bonds[at];
            let name = instance.bond.ports().name(port).unwrap_or_else(|| port.to_string());
            log::info!("{}: {name}: completing its attachment", instance.name);
            let mtu = instance.bond.mtu();
            let complete = || {
                instance
                    .plane
                    .with(|plane| plane.attach(port, &PortBase { mac: None, mtu }))
            };
            if let Err(error) = twice(complete) {
                log::warn!("{}: {name}: attaching it anew: {}", instance.name, chain(&error));
                self.release(now, at, port, false);
            }
        }
    }

    /// A bond that forwards although its saved state was lost, and with it the original settings of its ports. They are given
    /// back with their present settings, without the mark of a port. Returns its place; nothing if there is no such bond, or if
    /// it is known.
    ///
    /// # Errors
    /// It cannot be read, or the settings of its ports cannot.
    pub(in crate::instances) fn adopt_orphan(
        &mut self,
        now: Time,
        name: &str,
        pairs: Option<&[(String, String)]>,
    ) -> Result<Option<InstanceId>, PlaneError> {
        if self.find(name).is_ok() || self.find_unadopted(name)?.is_some() {
            return Ok(None);
        }
        self.may_have_state(name)?;
        let Some((mut plane, observed)) = self.planes.adopt(name)? else {
            return Ok(None);
        };
        if self.bonds.on_device(observed.ifindex).is_some() {
            // Its new name is not known yet.
            return Ok(None);
        }
        let options = match pairs {
            Some(pairs) => match options_of_orphan(name, plane.as_mut(), pairs, &observed.plan) {
                Some(options) => options,
                None => return Ok(None),
            },
            None => bond_modes::options_in_force(&observed.plan),
        };
        let mut originals = BTreeMap::new();
        for (port, _) in &observed.ports {
            match self.original_of_orphan(*port) {
                Ok(original) => drop(originals.insert(*port, original)),
                Err(PlaneError::PortGone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let ifindex = observed.ifindex;
        let wanted: Vec<String> = observed.ports.iter().map(|(_, report)| report.name.clone()).collect();
        let mut seen = self.seen(observed, &originals);
        seen.fails_over = can_fail_over(plane.as_ref());
        let bond = Bond::adopt(now, options, seen, None);
        log::warn!("{name}: adopted without saved state; options not in a file and failure counts start anew");
        let mut instance = Instance::new(name.to_owned(), ifindex, plane, bond);
        instance.originals = originals;
        instance.origins = Origins::unknown(instance.bond.options(), None, &wanted);
        instance.wanted = wanted;
        let at = self.bonds.insert(instance);
        self.drain(now, at);
        self.take_early_losses(now);
        Ok(Some(at))
    }

    /// Makes sure that an interface is not that of a saved state, which may be under a former name.
    ///
    /// # Errors
    /// There are states that cannot be read for now.
    fn may_have_state(&mut self, name: &str) -> Result<(), PlaneError> {
        let unread = |bond: &&Unadopted| matches!(bond.state, State::Unread);
        let Some(unread) = self.unadopted.iter().find(unread).map(|bond| bond.name.clone()) else {
            return Ok(());
        };
        let doing = || format!("tell whether the saved state of {unread} is that of {name}");
        match step(doing, || self.links.by_name(name))? {
            Some(_) => step(doing, || Err(std::io::Error::other("it cannot be read yet"))),
            None => Ok(()),
        }
    }

    fn original_of_orphan(&mut self, port: PortId) -> Result<OriginalPort, PlaneError> {
        let seen = dataplane::original(&mut self.links, port)?;
        Ok(OriginalPort {
            disable_ipv6: seen.disable_ipv6.map(|_| false),
            ifalias: String::new(),
            clsact: false,
            allmulti: false,
            ..seen
        })
    }

    pub(in crate::instances) fn attach_all_wanted(&mut self, now: Time, at: InstanceId) {
        for name in self.bonds[at].wanted.clone() {
            self.attach_if_there(now, at, &name);
        }
    }

    fn attach_if_there(&mut self, now: Time, at: InstanceId, port: &str) {
        if self.bonds[at].bond.ports().named(port).is_some() {
            return;
        }
        match self.links.by_name(port) {
            Ok(None) => log::info!("{}: {port} is absent, it joins when it appears", self.bonds[at].name),
            _ => self.attach_wanted(now, at, port),
        }
    }
}

/// The ports that carry the traffic, for the log.
fn in_use(bond: &Bond) -> String {
    let carrying = bond.ports().iter().filter(|port| bond.carries(port.id));
    let names: Vec<&str> = carrying.map(|port| port.name.as_str()).collect();
    match &names[..] {
        _ if bond.has_active() => format!("active port {}", names.first().unwrap_or(&"none")),
        [] => "no usable port".to_owned(),
        names => format!("usable ports {}", names.join(", ")),
    }
}

fn not_recognised(saved: &SavedBond) -> PlaneError {
    PlaneError::NotRecognised {
        name: saved.name.clone(),
        plane: saved.plane().to_owned(),
    }
}

/// The options of the file, or those in force if the plane cannot change to them while the bond runs.
fn options_of_orphan(
    name: &str,
    plane: &mut dyn PlaneBond,
    pairs: &[(String, String)],
    plan: &ForwardingPlan,
) -> Option<BondOptions> {
    let options = options::parse(&without_plane(pairs)).ok()?.options;
    match plane.can(&options) {
        Ok(()) => Some(options),
        Err(error) => {
            log::error!(
                "{name}: the options file cannot be followed while it runs: {}",
                chain(&error)
            );
            Some(bond_modes::options_in_force(plan))
        }
    }
}

/// As [`check_options_on`], for any plane.
pub fn check_options(pairs: &[(String, String)]) -> Vec<(usize, String)> {
    check_options_on(PlaneChoice::Auto, pairs)
}

/// Errors in options for a new bond, for the readers of files, each with the place of its option; past the end if no option is
/// at fault. `choice` is the plane of bonds whose options name no plane.
pub fn check_options_on(choice: PlaneChoice, pairs: &[(String, String)]) -> Vec<(usize, String)> {
    let places: Vec<usize> = (0..pairs.len()).filter(|place| !is_plane(&pairs[*place])).collect();
    let rest: Vec<_> = places.iter().map(|place| pairs[*place].clone()).collect();
    let checked = bond_modes::options::check(&rest);
    let place_of = |place: usize| places.get(place).copied().unwrap_or(usize::MAX);
    let mut wrong: Vec<(usize, String)> = checked
        .into_iter()
        .map(|(place, error)| (place_of(place), error.to_string()))
        .collect();
    let bad_plane = |value: &str| PlaneChoice::parse(value).is_none();
    wrong.extend(
        (0..pairs.len())
            .filter(|place| is_plane(&pairs[*place]) && bad_plane(&pairs[*place].1))
            .map(|place| {
                let value = &pairs[place].1;
                let expected = PlaneChoice::expected();
                (place, format!("plane: bad value {value:?}, expected {expected}"))
            }),
    );
    let given = pairs.iter().rfind(|pair| is_plane(pair));
    let choice = given.and_then(|(_, value)| PlaneChoice::parse(value)).unwrap_or(choice);
    if wrong.is_empty() {
        wrong.extend(inexact(choice, &rest).map(|(place, error)| (place_of(place), error)));
    }
    wrong
}

/// An option that the chosen plane cannot do exactly on any kernel, by its place, and the reason.
fn inexact(choice: PlaneChoice, pairs: &[(String, String)]) -> Option<(usize, String)> {
    let error = choice.check(&options::parse(pairs).ok()?.options).err()?;
    let option = match &error {
        PlaneError::Inexact { what, .. } => what.split('=').next(),
        _ => None,
    };
    let place = pairs.iter().rposition(|(name, _)| Some(name.as_str()) == option);
    Some((place.unwrap_or(usize::MAX), error.to_string()))
}

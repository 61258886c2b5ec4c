//! Start: adopts the bonds that forward already, gives back the ports of lost bonds, and makes the bonds of the files, one task after
//! the other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bond_modes::{AdoptedState, Bond, BondOptions, ForwardingPlan, PortFacts, PortId, options};

use super::super::agenda::{Agenda, Stage, Step};
use super::super::events::read_all;
use super::super::id::InstanceId;
use super::super::instance::Instance;
use super::super::losses::can_fail_over;
use super::super::task::Task;
use super::super::unadopted::{State, Unadopted};
use super::change::Change;
use crate::apart::beside;
use crate::config::BondSpec;
use crate::dataplane::step::{step, twice};
use crate::dataplane::{self, Adopted, Observed, OriginalPort, PlaneBond, PlaneChoice, PlaneError, PortBase};
use crate::may_wait::MayWait;
use crate::origins::{Origins, absolute};
use crate::plane_option::{is_plane, without_plane};
use crate::priority;
use crate::saved::SavedBond;
use crate::text::chain;

/// May wait: before the first bond is taken over nobody else has anything to do.
struct Start;

impl MayWait for Start {}

impl Change<'_> {
    /// Reads the interfaces and says what is to be done, one task after the other: adopt saved bonds, change them to match the
    /// option files, and make those of `specs` that are missing; `files` are the option files that were read. Call it once.
    ///
    /// # Errors
    /// The saved states cannot be read. Nothing was changed.
    pub fn begin_start(&mut self, specs: &[BondSpec], files: &[PathBuf]) -> std::io::Result<()> {
        // Nobody else needs it yet.
        let mut store = self.store.clone();
        let now = self.now();
        self.begin_reading(now);
        // Nobody moves the traffic of bonds meanwhile.
        let load = || {
            priority::raise(priority::LOOP);
            store.load(&mut Start)
        };
        let (loaded, links) = self.unlocked(|tools| beside(load, || read_all(&mut tools.links)));
        self.store = store;
        let loaded = loaded??;
        self.files = files.iter().map(|file| absolute(file)).collect();
        self.left.ports = loaded.left;
        for (name, error) in loaded.unread {
            let error = PlaneError::Kernel {
                doing: format!("read the saved state of {name}"),
                source: error,
            };
            self.adopt_later(Unadopted::new(&name, State::Unread), error);
        }
        let saved: Vec<String> = loaded.states.iter().map(|saved| saved.name.clone()).collect();
        for saved in loaded.states {
            let name = saved.name.clone();
            let mut bond = Unadopted::new(&name, State::Saved(Box::new(saved)));
            bond.place = Some(self.bonds.reserve());
            self.unadopted.push(bond);
        }
        self.agenda = Agenda::new(saved, specs);
        let now = self.now();
        self.finish_reading(now, links);
        // There is no bond yet that it costs anything.
        self.tell_all(now);
        Ok(())
    }

    /// Carries out a change that the agent makes by itself. What fails is told and tried again.
    pub fn carry_out(&mut self, task: Task) {
        match task {
            Task::Adopt(name) => self.adopt_in_turn(&name),
            Task::FindOrphans => self.find_orphans(),
            Task::Orphan(name) => match self.adopt_orphan(&name, None) {
                Ok(Some(at)) => self.look_over(at),
                Ok(None) => {}
                Err(error) => self.adopt_later(Unadopted::new(&name, State::Lost), error),
            },
            Task::Examine => self.examine_kernel(),
            Task::Follow(name) => self.follow_in_turn(&name),
            Task::LeaveBehind(name) => self.leave_behind_one(&name),
            Task::Attach(at, port) => self.attach_in_turn(at, &port),
            Task::Remove(at) => self.remove_deleted(at),
            Task::AttachWanted(at, port) => self.attach_if_due(at, &port),
            Task::AdoptLate => self.adopt_late(),
            Task::MakeLate => self.make_late(),
            Task::Save => self.save_owed(),
            Task::GiveBack(port) => self.try_give_back(port),
        }
    }

    /// Not before bonds that forward are taken over: it makes devices and loads programs, in which the kernel takes its time, and
    /// meanwhile nobody would move their traffic.
    fn examine_kernel(&mut self) {
        // No bond can be made, but clients get an answer with the reason.
        if let Err(error) = self.unlocked(|tools| tools.planes.probe()) {
            log::error!("no data plane: {}", chain(&error));
        }
        for (plane, why) in self.unlocked(|tools| tools.planes.short_lived()) {
            log::warn!("bonds on plane {plane}: {why}");
        }
    }

    pub(in crate::instances) fn remove_deleted(&mut self, at: InstanceId) {
        let Some(instance) = self.bonds.get(at) else { return };
        let (name, ifindex) = (instance.name.clone(), instance.ifindex);
        // A reading of all interfaces may be from before it was made.
        match self.read_index(ifindex) {
            Ok(None) => {}
            Ok(Some(_)) => return,
            Err(error) => {
                let now = self.now();
                return self.read_all_later(now, &error);
            }
        }
        log::warn!("{name}: its interface was deleted by another program, giving its ports back");
        if let Err(error) = self.remove(at) {
            log::error!("{name}: {error}");
        }
    }

    /// Bonds without saved state: an agent was killed while it made them, or their state was lost. Those that no file names get the
    /// default options of their mode, so that they can be shown, changed and deleted.
    fn find_orphans(&mut self) {
        let mut found = self.unlocked(|tools| tools.planes.bonds());
        found.retain(|name| self.bonds.named(name).is_none());
        let task = |name: String| match self.agenda.names(&name) {
            true => Task::Follow(name),
            false => Task::Orphan(name),
        };
        let found: Vec<Step> = found.into_iter().map(task).map(Step::Change).collect();
        self.agenda.add(found);
    }

    fn adopt_in_turn(&mut self, name: &str) {
        let is_it = |bond: &Unadopted| bond.name == name && bond.retry.is_none();
        let Some(place) = self.unadopted.iter().position(is_it) else {
            return;
        };
        if let Some(bond) = self.try_adoption(place) {
            self.look_over_adopted(&bond);
        }
    }

    fn follow_in_turn(&mut self, name: &str) {
        let Some(spec) = self.agenda.spec(name).cloned() else {
            return;
        };
        let was_there = self.bonds.named(name).is_some();
        self.ensure(&spec);
        self.agenda.take_spec(name);
        let Some(at) = self.bonds.named(name).filter(|_| !was_there) else {
            return;
        };
        self.look_over(at);
        // Another stage attaches those of bonds that were there before.
        if self.agenda.stage() == Stage::Make {
            let attachments = self.attachments(at).into_iter().map(Step::Change).collect();
            self.agenda.add_first(attachments);
            // Events of its ports may have come meanwhile. The first one in the file comes first.
            self.to_attach.retain(|(of, _)| *of != at);
        }
    }

    fn attach_in_turn(&mut self, at: InstanceId, port: &str) {
        if self.bonds.get(at).is_some_and(|instance| instance.wants(port)) {
            self.attach_if_there(at, port);
        }
    }

    /// What a saved bond is now, also under another name; none if its interface is gone.
    ///
    /// # Errors
    /// It cannot be found out whether the interface is there, or the interface is there and not recognised.
    pub(in crate::instances) fn look_for(&mut self, saved: &mut SavedBond) -> Result<Option<Adopted>, PlaneError> {
        let (plane, ifindex) = (saved.plane().to_owned(), saved.ifindex);
        self.unlocked(|tools| tools.planes.known(&plane).map(drop))?;
        let link = step(|| format!("read {}", saved.name), || self.read_index(ifindex))?;
        let there = link.map(|link| link.report.name);
        let name = there.clone().unwrap_or_else(|| saved.name.clone());
        let found = self.unlocked(|tools| tools.planes.known(&plane)?.adopt(&name))?;
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
                let former = saved.name.clone();
                let found = self.unlocked(|tools| tools.planes.known(&plane)?.adopt(&former))?;
                self.under_its_name(saved, found)
            }
        }
    }

    /// As [`Change::look_for`], for one whose interface is not the one of the saved state. If a bond of ours was `found` under its
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
        let plane = saved.plane().to_owned();
        if !self
            .unlocked(|tools| tools.planes.known(&plane)?.bonds())?
            .contains(&name)
        {
            return Err(not_recognised(saved));
        }
        log::warn!(
            "{name}: its saved state says that it is interface {}, it is {ifindex}",
            saved.ifindex
        );
        self.store.is_of(saved.ifindex, ifindex);
        saved.ifindex = ifindex;
        Ok(Some(found))
    }

    /// A bond was renamed while no agent ran.
    fn renamed_meanwhile(&mut self, saved: &mut SavedBond, name: String) {
        log::info!("{}: renamed to {name}", saved.name);
        if let Some(origins) = &mut saved.origins {
            origins.taken_by_operator(saved.bond.options(), saved.configured.as_ref());
        }
        saved.configured = None;
        saved.name = name;
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

    pub(super) fn adopt(
        &mut self,
        place: Option<InstanceId>,
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
        let bond = Bond::adopt(self.now(), options, seen, Some(saved.bond));
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
        let at = place.unwrap_or_else(|| self.bonds.reserve());
        self.bonds.insert_at(at, instance);
        self.wait_no_more();
        self.drain(at);
        let now = self.now();
        self.take_early_losses(now);
        self.release_half_attached(at);
        self.complete_attachments(at, &unsaved);
        self.end_circles(at);
    }

    /// The bond may have been put under one of its ports before it was taken over.
    fn end_circles(&mut self, at: InstanceId) {
        let now = self.now();
        self.end_circles_of(now, at);
        self.finish_plan(at);
    }

    fn seen(&mut self, observed: Observed, originals: &BTreeMap<PortId, OriginalPort>) -> AdoptedState {
        let mut reports = observed.ports;
        self.unlocked(|tools| {
            for (_, report) in &mut reports {
                (report.speed, report.duplex) = tools.links.speed_duplex(&report.name);
            }
        });
        let ports = reports.into_iter().map(|(port, report)| {
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
    fn release_half_attached(&mut self, at: InstanceId) {
        let instance = &mut self.bonds[at];
        let is_port = |port: &PortId| instance.bond.ports().get(*port).is_some();
        let originals = std::mem::take(&mut instance.originals);
        let (attached, half) = originals.into_iter().partition(|(port, _)| is_port(port));
        instance.originals = attached;
        let half: BTreeMap<PortId, OriginalPort> = half;
        let ports: Vec<PortId> = half.keys().copied().collect();
        instance.unrestored.extend(half);
        for port in ports {
            self.give_back(at, port);
        }
    }

    /// A crash before the end of attaching may also leave a port that the plane knows already, and the saved state does not. What is
    /// missing is done, or the port is given back and attached anew. Every other port stays as it is: an operator may have set it
    /// down.
    fn complete_attachments(&mut self, at: InstanceId, unsaved: &[PortId]) {
        for &port in unsaved {
            let instance = &self.bonds[at];
            let port_name = instance.bond.ports().name(port);
            let name = port_name.map_or_else(|| port.to_string(), |name| name.to_string());
            log::info!("{}: {name}: completing its attachment", instance.name);
            let base = PortBase {
                mac: None,
                mtu: instance.bond.mtu(),
            };
            if let Err(error) = self.on_plane(at, |plane| twice(|| plane.attach(port, &base))) {
                log::warn!("{}: {name}: attaching it anew: {}", self.bonds[at].name, chain(&error));
                self.release(at, port);
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
        name: &str,
        pairs: Option<&[(String, String)]>,
    ) -> Result<Option<InstanceId>, PlaneError> {
        if self.find(name).is_ok() || self.find_unadopted(name)?.is_some() {
            return Ok(None);
        }
        self.may_have_state(name)?;
        let adopted = self.unlocked(|tools| {
            let Some((mut plane, observed)) = tools.planes.adopt(name)? else {
                return Ok(None);
            };
            let options = match pairs {
                Some(pairs) => options_of_orphan(name, plane.as_mut(), pairs, &observed.plan),
                None => Some(bond_modes::options_in_force(&observed.plan)),
            };
            Ok(options.map(|options| (plane, observed, options)))
        })?;
        let Some((plane, observed, options)) = adopted else {
            return Ok(None);
        };
        if self.bonds.on_device(observed.ifindex).is_some() {
            // Its new name is not known yet.
            return Ok(None);
        }
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
        let bond = Bond::adopt(self.now(), options, seen, None);
        log::warn!("{name}: adopted without saved state; options not in a file and failure counts start anew");
        let mut instance = Instance::new(name.to_owned(), ifindex, plane, bond);
        instance.originals = originals;
        instance.origins = Origins::unknown(instance.bond.options(), None, &wanted);
        instance.wanted = wanted;
        let at = self.bonds.insert(instance);
        self.wait_no_more();
        self.drain(at);
        let now = self.now();
        self.take_early_losses(now);
        self.end_circles(at);
        Ok(Some(at))
    }

    /// Makes sure that an interface is not that of a saved state, which may be under a former name.
    ///
    /// # Errors
    /// There are states that cannot be read for now, and whose bonds may have other names.
    fn may_have_state(&mut self, name: &str) -> Result<(), PlaneError> {
        let unread = |bond: &&Unadopted| matches!(bond.state, State::Unread) && !bond.in_hand;
        let unread: Vec<String> = self
            .unadopted
            .iter()
            .filter(unread)
            .map(|bond| bond.name.clone())
            .collect();
        for unread in unread {
            let doing = || format!("tell whether the saved state of {unread} is that of {name}");
            if !step(doing, || self.is_orphan(&unread))? && step(doing, || self.read_name(name))?.is_some() {
                return step(doing, || Err(std::io::Error::other("it cannot be read yet")));
            }
        }
        Ok(())
    }

    /// Whether there is a bond of ours of this name of which no state is known. One that cannot be read under this name is most likely
    /// its own.
    fn is_orphan(&mut self, name: &str) -> std::io::Result<bool> {
        let Some(link) = self.read_name(name)? else {
            return Ok(false);
        };
        let is_known = self.bonds.on_device(link.ifindex).is_some()
            || self.unadopted.iter().any(|bond| bond.ifindex() == Some(link.ifindex));
        Ok(!is_known
            && self
                .unlocked(|tools| tools.planes.bonds())
                .iter()
                .any(|bond| bond == name))
    }

    fn original_of_orphan(&mut self, port: PortId) -> Result<OriginalPort, PlaneError> {
        let seen = self.unlocked(|tools| dataplane::original(&mut tools.links, port))?;
        Ok(OriginalPort {
            disable_ipv6: seen.disable_ipv6.map(|_| false),
            ifalias: String::new(),
            clsact: false,
            allmulti: false,
            ..seen
        })
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

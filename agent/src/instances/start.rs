//! Start: adopts the bonds that forward already, gives back the ports of lost bonds, and makes the bonds of the files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bond_modes::{AdoptedState, Bond, BondOptions, ForwardingPlan, PortFacts, PortId, options};
use bond_monitors::Time;

use super::Instances;
use super::id::InstanceId;
use super::instance::Instance;
use super::unadopted::{State, Unadopted};
use crate::config::BondSpec;
use crate::dataplane::step::step;
use crate::dataplane::{self, Adopted, Observed, OriginalPort, Plane, PlaneBond, PlaneChoice, PlaneError};
use crate::origins::{Origins, absolute};
use crate::plane_option::{is_plane, without_plane};
use crate::saved::SavedBond;
use crate::text::chain;

impl Instances {
    /// Adopts saved bonds, changes them to match the option files, and makes those of `specs` that are missing; `files` are the
    /// option files that were read. Call it once, after subscribing to link events.
    ///
    /// # Errors
    /// The saved states cannot be read. Nothing was changed.
    pub fn start(&mut self, now: Time, specs: &[BondSpec], files: &[PathBuf]) -> std::io::Result<()> {
        self.as_a_change(|instances| instances.start_all(now, specs, files))
    }

    fn start_all(&mut self, now: Time, specs: &[BondSpec], files: &[PathBuf]) -> std::io::Result<()> {
        let loaded = self.store.load()?;
        self.files = files.iter().map(|file| absolute(file)).collect();
        self.unrestored = loaded.left;
        for (name, error) in loaded.unread {
            let error = PlaneError::Kernel {
                doing: format!("read the saved state of {name}"),
                source: error,
            };
            self.adopt_later(now, Unadopted::new(&name, State::Unread), &error);
        }
        for saved in loaded.states {
            let name = saved.name.clone();
            self.try_adoption(now, Unadopted::new(&name, State::Saved(Box::new(saved))));
        }
        for spec in specs {
            self.ensure(now, spec);
        }
        self.leave_behind(now, specs);
        self.adopt_orphans(now);
        // Before all interfaces are read, which attaches ports in their order: the first port gives the bond its address.
        for at in self.bonds.ids() {
            self.attach_all_wanted(now, at);
        }
        self.resync(now);
        self.prune_files();
        self.publish_all(now);
        Ok(())
    }

    /// What a saved bond is now, also under another name, with which it is saved then; none if its interface is gone.
    ///
    /// # Errors
    /// It cannot be found out whether the interface is there, or the interface is there and not recognised.
    pub(super) fn look_for(&mut self, saved: &mut SavedBond) -> Result<Option<Adopted>, PlaneError> {
        self.plane_of(saved)?;
        let ifindex = saved.ifindex;
        let link = step(|| format!("read {}", saved.name), || self.links.by_index(ifindex))?;
        let there = link.map(|link| link.report.name);
        let name = there.clone().unwrap_or_else(|| saved.name.clone());
        let found = self.plane_of(saved)?.adopt(&name)?;
        match found.filter(|(_, seen)| seen.ifindex == ifindex) {
            Some(found) => {
                if name != saved.name {
                    self.renamed_meanwhile(saved, name);
                }
                Ok(Some(found))
            }
            // Another interface may have this index: of a later network namespace, say.
            None if there.is_none() || name != saved.name => Ok(None),
            None => Err(PlaneError::NotRecognised {
                name,
                plane: saved.plane().to_owned(),
            }),
        }
    }

    fn plane_of(&mut self, saved: &SavedBond) -> Result<&mut dyn Plane, PlaneError> {
        let name = saved.plane();
        self.planes
            .named(name)
            .ok_or_else(|| PlaneError::UnknownPlane { name: name.to_owned() })
    }

    /// A bond was renamed while no agent ran.
    fn renamed_meanwhile(&mut self, saved: &mut SavedBond, name: String) {
        log::info!("{}: renamed to {name}", saved.name);
        if let Some(origins) = &mut saved.origins {
            origins.taken_by_operator(saved.bond.options());
        }
        saved.configured = None;
        saved.name = name;
        let _ = self.store.save(saved);
    }

    pub(super) fn adopt(&mut self, now: Time, saved: SavedBond, plane: Box<dyn PlaneBond>, observed: Observed) {
        let ifindex = observed.ifindex;
        let options = saved.bond.options().clone();
        let seen = self.seen(observed, &saved.originals);
        let renamed: BTreeMap<String, String> = (saved.bond.port_names())
            .filter_map(|(port, old)| {
                let new = &seen.ports.iter().find(|(id, _)| *id == port)?.1.report.name;
                (new != old).then(|| (old.to_owned(), new.clone()))
            })
            .collect();
        let bond = Bond::adopt(now, options, seen, Some(saved.bond));
        let active = bond.active().and_then(|id| bond.ports().name(id));
        log::info!(
            "{}: adopted with active port {}",
            saved.name,
            active.as_deref().unwrap_or("none")
        );
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
        self.release_half_attached(now, at);
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

    /// Bonds without saved state that no file names: an agent was killed while it made them, or their state was lost. They get
    /// the default options of their mode, so that they can be shown, changed and deleted.
    fn adopt_orphans(&mut self, now: Time) {
        for name in self.planes.bonds() {
            if let Err(error) = self.adopt_orphan(now, &name, None) {
                self.adopt_later(now, Unadopted::new(&name, State::Lost), &error);
            }
        }
    }

    /// A bond that forwards although its saved state was lost, and with it the original settings of its ports. They are given
    /// back with their present settings, without the mark of a port. Returns its place; nothing if there is no such bond, or if
    /// it is known.
    ///
    /// # Errors
    /// It cannot be read, or the settings of its ports cannot.
    pub(super) fn adopt_orphan(
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
        let seen = self.seen(observed, &originals);
        let bond = Bond::adopt(now, options, seen, None);
        log::warn!("{name}: adopted without saved state; options not in a file and failure counts start anew");
        let mut instance = Instance::new(name.to_owned(), ifindex, plane, bond);
        instance.originals = originals;
        instance.origins = Origins::unknown(instance.bond.options(), None, &wanted);
        instance.wanted = wanted;
        let at = self.bonds.insert(instance);
        self.drain(now, at);
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

    pub(super) fn attach_all_wanted(&mut self, now: Time, at: InstanceId) {
        for name in self.bonds[at].wanted.clone() {
            if self.bonds[at].bond.ports().named(&name).is_none() {
                match self.links.by_name(&name) {
                    Ok(Some(_)) => self.attach_wanted(now, at, &name),
                    _ => log::info!("{}: {name} is absent, it joins when it appears", self.bonds[at].name),
                }
            }
        }
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

//! Changes bonds to match the option files when the agent starts. If that fails, the next start tries again.

use std::path::PathBuf;

use bond_modes::options::{self, row_name};

use super::super::errors::option_error;
use super::super::id::InstanceId;
use super::super::instance::Instance;
use super::super::unadopted::{NotThere, State, Unadopted};
use super::change::Change;
use crate::config::BondSpec;
use crate::control::proto::OptionPairs;
use crate::plane_option::{is_plane, without_plane};

impl Change<'_> {
    /// Makes the bond of a file, or changes an adopted one to match the files. If a bond of that name may be there and cannot be
    /// adopted for now, or if it cannot be made, the file is followed later.
    pub(in crate::instances) fn ensure(&mut self, spec: &BondSpec) {
        if let Err(error) = self.try_ensure(spec) {
            let mut bond = Unadopted::new(&spec.name, State::Lost);
            bond.specs.push(spec.clone());
            self.adopt_later(bond, error);
        }
    }

    /// As [`Change::ensure`].
    ///
    /// # Errors
    /// It cannot be found out whether there is a bond of that name, or that bond cannot be read; or it cannot be made.
    pub(in crate::instances) fn try_ensure(&mut self, spec: &BondSpec) -> Result<(), NotThere> {
        let pairs = spec.pairs();
        let (at, followed) = match self.find(&spec.name) {
            Ok(at) => (at, self.follow(at, &pairs)),
            Err(_) => {
                if let Some(place) = self.find_unadopted(&spec.name)? {
                    self.unadopted[place].specs.push(spec.clone());
                    return Ok(());
                }
                match self.adopt_orphan(&spec.name, Some(&pairs))? {
                    Some(at) => (at, self.has_options(at, &pairs)),
                    None => (self.add_configured(spec)?, true),
                }
            }
        };
        let instance = &mut self.bonds[at];
        if followed {
            instance.configured = Some(pairs);
        } else {
            // Known to be a file's, and not followed: the next start tries again.
            instance.configured.get_or_insert_default();
        }
        instance.origins.followed(spec);
        instance.dirty = true;
        instance.forget_absent_names();
        self.release_left(at, &spec.ports);
        let instance = &mut self.bonds[at];
        for port in &spec.ports {
            let port = instance.origins.present_name(port).to_owned();
            if !instance.wanted.contains(&port) {
                instance.wanted.push(port);
            }
        }
        Ok(())
    }

    fn add_configured(&mut self, spec: &BondSpec) -> Result<InstanceId, NotThere> {
        let added = self.add(&spec.name, &spec.pairs());
        let at = added.map_err(|error| {
            // The reason is told where the name is, and that it is not made.
            let mut why = error.message.as_str();
            for told in [format!("{}: ", spec.name), format!("cannot make {}: ", spec.name)] {
                why = why.strip_prefix(&told).unwrap_or(why);
            }
            NotThere::Unmade(why.to_owned())
        })?;
        self.bonds[at].origins.made_by_file = true;
        Ok(at)
    }

    /// Whether a bond that was adopted without its state has the options of its file.
    fn has_options(&mut self, at: InstanceId, pairs: &OptionPairs) -> bool {
        let instance = &mut self.bonds[at];
        let followed =
            options::parse(&without_plane(pairs)).is_ok_and(|change| change.options == *instance.bond.options());
        if followed {
            instance.origins.operator_options.clear();
            instance.origins.entailed_options.clear();
        }
        followed
    }

    /// Sets all that changed in the files since they were last followed, or nothing; what an operator set meanwhile stays. False
    /// if that is not possible while the bond runs.
    fn follow(&mut self, at: InstanceId, pairs: &OptionPairs) -> bool {
        let name = self.bonds[at].name.clone();
        match self.try_follow(at, pairs) {
            Ok(()) => true,
            Err(error) => {
                log::error!("{name}: the options file cannot be followed while it runs: {error}");
                false
            }
        }
    }

    fn try_follow(&mut self, at: InstanceId, pairs: &OptionPairs) -> Result<(), String> {
        let instance = &mut self.bonds[at];
        let name = instance.name.clone();
        let said = instance.configured.clone().unwrap_or_default();
        let before = instance.bond.options().clone();
        let step = instance.origins.to_follow(&said, pairs, &before);
        let step = step.map_err(|error| error.to_string())?;
        let mut set = step.in_one_set(&before, |set| {
            let after = instance.bond.preview(set);
            after.map_err(|error| option_error(&name, error))
        })?;
        let planes = pairs.iter().filter(|pair| is_plane(pair) && !said.contains(pair));
        set.extend(planes.cloned());
        let left: Vec<&str> = said
            .iter()
            .map(|(option, _)| row_name(option))
            .filter(|option| step.pairs.iter().any(|(name, _)| name == option))
            .filter(|option| pairs.iter().all(|(name, _)| row_name(name) != *option))
            .collect();
        if !set.is_empty() {
            self.set(&name, &set).map_err(|error| error.message)?;
        }
        if !left.is_empty() {
            log::info!("{name}: {} left the option files, back to the default", left.join(", "));
        }
        self.bonds[at].origins = step.after;
        Ok(())
    }

    /// Gives back the ports that the files named and do not name any more, but for those that an operator attached.
    fn release_left(&mut self, at: InstanceId, ports: &[String]) {
        for port in self.bonds[at].origins.follow_ports(ports) {
            let instance = &mut self.bonds[at];
            let name = instance.name.clone();
            instance.forget_wanted(&port);
            let Some(id) = instance.bond.ports().named(&port).map(|port| port.id) else {
                continue;
            };
            log::info!("{name}: {port} left the option files, giving it back");
            self.release(at, id);
        }
    }

    /// Handles a bond that files named before and none names now:
    /// - One that a file made, and that an operator did not change, is removed.
    /// - Another one that a file made loses the ports of the files.
    /// - One that an operator made loses the ports and the options of the files.
    ///
    /// It stays as it is while a file that named it is there but was not read.
    pub(in crate::instances) fn leave_behind_one(&mut self, name: &str) {
        let Ok(at) = self.find(name) else { return };
        if self.bonds[at].configured.is_none() {
            return;
        }
        let mut unread: Vec<PathBuf> = self.bonds[at].origins.files.iter().cloned().collect();
        unread.retain(|file| !self.files.contains(file));
        // The file system may be slow.
        let there = self.unlocked(|_| unread.into_iter().find(|file| file.exists()));
        let origins = &self.bonds[at].origins;
        if let Some(file) = there {
            log::info!(
                "{name}: {} was not read this time, so that the bond stays as it is",
                file.display()
            );
            return;
        }
        let is_untouched = origins.operator_options.is_empty() && origins.operator_ports.is_empty();
        if origins.made_by_file && is_untouched {
            log::info!("{name}: it left the option files, removing it");
            if let Err(error) = self.remove(at) {
                log::error!("{name}: {error}");
            }
            return;
        }
        log::info!(
            "{name}: it left the option files; it stays, because an operator made it, set an option or attached a port"
        );
        self.release_left(at, &[]);
        let instance = &mut self.bonds[at];
        instance.dirty = true;
        if instance.origins.made_by_file {
            // Its mode is one that the operator wanted with it, and cannot change while it has ports.
            instance
                .origins
                .taken_by_operator(instance.bond.options(), instance.configured.as_ref());
            instance.configured = None;
        } else if self.follow(at, &OptionPairs::new()) {
            self.bonds[at].configured = None;
        }
    }
}

impl Instance {
    /// Renamed ports that are no longer attached get back the names in the files: the interface that comes back may have either.
    fn forget_absent_names(&mut self) {
        let renamed = std::mem::take(&mut self.origins.renamed_ports);
        for (port, present) in renamed {
            if self.bond.ports().named(&present).is_some() {
                self.origins.renamed_ports.insert(port, present);
            } else if !self.origins.operator_ports.contains(&present) {
                self.forget_wanted(&present);
            }
        }
    }
}

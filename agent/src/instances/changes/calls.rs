//! Calls of clients. A refused call changes nothing.

use bond_modes::options::{self, is_interface_name};
use bond_modes::{Bond, BondOptions, Notice, PortId};
use bond_monitors::Time;
use serde_json::{Value, json};

use super::super::Instances;
use super::super::errors::{option_error, plane_error};
use super::super::id::InstanceId;
use super::super::instance::Instance;
use super::super::losses::can_fail_over;
use crate::control::proto::{Call, ControlError, ErrorCode, EventLine, OptionPairs};
use crate::dataplane::PlaneChoice;
use crate::plane_option::take_plane;
use crate::text::chain;

impl Instances {
    /// Carries out a client's call and returns the answer: with the warnings that the call led to, the parts of the bond's plan
    /// that are not done after it, and whether it cannot be saved.
    pub fn call(&mut self, now: Time, call: &Call) -> Result<Value, ControlError> {
        self.as_a_change(|instances| instances.call_and_warn(now, call))
    }

    fn call_and_warn(&mut self, now: Time, call: &Call) -> Result<Value, ControlError> {
        let (before, stuck) = (self.happened.len(), self.returns.ports());
        let mut answer = self.carry_out(now, call)?;
        let warning = |line: &EventLine| match &line.event.notice {
            Notice::Warning { .. } | Notice::MacStillInUse { .. } => {
                Some(format!("{}: {}", line.event.bond, line.event.text))
            }
            _ => None,
        };
        let mut warnings: Vec<String> = self.happened[before..].iter().filter_map(warning).collect();
        if let Some(at) = changed_by(call).and_then(|bond| self.find(bond).ok()) {
            // Taken to be changed, so that its files count as those of this turn.
            let instance = &mut self.bonds[at];
            let undone = instance.unfulfilled.report(now).into_iter();
            warnings
                .extend(undone.map(|part| format!("{}: not done: cannot {}: {}", instance.name, part.what, part.why)));
            if let Err(error) = self.try_save(at) {
                warnings.push(format!(
                    "{}: the change is in force but cannot be saved: {error}; bondd tries again each second",
                    self.bonds[at].name
                ));
            }
        }
        warnings.extend(self.returns.warnings(&stuck));
        if let Call::Del { bond } = call
            && let Some(why) = self.store.unremoved(bond)
        {
            warnings.push(format!(
                "{bond}: its saved state cannot be removed: {why}; bondd tries again each second"
            ));
        }
        if let Call::Del { bond } = call
            && self.left_unsaved
        {
            warnings.push(format!(
                "{bond}: what its ports were cannot be saved; bondd tries again each second"
            ));
        }
        if let Value::Object(fields) = &mut answer
            && !warnings.is_empty()
        {
            fields.insert("warnings".to_owned(), warnings.into());
        }
        Ok(answer)
    }

    fn carry_out(&mut self, now: Time, call: &Call) -> Result<Value, ControlError> {
        match call {
            Call::Add { bond, options } => {
                let at = self.add(now, bond, options)?;
                self.set_by_operator(at, options, &BondOptions::default());
                Ok(done(()))
            }
            Call::Set { bond, options } => {
                let at = self.find(bond)?;
                let before = self.bonds[at].bond.options().clone();
                self.set(now, bond, options)?;
                self.set_by_operator(at, options, &before);
                Ok(done(()))
            }
            Call::Del { bond } => {
                let at = self.find(bond)?;
                self.remove(now, at).map(done)
            }
            Call::PortAttach { bond, port } => self.port_attach(now, bond, port).map(done),
            Call::PortDetach { bond, port } => self.port_detach(now, bond, port).map(done),
            Call::PortSet { bond, port, options } => self.port_set(now, bond, port, options).map(done),
            Call::Active { bond, port } => self.make_active(now, bond, port.as_deref()).map(done),
            Call::Show { .. } | Call::List {} | Call::Monitor { .. } | Call::Doctor { .. } => {
                unreachable!("it changes nothing: it is answered in other ways")
            }
        }
    }

    /// Makes a bond; its place.
    pub(in crate::instances) fn add(
        &mut self,
        now: Time,
        name: &str,
        pairs: &[(String, String)],
    ) -> Result<InstanceId, ControlError> {
        // The kernel replaces %d by a number, so the bond would get another name.
        if !is_interface_name(name) || name.contains('%') || RESERVED.contains(&name) {
            let text = format!("{name:?} cannot be a bond's name, expected 1 to 15 bytes without /, :, % or blanks");
            return Err(ControlError::new(ErrorCode::BadName, text));
        }
        if self.find(name).is_ok() {
            return Err(ControlError::new(
                ErrorCode::NameTaken,
                format!("there is a bond {name} already"),
            ));
        }
        if let Some(waiting) = self.unadopted.iter().find(|waiting| waiting.name == name) {
            let text = format!(
                "there is a bond {name} already, which bondd could not adopt yet: {}",
                waiting.reason
            );
            return Err(ControlError::new(ErrorCode::NameTaken, text));
        }
        let (choice, pairs) = take_plane(pairs).map_err(|error| option_error(name, error))?;
        let change = options::parse(&pairs).map_err(|error| option_error(name, error))?;
        let name = name.to_owned();
        let (plane, device) = self
            .planes
            .create(&name, choice.unwrap_or(self.plane_choice), &change.options)
            .map_err(|error| plane_error(&name, &error))?;
        let mode = change.options.mode;
        let mut bond = Bond::new(now, change, &device.report);
        bond.set_plane_fails_over(now, can_fail_over(plane.as_ref()));
        let mut instance = Instance::new(name, device.ifindex, plane, bond);
        instance.devices.insert(device.ifindex, device.report.into());
        log::info!(
            "{}: made, mode {}, plane {}",
            instance.name,
            mode.name(),
            instance.plane.name()
        );
        let ifindex = instance.ifindex;
        let at = self.bonds.insert(instance);
        // Its own event comes later.
        if let Ok(Some(link)) = self.links.by_index(ifindex) {
            self.host.changed(link);
        }
        self.drain(now, at);
        self.refresh_addresses(now, at);
        self.bonds[at].dirty = true;
        Ok(at)
    }

    pub(in crate::instances) fn set(
        &mut self,
        now: Time,
        bond: &str,
        pairs: &[(String, String)],
    ) -> Result<(), ControlError> {
        let at = self.find(bond)?;
        let (choice, pairs) = take_plane(pairs).map_err(|error| option_error(bond, error))?;
        self.stay_on_plane(at, choice)?;
        let preview = self.bonds[at]
            .bond
            .preview(&pairs)
            .map_err(|error| option_error(bond, error))?;
        self.bonds[at]
            .plane
            .with(|plane| plane.can(&preview))
            .map_err(|error| plane_error(bond, &error))?;
        self.bonds[at]
            .bond
            .configure(now, &pairs)
            .map_err(|error| option_error(bond, error))?;
        self.drain(now, at);
        self.bonds[at].dirty = true;
        Ok(())
    }

    /// Makes a port the active one; without a port the bond chooses again.
    fn make_active(&mut self, now: Time, bond: &str, port: Option<&str>) -> Result<(), ControlError> {
        let at = self.find(bond)?;
        let instance = &mut self.bonds[at];
        let pairs = [("active_slave".to_owned(), port.unwrap_or_default().to_owned())];
        let made = instance.bond.configure(now, &pairs);
        // The client did not give an option.
        made.map_err(|error| option_error(bond, error.about("active port")))?;
        instance.dirty = true;
        self.drain(now, at);
        Ok(())
    }

    fn set_by_operator(&mut self, at: InstanceId, pairs: &OptionPairs, before: &BondOptions) {
        let instance = &mut self.bonds[at];
        let configured = instance.configured.as_ref();
        instance
            .origins
            .set_by_operator(pairs, before, instance.bond.options(), configured);
    }

    /// A live bond cannot change its plane: there is no moment at which both would forward.
    fn stay_on_plane(&self, at: InstanceId, choice: Option<PlaneChoice>) -> Result<(), ControlError> {
        let instance = &self.bonds[at];
        let (name, plane) = (&instance.name, instance.plane.name());
        match choice {
            Some(choice) if !choice.allows(plane) => Err(ControlError::new(
                ErrorCode::Refused,
                format!(
                    "{name}: it is on plane {plane} and stays there; to move it, delete it and add it with another plane"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Gives all ports back and removes the bond. Errors do not stop the removal: a bond that lost its ports is of no use.
    pub(in crate::instances) fn remove(&mut self, now: Time, at: InstanceId) -> Result<(), ControlError> {
        let ports: Vec<PortId> = self.bonds[at].bond.ports().iter().map(|port| port.id).collect();
        for port in ports {
            self.stop_listening(port);
        }
        for (port, original) in std::mem::take(&mut self.bonds[at].originals) {
            self.give_back(now, at, port, original);
        }
        if let Err(error) = self.finish_saving(at) {
            log::error!("{}: its saved state may come back: {error}", self.bonds[at].name);
        }
        let instance = self.bonds.remove(at);
        let (name, plane) = (instance.name, instance.plane.take());
        if !instance.unrestored.is_empty() {
            self.leave(&name, plane.plane(), instance.unrestored);
            self.save_left();
        }
        let destroyed = plane.destroy();
        let removal = self.store.removal(&[instance.ifindex].into());
        let _ = self.work_on_files(removal);
        self.writer.remove(&name);
        log::info!("{name}: removed");
        destroyed.map_err(|error| {
            log::error!("{name}: {}", chain(&error));
            plane_error(&name, &error)
        })
    }
}

/// The bond that a call changes and that is there afterwards.
fn changed_by(call: &Call) -> Option<&str> {
    match call {
        Call::Add { bond, .. }
        | Call::Set { bond, .. }
        | Call::PortAttach { bond, .. }
        | Call::PortDetach { bond, .. }
        | Call::PortSet { bond, .. }
        | Call::Active { bond, .. } => Some(bond),
        Call::Del { .. } | Call::Doctor { .. } | Call::Show { .. } | Call::List {} | Call::Monitor { .. } => None,
    }
}

fn done<T>(_: T) -> Value {
    json!({})
}

/// Names with a meaning of their own beside the bonds' files. [bond_sysfs.c: bonding_masters]
const RESERVED: [&str; 3] = ["bonding_masters", "all", "default"];

//! Calls of clients. A refused call changes nothing.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use bond_modes::options::{self, is_interface_name};
use bond_modes::{Bond, BondOptions, Notice, PortId};
use serde_json::{Value, json};

use super::super::errors::{option_error, plane_error};
use super::super::id::InstanceId;
use super::super::instance::Instance;
use super::super::losses::can_fail_over;
use super::change::Change;
use super::give_back::unless_gone;
use crate::control::proto::{BondEvent, Call, ControlError, ErrorCode, OptionPairs};
use crate::dataplane::step::{room_beside, twice};
use crate::dataplane::{BondDevice, PlaneBond, PlaneChoice, PlaneError};
use crate::descriptors::why;
use crate::netlink::Link;
use crate::plane_option::take_plane;
use crate::text::chain;

impl Change<'_> {
    /// Makes a change for a client and returns the answer: with the warnings that it led to, the parts of the bond's plan that are
    /// not done after it, and whether it cannot be saved.
    pub fn call(&mut self, call: &Call) -> Result<Value, ControlError> {
        self.await_closer();
        let stuck = self.returns.ports();
        self.underway.overheard = Some(Vec::new());
        let done = self.carry_out_call(call);
        let overheard = self.underway.overheard.take().unwrap_or_default();
        self.save_left();
        done?;
        let mut warnings = warnings_of(call, &overheard);
        if let Some(at) = call.bond().and_then(|bond| self.bonds.named(bond)) {
            let now = self.now();
            // Taken to be changed, so that its files count as those of this change.
            let instance = &mut self.bonds[at];
            let undone = instance.unfulfilled.report(now).into_iter();
            warnings
                .extend(undone.map(|part| format!("{}: not done: cannot {}: {}", instance.name, part.what, part.why)));
            if let Err(error) = self.try_save(at) {
                warnings.push(format!(
                    "{}: the change is in force but cannot be saved: {}; bondd tries again each second",
                    self.bonds[at].name,
                    why(&error)
                ));
            }
        }
        warnings.extend(self.returns.warnings(&stuck));
        if let Call::Del { bond } = call {
            warnings.extend(self.unsaved_removal(bond));
        }
        Ok(match warnings.is_empty() {
            true => json!({}),
            false => json!({ "warnings": warnings }),
        })
    }

    /// Clients that switch a monitor on and off, and ports that come and go, are not to open sockets faster than the kernel closes
    /// them.
    pub(super) fn await_closer(&mut self) {
        while self.frame_sockets.are_too_many_closing() {
            self.unlocked(|_| thread::sleep(PAUSE));
        }
    }

    fn unsaved_removal(&self, bond: &str) -> Vec<String> {
        let state = self.store.unremoved(bond);
        let state =
            state.map(|why| format!("{bond}: its saved state cannot be removed: {why}; bondd tries again each second"));
        let ports = self
            .left
            .unsaved
            .then(|| format!("{bond}: what its ports were cannot be saved; bondd tries again each second"));
        state.into_iter().chain(ports).collect()
    }

    fn carry_out_call(&mut self, call: &Call) -> Result<(), ControlError> {
        match call {
            Call::Add { bond, options } => {
                let at = self.add(bond, options)?;
                self.set_by_operator(at, options, &BondOptions::default());
                Ok(())
            }
            Call::Set { bond, options } => {
                let at = self.find(bond)?;
                let before = self.bonds[at].bond.options().clone();
                self.set(bond, options)?;
                self.set_by_operator(at, options, &before);
                Ok(())
            }
            Call::Del { bond } => {
                if self.forget_unmade(bond) && self.bonds.named(bond).is_none() {
                    log::info!("{bond}: deleted before it could be made");
                    return Ok(());
                }
                let at = self.find(bond)?;
                self.remove(at)
            }
            Call::PortAttach { bond, port } => self.port_attach(bond, port),
            Call::PortDetach { bond, port } => self.port_detach(bond, port),
            Call::PortSet { bond, port, options } => self.port_set(bond, port, options),
            Call::Active { bond, port } => self.make_active(bond, port.as_deref()),
            Call::Show { .. } | Call::List {} | Call::Monitor { .. } | Call::Doctor { .. } => {
                unreachable!("it changes nothing: the loop answers it")
            }
        }
    }

    /// Makes a bond; its place.
    pub(in crate::instances) fn add(
        &mut self,
        name: &str,
        pairs: &[(String, String)],
    ) -> Result<InstanceId, ControlError> {
        self.may_be_named(name)?;
        let (choice, pairs) = take_plane(pairs).map_err(|error| option_error(name, error))?;
        let change = options::parse(&pairs).map_err(|error| option_error(name, error))?;
        let name = name.to_owned();
        let choice = choice.unwrap_or(self.plane_choice);
        let made = self
            .has_room_beside_monitors(0, || format!("make {name}"))
            .and_then(|()| self.make(&name, choice, &change.options));
        let Made {
            plane,
            device,
            link,
            told,
        } = made.map_err(|error| plane_error(&name, &error))?;
        let mode = change.options.mode;
        let mut bond = Bond::new(self.now(), change, &device.report);
        bond.set_plane_fails_over(self.now(), can_fail_over(plane.as_ref()));
        let mut instance = Instance::new(name, device.ifindex, plane, bond);
        instance.devices.insert(device.ifindex, device.report.into());
        log::info!(
            "{}: made, mode {}, plane {}",
            instance.name,
            mode.name(),
            instance.plane.name()
        );
        self.forget_unmade(&instance.name);
        let at = self.bonds.insert(instance);
        let now = self.now();
        match link {
            Some(link) => self.on_device_seen(now, at, link),
            // What told that it came may also have told that it went.
            None if told => drop(self.gone.insert(at)),
            None => {}
        }
        self.drain(at);
        let now = self.now();
        self.refresh_addresses(now, at);
        self.bonds[at].dirty = true;
        Ok(at)
    }

    /// Whether a new bond may get this name.
    fn may_be_named(&mut self, name: &str) -> Result<(), ControlError> {
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
        if let Some(waiting) = self
            .unadopted
            .iter()
            .find(|waiting| waiting.name == name && !waiting.in_hand && !waiting.is_unmade())
        {
            let text = format!(
                "there is a bond {name} already, which bondd could not adopt yet: {}",
                waiting.reason
            );
            return Err(ControlError::new(ErrorCode::NameTaken, text));
        }
        Ok(())
    }

    fn make(&mut self, name: &str, choice: PlaneChoice, options: &BondOptions) -> Result<Made, PlaneError> {
        self.underway.heard = Some(BTreeSet::new());
        let made = self.unlocked(|tools| tools.planes.create(name, choice, options));
        let heard = self.underway.heard.take().unwrap_or_default();
        let (plane, device) = made?;
        Ok(Made {
            link: self.read_index(device.ifindex).ok().flatten(),
            told: heard.contains(&device.ifindex),
            plane,
            device,
        })
    }

    pub(in crate::instances) fn set(&mut self, bond: &str, pairs: &[(String, String)]) -> Result<(), ControlError> {
        let at = self.find(bond)?;
        self.set_at(at, pairs)
    }

    /// As [`Change::set`], by its place.
    pub(in crate::instances) fn set_at(
        &mut self,
        at: InstanceId,
        pairs: &[(String, String)],
    ) -> Result<(), ControlError> {
        let bond = &self.bonds[at].name.clone();
        let (choice, pairs) = take_plane(pairs).map_err(|error| option_error(bond, error))?;
        self.stay_on_plane(at, choice)?;
        let preview = self.bonds[at]
            .bond
            .preview(&pairs)
            .map_err(|error| option_error(bond, error))?;
        self.on_plane(at, |plane| plane.can(&preview))
            .map_err(|error| plane_error(bond, &error))?;
        let known = &self.bonds[at].bond;
        if known.options().arp_interval.is_zero() && !preview.arp_interval.is_zero() {
            self.has_room_beside_monitors(known.ports().iter().count(), || "hear its ports".to_owned())
                .map_err(|error| plane_error(bond, &error))?;
        }
        let now = self.now();
        self.bonds[at]
            .bond
            .configure(now, &pairs)
            .map_err(|error| option_error(bond, error))?;
        self.drain(at);
        self.bonds[at].dirty = true;
        Ok(())
    }

    /// Whether there are descriptors left beside those that the ARP monitor has yet to open for ports, this many more among them. Ports
    /// of bonds that are down are heard later.
    pub(super) fn has_room_beside_monitors(
        &self,
        more: usize,
        doing: impl FnOnce() -> String,
    ) -> Result<(), PlaneError> {
        let heard = self.bonds.iter().map(|instance| &instance.bond);
        let heard = heard.filter(|bond| !bond.options().arp_interval.is_zero());
        let ports = heard.flat_map(|bond| bond.ports().iter());
        let unheard = ports.filter(|port| !self.frame_sockets.open.contains_key(&port.id));
        match unheard.count() + more {
            0 => Ok(()),
            sockets => room_beside(sockets, doing),
        }
    }

    /// Makes a port the active one; without a port the bond chooses again.
    fn make_active(&mut self, bond: &str, port: Option<&str>) -> Result<(), ControlError> {
        let at = self.find(bond)?;
        let now = self.now();
        let instance = &mut self.bonds[at];
        let pairs = [("active_slave".to_owned(), port.unwrap_or_default().to_owned())];
        let made = instance.bond.configure(now, &pairs);
        // The client did not give an option.
        made.map_err(|error| option_error(bond, error.about("active port")))?;
        instance.dirty = true;
        self.drain(at);
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

    /// Gives all ports back and removes the bond. Errors do not stop the removal: a bond that lost its ports is of no use. The loop
    /// knows it no more from the beginning: else it would put back what ports get back.
    pub(in crate::instances) fn remove(&mut self, at: InstanceId) -> Result<(), ControlError> {
        let ports: Vec<PortId> = self.bonds[at].bond.ports().iter().map(|port| port.id).collect();
        if let Err(error) = self.finish_saving(at) {
            log::error!("{}: its saved state may come back: {error}", self.bonds[at].name);
        }
        let mut instance = self.bonds.remove(at);
        for port in ports {
            self.stop_listening(port);
        }
        let (name, forwarder) = (instance.name.clone(), instance.plane.clone());
        self.writer.remove(&name);
        let originals = std::mem::take(&mut instance.originals);
        let (plane, left) = self.unlocked(|tools| {
            let mut plane = forwarder.take(tools);
            let mut left = Vec::new();
            for (port, original) in originals {
                if let Err(error) = twice(|| plane.detach(port, &original)).or_else(unless_gone) {
                    left.push((port, original, error));
                }
            }
            (plane, left)
        });
        for (port, original, error) in left {
            instance.unrestored.insert(port, original);
            self.return_failed(&name, port, &error);
        }
        if !instance.unrestored.is_empty() {
            self.leave(&name, plane.plane(), instance.unrestored);
        }
        let destroyed = self.unlocked(|_| plane.destroy());
        self.remove_state(instance.ifindex);
        log::info!("{name}: removed");
        destroyed.map_err(|error| {
            log::error!("{name}: {}", chain(&error));
            plane_error(&name, &error)
        })
    }
}

/// A bond that was just made.
struct Made {
    plane: Box<dyn PlaneBond>,
    device: BondDevice,
    /// Its interface as it is now, which the picture shows.
    link: Option<Link>,
    /// Events told of the interface while it was made.
    told: bool,
}

/// What a call led to that its client is to know.
fn warnings_of(call: &Call, overheard: &[BondEvent]) -> Vec<String> {
    let of_bond = |event: &&BondEvent| call.bond() == Some(event.bond.as_str());
    let warning = |event: &BondEvent| match event.notice {
        Notice::Warning { .. } | Notice::MacStillInUse { .. } => Some(format!("{}: {}", event.bond, event.text)),
        _ => None,
    };
    overheard.iter().filter(of_bond).filter_map(warning).collect()
}

/// Between two looks at the sockets that are being closed.
const PAUSE: Duration = Duration::from_millis(5);

/// Names with a meaning of their own beside the bonds' files. [bond_sysfs.c: bonding_masters]
const RESERVED: [&str; 3] = ["bonding_masters", "all", "default"];

//! Calls of clients. A refused call changes nothing.

use bond_modes::options::{self, FailOverMac, is_interface_name};
use bond_modes::{Bond, BondOptions, Event, Notice, OptionError, PortFacts, PortId, Warning};
use bond_monitors::{MacAddr, Time};
use serde_json::{Value, json};

use super::Instances;
use super::id::InstanceId;
use super::instance::Instance;
use super::logged_failures::Subject;
use crate::control::proto::{Call, ControlError, DoctorReport, ErrorCode, EventLine, OptionPairs, SCHEMA};
use crate::dataplane::{self, OriginalPort, PORT_MARK, PlaneChoice, PlaneError, PortBase};
use crate::netlink::Link;
use crate::plane_option::take_plane;
use crate::status::Device;
use crate::text::chain;

impl Instances {
    /// Carries out a client's call and returns the answer: with the warnings that the call led to, the parts of the bond's plan
    /// that are not done after it, and whether it cannot be saved. Showing many bonds in one call takes long; see [`Instances::show`].
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
            Call::Doctor { options } => self.doctor(options),
            Call::Show { bond } => {
                let mut showing = self.show(now, bond.as_deref())?;
                while self.show_next(now, &mut showing).is_some() {}
                Ok(serde_json::from_str(&showing.finish()).expect("it was written as JSON"))
            }
            Call::List {} => {
                let to_be_made = self.still_to_make();
                let made = self.bonds.iter().map(|instance| &instance.name);
                let names = made.chain(self.unadopted.iter().map(|bond| &bond.name));
                Ok(names
                    .chain(&to_be_made)
                    .map(|name| Value::from(name.as_str()))
                    .collect())
            }
            Call::PortAttach { bond, port } => self.port_attach(now, bond, port).map(done),
            Call::PortDetach { bond, port } => self.port_detach(now, bond, port).map(done),
            Call::PortSet { bond, port, options } => self.port_set(now, bond, port, options).map(done),
            Call::Active { bond, port } => self.make_active(now, bond, port.as_deref()).map(done),
            Call::Monitor { bond: Some(bond) } => self.find(bond).map(|_| done(())),
            Call::Monitor { bond: None } => Ok(done(())),
        }
    }

    /// Makes a bond; its place.
    pub(super) fn add(
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
        let bond = Bond::new(now, change, &device.report);
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

    pub(super) fn set(&mut self, now: Time, bond: &str, pairs: &[(String, String)]) -> Result<(), ControlError> {
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

    /// What each plane can do here, and which one a bond with these options would get.
    fn doctor(&mut self, pairs: &OptionPairs) -> Result<Value, ControlError> {
        let (choice, pairs) = take_plane(pairs).map_err(|error| option_error("doctor", error))?;
        let change = options::parse(&pairs).map_err(|error| option_error("doctor", error))?;
        let (planes, chosen) = self.planes.report(choice.unwrap_or(self.plane_choice), &change.options);
        let report = DoctorReport {
            schema: SCHEMA,
            choice: chosen,
            planes,
        };
        Ok(serde_json::to_value(report).expect("a report is plain data"))
    }

    /// Gives all ports back and removes the bond. Errors do not stop the removal: a bond that lost its ports is of no use.
    pub(super) fn remove(&mut self, now: Time, at: InstanceId) -> Result<(), ControlError> {
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
        self.store.remove(instance.ifindex);
        self.writer.remove(&name);
        log::info!("{name}: removed");
        destroyed.map_err(|error| {
            log::error!("{name}: {}", chain(&error));
            plane_error(&name, &error)
        })
    }

    fn port_attach(&mut self, now: Time, bond: &str, port: &str) -> Result<(), ControlError> {
        let at = self.find(bond)?;
        let link = self.possible_port(port)?;
        self.attach(now, at, &link)?;
        self.bonds[at].origins.operator_ports.insert(port.to_owned());
        let wanted = &mut self.bonds[at].wanted;
        if !wanted.iter().any(|name| name == port) {
            wanted.push(port.to_owned());
        }
        Ok(())
    }

    /// The interface of that name, if it can become a port. [bond_main.c: bond_enslave]
    pub(super) fn possible_port(&mut self, port: &str) -> Result<Link, ControlError> {
        let refuse = |code, text: String| Err(ControlError::new(code, text));
        let link = self
            .links
            .by_name(port)
            .map_err(|error| ControlError::new(ErrorCode::Kernel, format!("cannot look {port} up: {error}")))?;
        let Some(link) = link else {
            return refuse(
                ErrorCode::NoSuchDevice,
                format!("no interface {port}, expected the name of an existing one"),
            );
        };
        // Its event may still be unread.
        self.host.changed(link.clone());
        let id = PortId(link.ifindex);
        if let Some(at) = self.bonds.owner_of(id) {
            return refuse(
                ErrorCode::PortBusy,
                format!("{port} is a port of {} already", self.bonds[at].name),
            );
        }
        if let Some(bond) = self.unadopted.iter().find(|bond| bond.has_port(id)) {
            let text = format!(
                "{port} is a port of {} already, which cannot be adopted yet: {}",
                bond.name, bond.reason
            );
            return refuse(ErrorCode::PortBusy, text);
        }
        // The driver asks the kernel's tree of upper devices, in which our ports are not. [bond_main.c: bond_enslave]
        if let Some(owner) = self.stands_on(&link).and_then(|at| self.bonds.get(at)) {
            let text = format!(
                "{port} is or stands on {} itself, expected an interface that is not part of a bond",
                owner.name
            );
            return refuse(ErrorCode::BadPort, text);
        }
        if link.loopback || !link.ethernet {
            let kind = if link.loopback { "a loopback" } else { "not an Ethernet" };
            let text = format!("{port} is {kind} interface, expected an Ethernet one");
            return refuse(ErrorCode::BadPort, text);
        }
        if let Some(master) = link.master {
            let master = self.links.by_index(master).ok().flatten();
            let master = master.map_or_else(|| "another device".to_owned(), |link| link.report.name);
            let text = format!("{port} belongs to {master}, expected an interface without a master");
            return refuse(ErrorCode::PortBusy, text);
        }
        Ok(link)
    }

    /// The bond whose interface or wire this is, or carries traffic through it at any depth: frames sent through such a port would
    /// come back to the bond for ever.
    fn stands_on(&mut self, link: &Link) -> Option<InstanceId> {
        let ends = |link: &Link| {
            [
                Some(link.ifindex),
                link.peer.filter(|_| link.kind.as_deref() == Some("veth")),
            ]
        };
        let below = self.host.below(link.ifindex).into_iter().flat_map(ends).flatten();
        below
            .collect::<Vec<_>>()
            .into_iter()
            .find_map(|end| self.bonds.on_device(end))
    }

    /// Attaches an interface. Its settings are saved first, so that they can be restored after a crash half-way.
    pub(super) fn attach(&mut self, now: Time, at: InstanceId, link: &Link) -> Result<(), ControlError> {
        let port = PortId(link.ifindex);
        let name = self.bonds[at].name.clone();
        let what = format!("{name}: {}", link.report.name);
        let original = self.read_original(now, at, link, &what)?;
        let bond = &self.bonds[at].bond;
        let base = PortBase {
            mac: bond.mac_for_new_port(original.mac),
            mtu: bond.mtu(),
        };
        let permanent_mac = original.mac;
        if base.mac.unwrap_or(original.mac) == MacAddr::default() {
            let text = format!(
                "{what} has no address that a bond could use ({}): give it one first, with `ip link set {} address`",
                original.mac, link.report.name
            );
            return Err(ControlError::new(ErrorCode::BadPort, text));
        }
        self.bonds[at].originals.insert(port, original);
        if let Err(error) = self.attach_saved(at, port, &base, &what) {
            self.bonds[at].originals.remove(&port);
            self.save(at);
            // The events of the attempt and of its undoing are no reason to try again.
            self.skip_events_of(port);
            return Err(error);
        }
        self.skip_events_of(port);
        self.forget_unrestored(port);
        self.bonds[at].vanished.remove(&link.report.name);
        let link = self.read_port(port).unwrap_or_else(|| link.clone());
        self.host.changed(link.clone());
        self.polls.told(port);
        self.bonds[at].devices.insert(port.0, Device::of(&link));
        let report = link.report.clone();
        self.feed(
            now,
            at,
            Event::PortAttached {
                port,
                facts: PortFacts { permanent_mac, report },
            },
        );
        self.bonds[at].attempts.forget(&link.report.name);
        self.bonds[at]
            .failures
            .forget(&Subject::Wanted(link.report.name.clone()));
        self.bonds[at].dirty = true;
        self.try_driver(at, port, &link.report.name);
        Ok(())
    }

    /// The settings of an interface that is to be attached, as they are to be restored. Makes the bond ready for an address that
    /// cannot be changed.
    fn read_original(
        &mut self,
        now: Time,
        at: InstanceId,
        link: &Link,
        what: &str,
    ) -> Result<OriginalPort, ControlError> {
        let port = PortId(link.ifindex);
        let original = dataplane::original(&mut self.links, port);
        let original = original.map_err(|error| plane_error(what, &error))?;
        self.allow_for_fixed_mac(now, at, &link.report.name, port, original.mac)?;
        if let Some(before) = self.unrestored(port) {
            return Ok(before.clone());
        }
        let instance = &mut self.bonds[at];
        match instance.vanished.get(&link.report.name) {
            // The same interface again; its qdiscs and IPv6 settings stayed behind in the other namespace.
            Some(before) if link.alias.starts_with(PORT_MARK) => {
                let before = OriginalPort {
                    disable_ipv6: original.disable_ipv6,
                    clsact: original.clsact,
                    ..before.clone()
                };
                // An attempt that fails takes the mark off.
                instance.vanished.remove(&link.report.name);
                instance.unrestored.insert(port, before.clone());
                Ok(before)
            }
            _ => Ok(original),
        }
    }

    /// Attaches a port, once its settings are on disk.
    fn attach_saved(&mut self, at: InstanceId, port: PortId, base: &PortBase, what: &str) -> Result<(), ControlError> {
        self.try_save(at).map_err(|error| {
            let text = format!("{what}: cannot save its settings, which bondd must be able to restore: {error}");
            ControlError::new(ErrorCode::Kernel, text)
        })?;
        let instance = &mut self.bonds[at];
        let attached = instance.plane.with(|plane| plane.attach(port, base));
        if matches!(attached, Err(PlaneError::NotUndone { .. }))
            && let Some(original) = instance.originals.get(&port)
        {
            instance.unrestored.insert(port, original.clone());
        }
        attached.map_err(|error| plane_error(what, &error))
    }

    /// Some drivers cannot change an interface's address: the first such port makes the bond use fail_over_mac=active, where that
    /// is possible. The option stays if the port cannot be attached after all. `mac` is the port's address.
    /// [bond_main.c: bond_enslave]
    fn allow_for_fixed_mac(
        &mut self,
        now: Time,
        at: InstanceId,
        port: &str,
        id: PortId,
        mac: MacAddr,
    ) -> Result<(), ControlError> {
        let instance = &self.bonds[at];
        let name = instance.name.clone();
        let options = instance.bond.options();
        let with_active = BondOptions {
            fail_over_mac: FailOverMac::Active,
            ..options.clone()
        };
        let can_follow = bond_modes::moving_macs(&with_active) == FailOverMac::Active;
        let always = instance.plane.with(|plane| plane.needs_to_set_addresses());
        if bond_modes::moving_macs(options) == FailOverMac::Active && always.is_none() {
            return Ok(());
        }
        // Setting the address that it has changes nothing, but shows whether it could be changed.
        let refusal = self.links.set_mac(id.0, mac).err();
        if refusal.and_then(|error| error.raw_os_error()) != Some(libc::EOPNOTSUPP) {
            return Ok(());
        }
        let needs = match (can_follow, always) {
            (_, Some(why)) => why,
            (false, _) => {
                "every port of this mode needs the bond's; mode=active-backup with fail_over_mac=active can use it"
            }
            _ if !self.bonds[at].bond.ports().is_empty() => "fail_over_mac is not active",
            _ => {
                self.set(now, &name, &[("fail_over_mac".to_owned(), "active".to_owned())])?;
                self.notify(at, Notice::warning(Warning::AddressFixed { port: port.to_owned() }));
                self.bonds[at].origins.set_for_port("fail_over_mac", port);
                return Ok(());
            }
        };
        let text = format!("{name}: {port} cannot change its address: {needs}");
        Err(ControlError::new(ErrorCode::BadPort, text))
    }

    pub(super) fn port_detach(&mut self, now: Time, bond: &str, port: &str) -> Result<(), ControlError> {
        let at = self.find(bond)?;
        let instance = &mut self.bonds[at];
        let attached = instance.bond.ports().named(port).map(|port| port.id);
        let was_wanted = instance.forget_wanted(port);
        if attached.is_none() && !was_wanted {
            return Err(not_a_port(bond, port));
        }
        instance.dirty = true;
        if let Some(id) = attached {
            self.release(now, at, id, false);
        }
        Ok(())
    }

    /// Moves traffic off a port, then gives it back as it was, unless it is `gone`.
    pub(super) fn release(&mut self, now: Time, at: InstanceId, port: PortId, gone: bool) {
        self.feed(now, at, Event::PortDetached { port, gone });
        self.stop_listening(port);
        let instance = &mut self.bonds[at];
        instance.foreign_macs.remove(&port);
        instance.foreign_logged.remove(&port);
        instance.silent_drivers.remove(&port);
        instance.failures.forget(&Subject::Port(port));
        instance.devices.remove(&port.0);
        instance.dirty = true;
        let Some(original) = instance.originals.remove(&port) else {
            return;
        };
        if !gone {
            self.give_back(now, at, port, original);
        } else {
            // At once: the interface may be back already, and is attached anew after its return.
            let detached = instance.plane.with(|plane| plane.detach(port, &original));
            if let Err(error) = detached {
                log::debug!("{}: {}", instance.name, chain(&error));
            }
        }
    }

    fn port_set(&mut self, now: Time, bond: &str, port: &str, pairs: &OptionPairs) -> Result<(), ControlError> {
        let at = self.find(bond)?;
        let id = self.bonds[at]
            .bond
            .ports()
            .named(port)
            .map(|port| port.id)
            .ok_or_else(|| not_a_port(bond, port))?;
        let what = format!("{bond}: {port}");
        let preview = self.bonds[at].bond.preview_port(id, pairs);
        let preview = preview.map_err(|error| option_error(&what, error))?;
        self.bonds[at]
            .plane
            .with(|plane| plane.can_port(&preview))
            .map_err(|error| plane_error(&what, &error))?;
        self.bonds[at]
            .bond
            .configure_port(now, id, pairs)
            .map_err(|error| option_error(&what, error))?;
        self.drain(now, at);
        self.bonds[at].dirty = true;
        Ok(())
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

fn not_a_port(bond: &str, port: &str) -> ControlError {
    ControlError::new(ErrorCode::NotAPort, format!("{port} is not a port of {bond}"))
}

/// An option error as a client gets it.
pub(super) fn option_error(object: &str, error: OptionError) -> ControlError {
    let code = match error {
        OptionError::Unknown { .. } => ErrorCode::UnknownOption,
        OptionError::BadValue { .. } => ErrorCode::BadValue,
        OptionError::NotAPort { .. } | OptionError::NoPortsYet { .. } => ErrorCode::NotAPort,
        _ => ErrorCode::Refused,
    };
    ControlError::new(code, format!("{object}: {error}"))
}

/// A data plane's error as a client gets it.
pub(super) fn plane_error(object: &str, error: &PlaneError) -> ControlError {
    let code = match error {
        PlaneError::PortGone { .. } => ErrorCode::NoSuchDevice,
        PlaneError::NotYet { .. }
        | PlaneError::Unsupported { .. }
        | PlaneError::OneQueue { .. }
        | PlaneError::UnknownPlane { .. }
        | PlaneError::NoPlane { .. } => ErrorCode::NoPlane,
        PlaneError::Inexact { .. } => ErrorCode::Refused,
        PlaneError::Permission { .. } => ErrorCode::Permission,
        PlaneError::NameTaken { .. } => ErrorCode::NameTaken,
        PlaneError::NotUndone { error, .. } => plane_error(object, error).code,
        PlaneError::Kernel { .. } | PlaneError::Limit { .. } | PlaneError::NotRecognised { .. } => ErrorCode::Kernel,
    };
    ControlError::new(code, format!("{object}: {}", chain(error)))
}

/// Names with a meaning of their own beside the bonds' files. [bond_sysfs.c: bonding_masters]
const RESERVED: [&str; 3] = ["bonding_masters", "all", "default"];

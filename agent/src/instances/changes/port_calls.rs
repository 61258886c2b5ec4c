//! Calls of clients about ports: attaches them, gives them back, sets their options.

use bond_modes::options::FailOverMac;
use bond_modes::{BondOptions, Event, Notice, PortFacts, PortId, Warning};
use bond_monitors::{MacAddr, Time};

use super::super::Instances;
use super::super::errors::{option_error, plane_error};
use super::super::id::InstanceId;
use super::super::logged_failures::Subject;
use crate::control::proto::{ControlError, ErrorCode, OptionPairs};
use crate::dataplane::{self, OriginalPort, PlaneError, PortBase};
use crate::netlink::Link;
use crate::status::Device;
use crate::text::chain;

impl Instances {
    pub(in crate::instances) fn port_attach(&mut self, now: Time, bond: &str, port: &str) -> Result<(), ControlError> {
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
    pub(in crate::instances) fn possible_port(&mut self, port: &str) -> Result<Link, ControlError> {
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
        let ends = |link: &Link| [Some(link.ifindex), link.far_end()];
        let below = self.host.below(link.ifindex).into_iter().flat_map(ends).flatten();
        below
            .collect::<Vec<_>>()
            .into_iter()
            .find_map(|end| self.bonds.on_device(end))
    }

    /// Attaches an interface. Its settings are saved first, so that they can be restored after a crash half-way.
    pub(in crate::instances) fn attach(&mut self, now: Time, at: InstanceId, link: &Link) -> Result<(), ControlError> {
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
            Some(before) if dataplane::is_mark(&link.alias) => {
                let before = OriginalPort {
                    disable_ipv6: original.disable_ipv6,
                    clsact: original.clsact,
                    ..before.clone()
                };
                // If the attempt fails, the interface is still to be given back.
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

    pub(in crate::instances) fn port_detach(&mut self, now: Time, bond: &str, port: &str) -> Result<(), ControlError> {
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
    pub(in crate::instances) fn release(&mut self, now: Time, at: InstanceId, port: PortId, gone: bool) {
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
            // The interface may be back already: whoever attaches it anew does this first.
            let name = instance.name.clone();
            self.leave_to_plane(at, move |plane| {
                if let Err(error) = plane.detach(port, &original) {
                    log::debug!("{name}: {}", chain(&error));
                }
            });
        }
    }

    pub(in crate::instances) fn port_set(
        &mut self,
        now: Time,
        bond: &str,
        port: &str,
        pairs: &OptionPairs,
    ) -> Result<(), ControlError> {
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

fn not_a_port(bond: &str, port: &str) -> ControlError {
    ControlError::new(ErrorCode::NotAPort, format!("{port} is not a port of {bond}"))
}

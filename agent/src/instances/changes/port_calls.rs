//! Calls of clients about ports: attaches them, gives them back, sets their options.

use std::io;

use bond_modes::options::FailOverMac;
use bond_modes::{BondOptions, Event, Notice, PortFacts, PortId, Warning};
use bond_monitors::MacAddr;

use super::super::errors::{option_error, plane_error};
use super::super::id::InstanceId;
use super::super::logged_failures::Subject;
use super::super::looks::Look;
use super::super::unadopted::Unadopted;
use super::change::Change;
use crate::control::proto::{ControlError, ErrorCode, OptionPairs};
use crate::dataplane::{self, OriginalPort, PlaneError, PortBase};
use crate::descriptors::why;
use crate::netlink::{Link, RouteSocket, mii};
use crate::status::Device;

impl Change<'_> {
    pub(in crate::instances) fn port_attach(&mut self, bond: &str, port: &str) -> Result<(), ControlError> {
        let at = self.find(bond)?;
        let link = self.possible_port(at, port)?;
        self.attach(at, &link)?;
        // It may have got another name meanwhile.
        let named = self.bonds[at].bond.ports().name(PortId(link.ifindex));
        let port = named.map_or_else(|| port.to_owned(), |name| name.to_string());
        let instance = &mut self.bonds[at];
        instance.origins.operator_ports.insert(port.clone());
        if !instance.wants(&port) {
            instance.wanted.push(port);
        }
        Ok(())
    }

    /// The interface of that name, if it can become a port of this bond. [bond_main.c: bond_enslave]
    pub(in crate::instances) fn possible_port(&mut self, at: InstanceId, port: &str) -> Result<Link, ControlError> {
        let refuse = |code, text: String| Err(ControlError::new(code, text));
        let link = self
            .read_name(port)
            .map_err(|error| ControlError::new(ErrorCode::Kernel, format!("cannot look {port} up: {error}")))?;
        let Some(link) = link else {
            return refuse(
                ErrorCode::NoSuchDevice,
                format!("no interface {port}, expected the name of an existing one"),
            );
        };
        if let Some(text) = self.why_taken(&link)? {
            return refuse(ErrorCode::PortBusy, text);
        }
        // The driver asks the kernel's tree of upper devices, in which our ports are not. [bond_main.c: bond_enslave]
        if let Some(text) = self.why_no_port(at, &link) {
            return refuse(ErrorCode::BadPort, text);
        }
        if link.loopback || !link.ethernet {
            let kind = if link.loopback { "a loopback" } else { "not an Ethernet" };
            let text = format!("{port} is {kind} interface, expected an Ethernet one");
            return refuse(ErrorCode::BadPort, text);
        }
        if let Some(master) = link.master {
            let master = self.unlocked(|tools| tools.links.by_index(master)).ok().flatten();
            let master = master.map_or_else(|| "another device".to_owned(), |link| link.report.name);
            let text = format!("{port} belongs to {master}, expected an interface without a master");
            return refuse(ErrorCode::PortBusy, text);
        }
        Ok(link)
    }

    /// Of which bond an interface is a port, if it is one.
    fn why_taken(&mut self, link: &Link) -> Result<Option<String>, ControlError> {
        let (id, port) = (PortId(link.ifindex), &link.report.name);
        // First, as others may go on meanwhile.
        let marked = self.marked_bond(link)?;
        if let Some(at) = self.bonds.owner_of(id) {
            return Ok(Some(format!("{port} is a port of {} already", self.bonds[at].name)));
        }
        if let Some(bond) = self.unadopted.iter().find(|bond| bond.has_any(&[id].into())) {
            return Ok(Some(format!(
                "{port} is a port of {} already, which cannot be adopted yet: {}",
                bond.name, bond.reason
            )));
        }
        Ok(marked.and_then(|bond| self.why_not_ours(link, &bond)))
    }

    /// The bond as whose port an interface is marked, if that is there.
    fn marked_bond(&mut self, link: &Link) -> Result<Option<Link>, ControlError> {
        if !dataplane::is_mark(&link.alias) {
            return Ok(None);
        }
        let marked = self.unlocked(|tools| dataplane::marked_bond(&mut tools.links, link));
        marked.map_err(|error| {
            let text = format!(
                "cannot tell whether {}, which is marked as a {}, is one: {error}",
                link.report.name, link.alias
            );
            ControlError::new(ErrorCode::Kernel, text)
        })
    }

    /// Why an interface that is marked as a port of a bond, and is not one of ours, is not to be attached. Agents on other run
    /// directories have bonds in the same network namespace, which forward also while their agent is not running.
    fn why_not_ours(&mut self, link: &Link, marked: &Link) -> Option<String> {
        let (port, bond) = (&link.report.name, &marked.report.name);
        // The mark of one of our own bonds, or of a former name, is left over.
        if self.bonds.on_device(marked.ifindex).is_some() || self.unrestored(PortId(link.ifindex)).is_some() {
            return None;
        }
        let is_it = |waiting: &&Unadopted| {
            !waiting.is_unmade() && (waiting.ifindex() == Some(marked.ifindex) || waiting.name == *bond)
        };
        Some(match self.unadopted.iter().find(is_it) {
            Some(waiting) => format!(
                "{port} is a port of {bond} already, which cannot be adopted yet: {}",
                waiting.reason
            ),
            None => format!(
                "{port} is a port of {bond} already, which is a bond of another bondd, on another run directory: take it out there, \
                 with `bondctl --run-dir DIRECTORY port del {bond} {port}`; or, if no bondd has {bond} any more, delete {bond}, with \
                 `ip link del {bond}`"
            ),
        })
    }

    /// Attaches an interface. Its settings are saved first, so that they can be restored after a crash half-way.
    pub(in crate::instances) fn attach(&mut self, at: InstanceId, link: &Link) -> Result<(), ControlError> {
        // Its events report our own settings, and its state is read afterwards.
        self.underway.in_hand = Some(PortId(link.ifindex));
        let attached = self.attach_in_hand(at, link);
        self.underway.in_hand = None;
        attached
    }

    fn attach_in_hand(&mut self, at: InstanceId, link: &Link) -> Result<(), ControlError> {
        let (port, before) = (PortId(link.ifindex), link.report.name.clone());
        let name = self.bonds[at].name.clone();
        let what = format!("{name}: {}", link.report.name);
        let is_heard = !self.bonds[at].bond.options().arp_interval.is_zero();
        self.has_room_beside_monitors(usize::from(is_heard), || format!("attach {}", link.report.name))
            .map_err(|error| plane_error(&name, &error))?;
        let original = self.read_original(at, link, &what)?;
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
        let link = match self.read_port(port) {
            Ok(Some(link)) => link,
            Ok(None) => return Err(self.went_meanwhile(at, port, &what)),
            Err(_) => self.host.link(port.0).unwrap_or(link).clone(),
        };
        if !self.bonds[at].plane.signs().is_attached(&link) {
            return Err(self.went_meanwhile(at, port, &what));
        }
        // The bond may have been put under it meanwhile.
        if let Some(text) = self.why_no_port(at, &link) {
            self.take_back(at, port);
            return Err(ControlError::new(ErrorCode::BadPort, text));
        }
        self.underway.in_hand = None;
        // What another program set meanwhile was told by events that are taken for our own.
        self.look_at(at, Look::Port(port));
        self.polls.told(port);
        self.bonds[at].devices.insert(port.0, Device::of(&link));
        let report = link.report.clone();
        let facts = PortFacts { permanent_mac, report };
        if link.report.name != before {
            self.bonds[at].ports_renamed(&[(before, link.report.name.clone())].into());
        }
        self.feed(at, Event::PortAttached { port, facts });
        self.save_left();
        let instance = &mut self.bonds[at];
        instance.attempts.forget(&link.report.name);
        instance.failures.forget(&Subject::Wanted(link.report.name.clone()));
        instance.dirty = true;
        self.try_driver(at, port, &link.report.name);
        Ok(())
    }

    /// State of a port with speed and duplex.
    fn read_port(&mut self, port: PortId) -> io::Result<Option<Link>> {
        let read = |links: &mut RouteSocket| {
            let Some(mut link) = links.by_index(port.0)? else {
                return Ok(None);
            };
            (link.report.speed, link.report.duplex) = links.speed_duplex(&link.report.name);
            Ok(Some(link))
        };
        self.read_link(read)
    }

    /// A port that was just attached is gone, or another program has taken it out.
    fn went_meanwhile(&mut self, at: InstanceId, port: PortId, what: &str) -> ControlError {
        self.take_back(at, port);
        plane_error(what, &PlaneError::PortGone { port })
    }

    /// A port that was just attached does not become one.
    fn take_back(&mut self, at: InstanceId, port: PortId) {
        if let Some(original) = self.bonds[at].originals.remove(&port) {
            self.bonds[at].unrestored.insert(port, original);
            self.give_back(at, port);
            self.save(at);
        }
    }

    /// Asks the driver of a new port for the link that `use_carrier=0` needs: a bond that is down does not poll it.
    fn try_driver(&mut self, at: InstanceId, port: PortId, name: &str) {
        let options = self.bonds[at].bond.options();
        if !options.use_carrier && !options.miimon.is_zero() {
            let carrier = self.unlocked(|_| mii::carrier_by_ioctl(name));
            self.carrier_by_driver(at, port, name, carrier);
        }
    }

    /// The settings of an interface that is to be attached, as they are to be restored. Makes the bond ready for an address that
    /// cannot be changed.
    fn read_original(&mut self, at: InstanceId, link: &Link, what: &str) -> Result<OriginalPort, ControlError> {
        let port = PortId(link.ifindex);
        let original = self.unlocked(|tools| dataplane::original(&mut tools.links, port));
        let original = original.map_err(|error| plane_error(what, &error))?;
        self.allow_for_fixed_mac(at, &link.report.name, port, original.mac)?;
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
            let text = format!(
                "{what}: cannot save its settings, which bondd must be able to restore: {}",
                why(&error)
            );
            ControlError::new(ErrorCode::Kernel, text)
        })?;
        let attached = self.on_plane(at, |plane| plane.attach(port, base));
        let instance = &mut self.bonds[at];
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
        let moves = bond_modes::moving_macs(options) == FailOverMac::Active;
        let always = self.on_plane(at, |plane| plane.needs_to_set_addresses());
        if moves && always.is_none() {
            return Ok(());
        }
        // Setting the address that it has changes nothing, but shows whether it could be changed.
        let refusal = self.unlocked(|tools| tools.links.set_mac(id.0, mac)).err();
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
                self.set_at(at, &[("fail_over_mac".to_owned(), "active".to_owned())])?;
                self.notify(at, Notice::warning(Warning::AddressFixed { port: port.to_owned() }));
                self.bonds[at].origins.set_for_port("fail_over_mac", port);
                return Ok(());
            }
        };
        let text = format!("{name}: {port} cannot change its address: {needs}");
        Err(ControlError::new(ErrorCode::BadPort, text))
    }

    pub(in crate::instances) fn port_detach(&mut self, bond: &str, port: &str) -> Result<(), ControlError> {
        let at = self.find(bond)?;
        let instance = &mut self.bonds[at];
        let attached = instance.bond.ports().named(port).map(|port| port.id);
        let was_wanted = instance.forget_wanted(port);
        if attached.is_none() && !was_wanted {
            return Err(not_a_port(bond, port));
        }
        instance.dirty = true;
        if let Some(id) = attached {
            self.release(at, id);
        }
        Ok(())
    }

    /// Moves traffic off a port, then gives it back as it was.
    pub(in crate::instances) fn release(&mut self, at: InstanceId, port: PortId) {
        let now = self.now();
        self.port_taken(now, at, port);
        self.finish_plan(at);
        self.give_back(at, port);
    }

    pub(in crate::instances) fn port_set(
        &mut self,
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
        self.on_plane(at, |plane| plane.can_port(&preview))
            .map_err(|error| plane_error(&what, &error))?;
        let now = self.now();
        self.bonds[at]
            .bond
            .configure_port(now, id, pairs)
            .map_err(|error| option_error(&what, error))?;
        self.drain(at);
        self.bonds[at].dirty = true;
        Ok(())
    }
}

fn not_a_port(bond: &str, port: &str) -> ControlError {
    ControlError::new(ErrorCode::NotAPort, format!("{port} is not a port of {bond}"))
}

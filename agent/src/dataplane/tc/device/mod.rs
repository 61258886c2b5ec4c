//! The bond's own interface: one end of a device whose other end, the wire, belongs to the agent. `kind` has what the kinds of
//! devices differ in, `suitable` which one new bonds get.
//!
//! A device is ours if its wire is called `wire<ifindex of the bond>` and its alias begins with `wire of`. The alias is set after the
//! folder of its pins is made, by which the next start finds it, and before anything that is pinned. So a crash while one is made
//! leaves either a bare device, which is removed when a bond of that name is made, or one of ours that lacks something, which is
//! completed when it is adopted.

use std::io;
use std::path::Path;

use bond_modes::PortId;
use bond_monitors::Carrier;

use super::bond::{Bond, Shared};
use super::failover;
use super::forwarding::Forwarding;
use super::hook::{self, Attached, Hold, Place};
use super::object::TX;
use super::pins::BondPins;
use super::programs::Programs;
use crate::dataplane::interface::{delete, report};
use crate::dataplane::port::name_of;
use crate::dataplane::step::{BPF, Failures, HOOK, bond_gone, room, step, step_with};
use crate::dataplane::{BondDevice, PlaneError};
use crate::netlink::{Link, RouteSocket, sysctl};

mod kind;
mod suitable;

pub use self::kind::{DeviceChoice, DeviceKind};
pub use self::suitable::{NewBonds, Suitable};

/// Both ends of a device.
pub struct Device {
    /// What it is.
    pub kind: DeviceKind,
    /// The bond's own interface.
    pub bond: Link,
    /// The end that belongs to the agent.
    pub wire: Link,
}

impl Shared {
    /// What the next bond is to be. Nothing is tried where there is no choice.
    pub(super) fn kind_of_new_bonds(&mut self) -> Result<DeviceKind, PlaneError> {
        match self.new_bonds.candidates() {
            [only] => Ok(*only),
            _ => self.suitable.examine(self.new_bonds, &mut self.loader),
        }
    }

    /// The device of this bond, if the interface of that name is ours. It may have been renamed while no agent ran, so the bond's
    /// name in the alias does not count.
    pub(super) fn find_device(&mut self, name: &str) -> Result<Option<Device>, PlaneError> {
        Ok(self
            .device_named(name)?
            .filter(|device| is_wire_of(&device.wire, device.bond.ifindex)))
    }

    /// The names of all bonds that are there and have pins where ours are; none while another agent serves those.
    pub(super) fn find_bonds(&mut self) -> Result<Vec<String>, PlaneError> {
        if self.pins.is_none() && self.find_pins()?.is_none() {
            return Ok(Vec::new());
        }
        self.swept_pins()?;
        let Some(pins) = self.pins.as_ref().filter(|pins| pins.is_locked()) else {
            return Ok(Vec::new());
        };
        let links = step(|| "read the interfaces".to_owned(), || self.links.all())?;
        let wires = links.iter().filter_map(|wire| Some((wire, wire.peer?)));
        let bonds: Vec<u32> = wires
            .filter(|(wire, bond)| is_wire_of(wire, *bond) && pins.bond(*bond).exist())
            .map(|(_, bond)| bond)
            .collect();
        let names = links.into_iter().filter(|link| bonds.contains(&link.ifindex));
        Ok(names.map(|link| link.report.name).collect())
    }

    /// Makes the device and everything on it; on failure nothing of it is left.
    pub(super) fn make_bond(&mut self, name: &str) -> Result<(Bond, BondDevice), PlaneError> {
        room(|| format!("make {name}"))?;
        self.remove_bare_device(name)?;
        let taken = || PlaneError::NameTaken { name: name.to_owned() };
        if self.link_named(name)?.is_some() {
            return Err(taken());
        }
        let kind = self.kind_of_new_bonds()?;
        // Opening the pins may take long, and as long a crash would leave a bare device.
        self.swept_pins()?;
        kind.make(&mut self.links, name, "wire%d")
            .map_err(|error| match error {
                PlaneError::Kernel { source, .. } if source.raw_os_error() == Some(libc::EEXIST) => taken(),
                other => other,
            })?;
        let device = match self.device_named(name) {
            Ok(Some(device)) => device,
            Ok(None) => return Err(taken()),
            Err(error) => {
                self.unmake(name, None);
                return Err(error);
            }
        };
        self.fresh_pins(device.bond.ifindex)
            .and_then(|pins| self.claim(name, &device).map(|()| pins))
            .and_then(|pins| self.equip(name, &device, pins))
            .and_then(|mut bond| {
                let mark = || bond.programs.mark_attached(&bond.forwarding);
                step(|| format!("set up the maps of {name}"), mark)?;
                bond.programs.close();
                self.fail_over(&bond);
                Ok((bond, self.read_device(name, device.bond.ifindex)?))
            })
            .inspect_err(|_| self.unmake(name, Some(device.bond.ifindex)))
    }

    fn read_device(&mut self, name: &str, ifindex: u32) -> Result<BondDevice, PlaneError> {
        let link = step(|| format!("read {name}"), || self.links.by_index(ifindex))?.ok_or_else(|| bond_gone(name))?;
        let report = report(&mut self.links, &link);
        Ok(BondDevice { ifindex, report })
    }

    /// Brings a device of ours to the state in which a bond can work, whatever of it is there already: maps, programs, settings of
    /// the wire. Programs of another version of this agent are exchanged in place.
    pub(super) fn equip(&mut self, name: &str, device: &Device, pins: BondPins) -> Result<Bond, PlaneError> {
        let index = device.wire.ifindex;
        settle_wire(&mut self.links, index)?;
        let load = || format!("load the programs of {name}");
        let open = || {
            let (programs, mut bpf) = Programs::open(&pins, &mut self.loader, index)?;
            self.take_over_lists(device.bond.ifindex, &mut bpf)?;
            Ok((programs, bpf))
        };
        let (mut programs, bpf) = step_with(&BPF, load, open)?;
        let (carrier, mac) = (Carrier::from_bool(device.wire.report.admin_up), device.bond.report.mac);
        let forwarding = Forwarding::new(name, bpf, carrier, mac, &self.restocker);
        forwarding.with(|now| now.add_own([mac]))?;
        let (hook, tx_hold) = self.hook_device(name, device, &pins, &mut programs, &forwarding)?;
        Ok(Bond {
            ifindex: device.bond.ifindex,
            wire: index,
            kind: device.kind,
            pins,
            programs,
            hook,
            wire_left: false,
            tx_hold,
            port_holds: Default::default(),
            forwarding,
        })
    }

    /// Lets the kernel fail over for a bond whose ports are known.
    pub(super) fn fail_over(&mut self, bond: &Bond) {
        match self.pins.as_ref().filter(|pins| pins.is_locked()) {
            Some(pins) => self.in_kernel.open(&pins.failover()),
            None => self.in_kernel.wait_for_lock(),
        }
        failover::equip(&self.in_kernel, bond.ifindex, &bond.forwarding);
    }

    /// Sees to it that a program of ours has what the stack sends: one of an earlier agent stays if it is of this build, or is
    /// exchanged. Returns how programs on ports are attached.
    fn hook_device(
        &mut self,
        name: &str,
        device: &Device,
        pins: &BondPins,
        programs: &mut Programs,
        forwarding: &Forwarding,
    ) -> Result<(Attached, Hold), PlaneError> {
        let pin = pins.tx();
        let wire = wire_name(device.bond.ifindex);
        let place = tx_place(
            device.kind,
            (name, device.bond.ifindex),
            (&wire, device.wire.ifindex),
            &pin,
        );
        let kind = device.kind;
        let (links, loader, wanted) = (&mut self.links, &mut self.loader, self.new_bonds.hook);
        let attach = || {
            for &of_ports in kind.port_hooks() {
                if !programs.are_stale()
                    && let Some(hold) = hook::keep(links, place, kind.tx_hook(of_ports))?
                {
                    return Ok((of_ports, hold));
                }
            }
            programs.begin_exchange(forwarding)?;
            for &of_ports in kind.port_hooks() {
                let program = programs.bond_tx(forwarding, loader)?;
                if let Some(hold) = hook::replace(program, place, kind.tx_hook(of_ports))? {
                    return Ok((of_ports, hold));
                }
            }
            kind.attach_first(programs.bond_tx(forwarding, loader)?, place, wanted)
        };
        step_with(&HOOK, || format!("attach a program to {}", place.interface), attach)
    }

    /// Removes the device and its pins. A step that fails does not stop the other.
    pub(super) fn remove_bond(&mut self, name: &str, ifindex: u32) -> Result<(), PlaneError> {
        let mut errors = Failures::default();
        errors.note(delete(&mut self.links, name, ifindex));
        self.in_kernel.forget(ifindex);
        // Last: as long as the interface is there, its pins say what it does.
        let removed = self.pins().map(|pins| (pins.bond(ifindex), pins.has_others(ifindex)));
        if let Ok((_, false)) = &removed
            && let Err(error) = self.in_kernel.close()
        {
            log::warn!("cannot end failover in the kernel: {error}");
        }
        errors.note(removed.and_then(|(pins, _)| step(|| format!("remove the pins of {name}"), || pins.remove())));
        errors.result()
    }

    /// Marks the bond's address as wanted, and then the wire as ours: a random address from the kernel is replaced by udev some time
    /// later (MACAddressPolicy=persistent), one that was set is not.
    fn claim(&mut self, name: &str, device: &Device) -> Result<(), PlaneError> {
        let wire = wire_name(device.bond.ifindex);
        let index = device.wire.ifindex;
        let keep = || self.links.set_mac(device.bond.ifindex, device.bond.report.mac);
        step(|| format!("set the address of {name}"), keep)?;
        let rename = || format!("rename {} to {wire}", device.wire.report.name);
        step(rename, || self.links.rename(index, &wire))?;
        let mark = || self.links.set_alias(index, &wire_alias(name));
        step(|| format!("set the alias of {wire}"), mark)
    }

    /// An empty folder for pins: what lies there is of an earlier interface with this index.
    fn fresh_pins(&mut self, ifindex: u32) -> Result<BondPins, PlaneError> {
        let pins = self.pins()?.bond(ifindex);
        step(|| "remove stale pins".to_owned(), || pins.remove())?;
        step(|| "make a folder for pins".to_owned(), || pins.create())?;
        Ok(pins)
    }

    /// Undoes a creation that failed; what fails here too is left to the next creation.
    fn unmake(&mut self, name: &str, ifindex: Option<u32>) {
        let ifindex = ifindex.or_else(|| self.device_named(name).ok().flatten().map(|device| device.bond.ifindex));
        if let Some(Err(error)) = ifindex.map(|ifindex| self.remove_bond(name, ifindex)) {
            log::debug!("{name}: undoing a failed creation: {error}");
        }
    }

    /// Removes what a crash left between making a device and claiming its wire.
    fn remove_bare_device(&mut self, name: &str) -> Result<(), PlaneError> {
        let Some(device) = self.device_named(name)? else {
            return Ok(());
        };
        let number = device.wire.report.name.strip_prefix("wire").unwrap_or_default();
        let bare = !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && device.wire.alias.is_empty()
            && !device.wire.report.admin_up
            && !device.bond.report.admin_up;
        if !bare {
            return Ok(());
        }
        self.remove_bond(name, device.bond.ifindex)
    }

    fn device_named(&mut self, name: &str) -> Result<Option<Device>, PlaneError> {
        // Asked by name, the kernel also answers for alternative names.
        let Some(bond) = self.link_named(name)?.filter(|link| link.report.name == name) else {
            return Ok(None);
        };
        let (Some(kind), Some(peer)) = (DeviceKind::of(&bond), bond.peer) else {
            return Ok(None);
        };
        let wire = step(|| format!("read the far end of {name}"), || self.links.by_index(peer))?;
        Ok(wire.map(|wire| Device { kind, bond, wire }))
    }

    fn link_named(&mut self, name: &str) -> Result<Option<Link>, PlaneError> {
        step(|| format!("read the interface {name}"), || self.links.by_name(name))
    }
}

/// Gives the wire of the bond with this index its settings.
pub(super) fn settle_wire(links: &mut RouteSocket, index: u32) -> Result<(), PlaneError> {
    let wire = name_of(PortId(index));
    // Larger than any frame, so that only the MTUs of the bond and its ports count.
    let widen = || format!("set the MTU of {wire}");
    step(widen, || links.set_mtu(index, WIRE_MTU))?;
    let silence = || format!("turn IPv6 off on {wire}");
    step(silence, || sysctl::set_disable_ipv6(&wire, true))
}

/// Where the program for frames of the stack is attached, by name and index of both ends.
pub(super) fn tx_place<'a>(kind: DeviceKind, bond: (&'a str, u32), wire: (&'a str, u32), pin: &'a Path) -> Place<'a> {
    let (interface, ifindex) = kind.end_with_tx(bond, wire);
    Place {
        interface,
        ifindex,
        pin: Some(pin),
        program: TX,
    }
}

/// Name of the wire of the bond with this interface index.
pub(super) fn wire_name(bond: u32) -> String {
    format!("wire{bond}")
}

/// What marks the wire as ours.
pub(super) fn wire_alias(bond: &str) -> String {
    format!("{WIRE_MARK}{bond}")
}

/// Whether an interface is that of a bond on this plane, of whichever agent.
pub fn is_bond(links: &mut RouteSocket, link: &Link) -> io::Result<bool> {
    let Some(wire) = link.far_end() else { return Ok(false) };
    let wire = links.by_index(wire)?;
    Ok(wire.is_some_and(|wire| is_wire_of(&wire, link.ifindex)))
}

fn is_wire_of(link: &Link, bond: u32) -> bool {
    link.report.name == wire_name(bond) && link.alias.starts_with(WIRE_MARK)
}

const WIRE_MARK: &str = "wire of ";

/// ETH_MAX_MTU
const WIRE_MTU: u32 = 65535;

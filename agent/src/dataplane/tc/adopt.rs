//! Bonds taken over from an earlier agent, and read anew after changes by others.

use std::collections::BTreeSet;

use bond_modes::PortId;
use bond_modes::plan::{Accept, PortPlan, Source};
use bond_monitors::Carrier;

use super::bond::{Bond, Shared};
use super::device::{Device, wire_alias};
use super::failover::prepare;
use super::forwarding::{InForce, bridged};
use super::queues;
use crate::dataplane::interface::{label, report};
use crate::dataplane::port::{name_of, port_alias};
use crate::dataplane::step::{room, step};
use crate::dataplane::{Observed, PlaneError};
use crate::netlink::Link;
use crate::netlink::RouteSocket;

impl Shared {
    /// Takes a device of ours over, with its ports, if there is one under this name.
    pub(super) fn adopt(&mut self, name: &str) -> Result<Option<(Bond, Observed)>, PlaneError> {
        let Some(device) = self.find_device(name)? else {
            return Ok(None);
        };
        room(|| format!("take {name} over"))?;
        let (bond, ports) = self.adopt_device(name, &device)?;
        let links = &mut self.links;
        let ports = ports.iter().map(|(port, link)| (*port, report(links, link)));
        let observed = Observed {
            ports: ports.collect(),
            ifindex: device.bond.ifindex,
            report: report(&mut self.links, &device.bond),
            plan: bond.forwarding.with(|now| now.applied.clone()),
        };
        Ok(Some((bond, observed)))
    }

    fn adopt_device(&mut self, name: &str, device: &Device) -> Result<(Bond, Vec<(PortId, Link)>), PlaneError> {
        let pins = self.pins()?.bond(device.bond.ifindex);
        if !pins.exist() {
            log::warn!(
                "{name}: its programs are gone, so its ports are attached anew: their pins were removed, or the mount namespace of \
                 their bpffs ended"
            );
        }
        step(|| "make a folder for pins".to_owned(), || pins.create())?;
        let mut bond = self.equip(name, device, pins)?;
        let ports = self.adopt_ports(name, &mut bond)?;
        bond.forwarding.with(|now| read_maps(now, device, &ports))?;
        // Not before the ports are known: what is prepared for others is forgotten.
        self.fail_over(&bond);
        bond.forwarding.with(read_prepared)?;
        if bond.programs.are_stale() && bond.holds_all() {
            let mark = || bond.programs.mark_attached(&bond.forwarding);
            step(|| format!("set up the maps of {name}"), mark)?;
        }
        bond.note_unfinished();
        bond.programs.close();
        if device.wire.alias != wire_alias(name) {
            label_all(&mut self.links, name, &bond);
        }
        Ok((bond, ports))
    }
}

/// Reads from the maps what is in force.
fn read_maps(now: &mut InForce, device: &Device, ports: &[(PortId, Link)]) -> Result<(), PlaneError> {
    let name = now.name.clone();
    let read = || format!("read the maps of {name}");
    now.applied.tx = step(read, || now.bpf.tx())?;
    now.applied.steer = queues::steer_of(now.bpf.queues());
    now.steered = !now.applied.steer.is_empty();
    for (port, link) in ports {
        let accept = step(read, || now.bpf.accept(*port))?;
        now.applied.ports.insert(*port, settings(link, &device.bond, accept));
    }
    Ok(())
}

fn read_prepared(now: &mut InForce) -> Result<(), PlaneError> {
    let name = now.name.clone();
    step(|| format!("read the maps of {name}"), || prepare::read(now))?;
    now.keep_own([])?;
    now.remember_all(bridged(&now.applied))
}

/// A port's settings as a plan words them. Every port has all-multicast on, so report the bond's setting.
fn settings(port: &Link, bond: &Link, accept: Accept) -> PortPlan {
    PortPlan {
        mac: port.report.mac,
        mtu: port.report.mtu,
        promisc: port.promisc_flag,
        allmulti: bond.report.allmulti,
        accept,
        source: Source::AsSent,
    }
}

/// Names the bond on its wire and ports.
pub(super) fn label_all(links: &mut RouteSocket, name: &str, bond: &Bond) {
    let ports = bond.ports().into_iter().map(|port| (port.0, port_alias(name)));
    for (ifindex, alias) in ports.chain([(bond.wire, wire_alias(name))]) {
        label(links, name, ifindex, &alias);
    }
}

/// See [`PlaneBond::refresh`](crate::dataplane::PlaneBond::refresh).
pub(super) fn refresh(links: &mut RouteSocket, name: &str, bond: &mut Bond) -> Result<(), PlaneError> {
    if let Some(link) = step(|| format!("read {name}"), || links.by_index(bond.ifindex))? {
        bond.forwarding.with(|now| now.applied.mac = link.report.mac);
    }
    if !bond.wire_left
        && let Some(wire) = step(|| format!("read the wire of {name}"), || links.by_index(bond.wire))?
    {
        let steered = bond.forwarding.with(|now| {
            now.applied.carrier = Carrier::from_bool(wire.report.admin_up);
            now.steered
        });
        if steered {
            queues::tie(name, &wire)?;
        }
    }
    let mut lost = BTreeSet::new();
    for port in bond.ports() {
        match step(|| format!("read {}", name_of(port)), || links.by_index(port.0))? {
            Some(link) if !link.allmulti_flag => lost.insert(port),
            _ => false,
        };
    }
    bond.forwarding.with(|now| now.lost_allmulti = lost);
    Ok(())
}

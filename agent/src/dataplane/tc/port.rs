//! Ports: taken in, given back, taken over from an earlier agent.

use std::io;

use bond_modes::PortId;
use bond_modes::plan::{Accept, PortPlan, Source};

use super::bond::{Bond, Shared};
use super::bpf::MAX_PORTS;
use super::failover::prepare::put_in_force;
use super::forwarding::InForce;
use super::hook;
use super::port_hook::{drop_filter, hook_port, place, take_over, unhook};
use crate::dataplane::port::{
    MarkOf, as_it_is, name_of, port_alias, prepare, read, read_attached, read_marked, read_orphan, read_unless_gone,
    restore,
};
use crate::dataplane::step::{Failures, port_step, room, step, twice};
use crate::dataplane::{OriginalPort, PlaneError, PortBase};
use crate::netlink::{Link, RouteSocket};
use crate::text::chain;

impl Shared {
    /// Takes a port in; on failure it is as before.
    pub(super) fn take_in(
        &mut self,
        name: &str,
        bond: &mut Bond,
        port: PortId,
        base: &PortBase,
    ) -> Result<(), PlaneError> {
        if bond.ports().contains(&port) {
            return self.complete(port);
        }
        let attach = || format!("attach {} to {name}", name_of(port));
        if bond.forwarding.with(|now| now.bpf.is_full()) {
            return Err(PlaneError::Limit {
                doing: attach(),
                limit: format!("a bond on plane tc can have {MAX_PORTS} ports, and {name} has as many"),
            });
        }
        room(attach)?;
        let before = as_it_is(&mut self.links, port)?;
        let attached = self.set_up_port(name, bond, port, base);
        bond.programs.close();
        attached.map_err(|error| {
            let mut errors = Failures::default();
            let link = read_unless_gone(&mut self.links, port, &mut errors);
            self.return_port(name, bond, port, link, &before, &mut errors);
            errors.after(error)
        })
    }

    /// Does the last step of [`Shared::set_up_port`], which an agent that ended in the middle may not have come to. The others are done
    /// before a port counts as one, or when it is taken over.
    fn complete(&mut self, port: PortId) -> Result<(), PlaneError> {
        let links = &mut self.links;
        let link = read(links, port)?;
        match link.report.admin_up {
            true => Ok(()),
            false => port_step(
                port,
                || format!("set {} up", link.report.name),
                || links.set_up(port.0, true),
            ),
        }
    }

    /// Gives a port back. Order: nothing in, nothing out, then the settings of the interface, and IPv6 last, which begins to work
    /// with them at once.
    pub(super) fn give_back(
        &mut self,
        name: &str,
        bond: &mut Bond,
        port: PortId,
        original: &OriginalPort,
    ) -> Result<bool, PlaneError> {
        let mut errors = Failures::default();
        let links = &mut self.links;
        let link = match bond.ports().contains(&port) {
            true => read_attached(links, name, port, &mut errors),
            false => read_marked(links, name, port, &mut errors),
        };
        let is_there = link.is_some();
        self.return_port(name, bond, port, link, original, &mut errors);
        errors.result().map(|()| is_there)
    }

    fn return_port(
        &mut self,
        name: &str,
        bond: &mut Bond,
        port: PortId,
        link: Option<Link>,
        original: &OriginalPort,
        errors: &mut Failures,
    ) {
        let links = &mut self.links;
        expel(links, name, bond, port, link.as_ref(), original.clsact, errors);
        if let Some(link) = link {
            restore(links, port, &link, original, errors);
        }
    }

    /// Gives back a port of a bond that someone deleted. Its tcx link has gone with the pins of the bond.
    pub(super) fn give_back_orphan(
        &mut self,
        name: &str,
        port: PortId,
        original: &OriginalPort,
    ) -> Result<bool, PlaneError> {
        let mut errors = Failures::default();
        errors.note(self.forget_bonds());
        let links = &mut self.links;
        let found = read_orphan(links, name, port, &mut errors);
        // Without its bond, the program is of no use on an interface that lost the mark either.
        if let Some((link, MarkOf::ThisBond | MarkOf::Nobody)) = &found {
            errors.note_unless_gone(drop_filter(links, port, link, original));
        }
        let ours = found.filter(|(_, of)| *of == MarkOf::ThisBond);
        if let Some((link, _)) = &ours {
            restore(links, port, link, original, &mut errors);
        }
        errors.result().map(|()| ours.is_some())
    }

    /// Takes over the ports that an earlier agent attached: those with counters, as far as they still exist and carry our mark.
    /// Returns them with their links. Each step is tried twice. If the program on a port cannot be taken over, it goes on as it is
    /// until [`take_over_rest`](super::port_hook::take_over_rest) succeeds. A port that has lost its program and gets no other is
    /// forgotten, with a warning: it is attached anew.
    ///
    /// # Errors
    /// Something fails that all ports need, a port cannot be read, or no port can be taken over. Then nothing is forgotten, and
    /// the programs of the earlier agent go on.
    pub(super) fn adopt_ports(&mut self, name: &str, bond: &mut Bond) -> Result<Vec<(PortId, Link)>, PlaneError> {
        let mut found = Vec::new();
        for port in bond.forwarding.with(|now| now.bpf.ports()) {
            let links = &mut self.links;
            let link = twice(|| step(|| format!("read {}", name_of(port)), || links.by_index(port.0)))?;
            found.push((port, link));
        }
        // Before the programs that listen.
        let macs = found.iter().filter_map(|(_, link)| Some(link.as_ref()?.report.mac));
        bond.forwarding.with(|now| now.add_own(macs))?;
        if bond.programs.are_stale() && !found.is_empty() {
            let load = || format!("load the program for the ports of {name}");
            let port_rx = || bond.programs.port_rx(&bond.forwarding, &mut self.loader).map(drop);
            step(load, port_rx)?;
        }
        let mut adopted = Vec::new();
        let mut gone = Vec::new();
        let mut failed = Vec::new();
        for (port, link) in found {
            let Some(link) = link else {
                gone.push(port);
                continue;
            };
            match twice(|| self.adopt_port(name, bond, port, &link)) {
                Ok(true) => adopted.push((port, link)),
                Ok(false) | Err(PlaneError::PortGone { .. }) => gone.push(port),
                Err(error) if self.may_forward(bond, port) => {
                    if bond.programs.are_of_first_layout() {
                        // The program on the port does not see the new maps.
                        return Err(error);
                    }
                    log::warn!(
                        "{name}: the program on {} cannot be taken over yet, it goes on: {}",
                        link.report.name,
                        chain(&error)
                    );
                    adopted.push((port, link));
                }
                Err(error) => failed.push((port, error)),
            }
        }
        if adopted.is_empty() && !failed.is_empty() {
            return Err(failed.remove(0).1);
        }
        for (port, error) in &failed {
            log::warn!(
                "{name}: {} cannot be taken over, so it is attached anew: {}",
                name_of(*port),
                chain(error)
            );
        }
        for port in gone.into_iter().chain(failed.into_iter().map(|(port, _)| port)) {
            let forget = || self.forget_port(bond, port);
            if let Err(error) = step(|| format!("forget {} of {name}", name_of(port)), forget) {
                log::warn!("{name}: {}", chain(&error));
            }
        }
        Ok(adopted)
    }

    /// Whether a program of an earlier agent is on a port; also true if that cannot be read.
    fn may_forward(&mut self, bond: &Bond, port: PortId) -> bool {
        let pin = bond.pins.rx(port);
        hook::is_there(&mut self.links, place("", port, &pin), bond.hook).unwrap_or(true)
    }

    /// Takes one port over; false if it is not a port of this bond any more.
    fn adopt_port(&mut self, name: &str, bond: &mut Bond, port: PortId, link: &Link) -> Result<bool, PlaneError> {
        if take_over(&mut self.links, &mut self.loader, bond, port, link)? {
            return Ok(true);
        }
        // Its mark alone: hook and counters are not set in one step, so a crash may have left one without the other.
        if link.alias != port_alias(name) {
            return Ok(false);
        }
        hook_port(&mut self.loader, bond, port, link)?;
        Ok(true)
    }

    /// Takes a port that could not be taken over out of the maps, and the program off it.
    fn forget_port(&mut self, bond: &mut Bond, port: PortId) -> io::Result<()> {
        bond.port_holds.remove(&port);
        bond.forwarding.with(|now| now.remove_port(port))?;
        let link = self.links.by_index(port.0)?;
        unhook(&mut self.links, bond, port, link.as_ref(), true)
    }

    /// The settings come first and the hook after the counters, without which the program drops everything; up last, so that no
    /// frame is handled before the hook is there.
    fn set_up_port(&mut self, name: &str, bond: &mut Bond, port: PortId, base: &PortBase) -> Result<(), PlaneError> {
        let links = &mut self.links;
        let mut link = read(links, port)?;
        let text = link.report.name.clone();
        let text = text.as_str();
        prepare(links, name, port, &mut link, base)?;
        // The groups that the stack joins on the bond are not known to the port's filter, so it must let all of them in.
        port_step(
            port,
            || format!("set {text} to all multicast"),
            || links.set_allmulti(port.0, true),
        )?;
        bond.forwarding.with(|now| {
            let count = || {
                now.bpf.add_own([link.report.mac])?;
                now.bpf.add_port(port, bond.wire)
            };
            step(|| format!("count {text} in {name}"), count)
        })?;
        hook_port(&mut self.loader, bond, port, &link)?;
        port_step(port, || format!("set {text} up"), || links.set_up(port.0, true))?;
        let plan = PortPlan {
            mac: link.report.mac,
            mtu: base.mtu,
            promisc: link.promisc_flag,
            allmulti: true,
            accept: Accept::Nothing,
            source: Source::AsSent,
        };
        bond.forwarding.with(|now| now.applied.ports.insert(port, plan));
        Ok(())
    }
}

/// A port's interface is gone, and its program with it.
pub(super) fn forget(links: &mut RouteSocket, name: &str, bond: &mut Bond, port: PortId) -> Result<(), PlaneError> {
    let mut errors = Failures::default();
    expel(links, name, bond, port, None, false, &mut errors);
    errors.result()
}

/// Takes a port out of the maps, and the program off it.
fn expel(
    links: &mut RouteSocket,
    name: &str,
    bond: &mut Bond,
    port: PortId,
    link: Option<&Link>,
    had_clsact: bool,
    errors: &mut Failures,
) {
    let others = |now: &InForce| now.applied.tx.among(|kept| kept != port);
    if bond.forwarding.with(|now| now.bpf.lacks_list_for(&others(now))) {
        bond.forwarding.make_room();
    }
    let mut rest = bond.forwarding.with(|now| now.applied.clone());
    bond.forwarding.with(|now| {
        // Before anything else: what is prepared may move the traffic to this port.
        errors.note(step(
            || format!("take back what is prepared of {name}"),
            || now.unprepare().map(drop),
        ));
        now.applied.ports.remove(&port);
        now.applied.steer.retain(|steer| steer.to != port);
        now.lost_allmulti.remove(&port);
        errors.note(now.set_accept(port, Accept::Nothing));
        // What the program on the wire does it can also do through fewer ports.
        let others = others(now);
        if !now.applied.tx.sends_as(&others) {
            errors.note(now.set_tx(others));
        }
    });
    bond.port_holds.remove(&port);
    let take_off = || unhook(links, bond, port, link, had_clsact);
    errors.note_unless_gone(port_step(
        port,
        || format!("take the program off {}", name_of(port)),
        take_off,
    ));
    bond.forwarding.with(|now| {
        let forget = || now.remove_port(port);
        errors.note(step(|| format!("forget {} of {name}", name_of(port)), forget));
        errors.note(now.keep_own([]));
    });
    rest.ports.remove(&port);
    // The loop may have moved the traffic off it long ago, and has no plan then that would prepare the others anew.
    put_in_force(links, &bond.forwarding, &rest);
}

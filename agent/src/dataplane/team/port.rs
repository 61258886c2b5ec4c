//! Ports: taken in and given back.

use bond_modes::PortId;
use bond_modes::plan::{Accept, PortPlan, Source};

use super::bond::{Bond, Shared};
use super::options::{Key, Name, Value};
use super::program::set;
use crate::dataplane::port::{
    MarkOf, as_it_is, mark, prepare, read, read_attached, read_marked, read_orphan, read_unless_gone, restore,
};
use crate::dataplane::step::{Failures, port_step};
use crate::dataplane::{OriginalPort, PlaneError, PortBase};
use crate::netlink::Link;

impl Shared {
    /// Takes a port in; on failure it is as before.
    pub(super) fn take_in(
        &mut self,
        name: &str,
        bond: &mut Bond,
        port: PortId,
        base: &PortBase,
    ) -> Result<(), PlaneError> {
        // The driver has set it up when it took it in.
        if bond.ports.contains_key(&port) {
            return Ok(());
        }
        let before = as_it_is(&mut self.links, port)?;
        let attached = self.set_up_port(name, bond, port, base);
        attached.map_err(|error| {
            let mut errors = Failures::default();
            let link = read_unless_gone(&mut self.links, port, &mut errors);
            self.return_port(bond, port, link, &before, &mut errors);
            errors.after(error)
        })
    }

    /// The driver takes only what is down, and wants the address before. It enables a port at once and counts its carrier, so both
    /// are taken away as soon as there is a way to: the mark of a port of ours first.
    fn set_up_port(&mut self, name: &str, bond: &mut Bond, port: PortId, base: &PortBase) -> Result<(), PlaneError> {
        let links = &mut self.links;
        let mut link = read(links, port)?;
        let text = link.report.name.clone();
        mark(links, name, port, &mut link)?;
        if link.report.admin_up {
            port_step(port, || format!("set {text} down"), || links.set_up(port.0, false))?;
            link.report.admin_up = false;
        }
        prepare(links, name, port, &mut link, base)?;
        let put = || links.set_master(port.0, Some(bond.ifindex));
        port_step(port, || format!("put {text} under {name}"), put)?;
        for (option, value) in [
            (Name::UserLinkupEnabled, Value::Flag(true)),
            (Name::Enabled, Value::Flag(false)),
        ] {
            let doing = || format!("set {} of {text}", option.text());
            set(&mut self.driver, bond, Key::port(option, port), value, doing)?;
        }
        bond.note(Key::port(Name::UserLinkup, port), Value::Flag(false));
        let counted = port_step(
            port,
            || format!("read the counters of {text}"),
            || links.statistics(port.0),
        )?;
        bond.bases.insert(port, counted.unwrap_or_default());
        let plan = PortPlan {
            mac: link.report.mac,
            mtu: base.mtu,
            promisc: false,
            allmulti: false,
            accept: Accept::Nothing,
            source: Source::AsSent,
        };
        bond.ports.insert(port, plan);
        Ok(())
    }

    /// Gives a port back: out of the team, which puts it down with address and MTU as they were right before it came in, then the
    /// settings of the interface.
    pub(super) fn give_back(
        &mut self,
        name: &str,
        bond: &mut Bond,
        port: PortId,
        original: &OriginalPort,
    ) -> Result<bool, PlaneError> {
        let mut errors = Failures::default();
        let links = &mut self.links;
        let link = match bond.ports.contains_key(&port) {
            true => read_attached(links, name, port, &mut errors),
            false => read_marked(links, name, port, &mut errors),
        };
        let is_there = link.is_some();
        self.return_port(bond, port, link, original, &mut errors);
        errors.result().map(|()| is_there)
    }

    /// Gives back a port of a bond that is gone.
    pub(super) fn give_back_orphan(
        &mut self,
        name: &str,
        port: PortId,
        original: &OriginalPort,
    ) -> Result<bool, PlaneError> {
        let mut errors = Failures::default();
        let links = &mut self.links;
        let found = read_orphan(links, name, port, &mut errors);
        let ours = found.filter(|(_, of)| *of == MarkOf::ThisBond);
        if let Some((link, _)) = &ours {
            restore(links, port, link, original, &mut errors);
        }
        errors.result().map(|()| ours.is_some())
    }

    fn return_port(
        &mut self,
        bond: &mut Bond,
        port: PortId,
        link: Option<Link>,
        original: &OriginalPort,
        errors: &mut Failures,
    ) {
        bond.forget(port);
        let left = link.and_then(|link| self.release(port, bond.ifindex, link, errors));
        if let Some(link) = left {
            restore(&mut self.links, port, &link, original, errors);
        }
    }

    /// Takes a port out of the team, if it is in it; its interface after that, if there is one.
    fn release(&mut self, port: PortId, team: u32, link: Link, errors: &mut Failures) -> Option<Link> {
        let links = &mut self.links;
        if link.master != Some(team) {
            return Some(link);
        }
        let free = || links.set_master(port.0, None);
        errors.note_unless_gone(port_step(
            port,
            || format!("take {} out of its team", link.report.name),
            free,
        ));
        read_unless_gone(links, port, errors)
    }
}

//! Ports: taken in, given back, taken over from an earlier agent.

use bond_modes::{PortId, PortPlan};
use bond_monitors::MacAddr;

use super::bpf::RX;
use super::hook::{self, Attached, Place};
use super::pins::unpin;
use super::program::keep_own;
use super::step::{FirstError, HOOK, port_step, step, step_with};
use super::{Bond, TcPlane, unknown};
use crate::dataplane::{OriginalPort, PORT_MARK, PlaneError, PortBase};
use crate::netlink::{Link, Links, sysctl};

impl TcPlane {
    /// What the port is now.
    pub(super) fn read_original(&mut self, port: PortId) -> Result<OriginalPort, PlaneError> {
        let link = read(&mut self.links, port)?;
        let name = &link.report.name;
        let disable_ipv6 = step(
            || format!("read the IPv6 setting of {name}"),
            || sysctl::disable_ipv6(name),
        )?;
        let clsact = port_step(
            port,
            || format!("read the qdiscs of {name}"),
            || self.links.has_clsact(port.0),
        )?;
        let marked = link.alias.starts_with(PORT_MARK);
        Ok(OriginalPort {
            mac: link.report.mac,
            mtu: link.report.mtu,
            admin_up: link.report.admin_up,
            promisc: link.promisc_flag,
            allmulti: link.allmulti_flag && !marked,
            disable_ipv6,
            ifalias: if marked { String::new() } else { link.alias },
            clsact,
        })
    }

    /// Takes a port in; on failure it is as before.
    pub(super) fn take_in(&mut self, name: &str, port: PortId, base: &PortBase) -> Result<(), PlaneError> {
        if self.bond(name)?.applied.ports.contains_key(&port) {
            return Ok(());
        }
        let before = self.read_original(port)?;
        let taken = self.set_up_port(name, port, base, &before);
        if taken.is_err()
            && let Err(error) = self.give_back(name, port, &before)
        {
            log::debug!("{name}: undoing a failed attachment of {port}: {error}");
        }
        taken
    }

    /// Gives a port back. Order: nothing in, nothing out, then the settings of the interface, and IPv6 last, which begins to work
    /// with them at once. The bond itself need not exist any more.
    pub(super) fn give_back(&mut self, name: &str, port: PortId, original: &OriginalPort) -> Result<(), PlaneError> {
        let mut errors = FirstError::default();
        if !self.bonds.contains_key(name) {
            errors.note(self.sweep_pins());
        }
        let links = &mut self.links;
        let link = match read(links, port) {
            Ok(link) => Some(link),
            Err(error) => {
                errors.note_unless_gone(Err(error));
                None
            }
        };
        match (self.bonds.get_mut(name), &link) {
            (Some(bond), link) => expel(links, name, bond, port, link.as_ref(), original, &mut errors),
            // Somebody deleted the bond; tcx links went with its pins.
            (None, Some(link)) => errors.note_unless_gone(drop_filter(links, port, link, original)),
            (None, None) => {}
        }
        if let Some(link) = link {
            restore(links, port, &link, original, &mut errors);
        }
        errors.result()
    }

    /// Takes over the ports that an earlier agent attached: those with counters, as far as they still exist and carry our mark.
    /// Says which ones, with their links.
    pub(super) fn adopt_ports(&mut self, name: &str, bond: &mut Bond) -> Result<Vec<(PortId, Link)>, PlaneError> {
        let known = step(|| format!("read the ports of {name}"), || bond.bpf.ports())?;
        let mut adopted = Vec::new();
        let mut found = Vec::new();
        for port in known {
            found.push((port, step(|| format!("read {port}"), || self.links.by_index(port.0))?));
        }
        // Before the programs that listen.
        let macs = found.iter().filter_map(|(_, link)| Some(link.as_ref()?.report.mac));
        step(|| format!("learn the addresses of {name}"), || bond.bpf.add_own(macs))?;
        for (port, found) in found {
            step(|| format!("listen on {port}"), || bond.bpf.listen(port))?;
            let hooked = match found.as_ref().map(|link| exchange(bond, port, link)) {
                None | Some(Err(PlaneError::PortGone { .. })) => false,
                Some(exchanged) => exchanged?,
            };
            match found {
                // Its mark alone: hook and counters are not set in one step, so a crash may have left one without the other.
                Some(link) if hooked || link.alias == port_alias(name) => {
                    if !hooked {
                        hook_port(bond, port, &link)?;
                    }
                    adopted.push((port, link));
                }
                _ => step(
                    || format!("forget {port} of {name}"),
                    || {
                        bond.port_holds.remove(&port);
                        bond.bpf.remove_port(port)?;
                        unpin(&bond.pins.rx(port))
                    },
                )?,
            }
        }
        adopted.sort_by_key(|(port, _)| *port);
        Ok(adopted)
    }

    /// The settings come first and the hook after the counters, without which the program drops everything; up last, so that no
    /// frame is handled before the hook is there.
    fn set_up_port(
        &mut self,
        name: &str,
        port: PortId,
        base: &PortBase,
        before: &OriginalPort,
    ) -> Result<(), PlaneError> {
        let bond = self.bonds.get_mut(name).ok_or_else(|| unknown(name))?;
        let links = &mut self.links;
        let mut link = read(links, port)?;
        let text = link.report.name.clone();
        let text = text.as_str();
        port_step(
            port,
            || format!("set the alias of {text}"),
            || links.set_alias(port.0, &port_alias(name)),
        )?;
        if before.mtu != base.mtu {
            port_step(
                port,
                || format!("set the MTU of {text}"),
                || links.set_mtu(port.0, base.mtu),
            )?;
        }
        // After the MTU: below 1280 there is no such setting.
        step(
            || format!("turn IPv6 off on {text}"),
            || sysctl::set_disable_ipv6(text, true),
        )?;
        if let Some(mac) = base.mac {
            set_mac(links, port, &link, mac)?;
            link.report.mac = mac;
        }
        // The groups that the stack joins on the bond are not known to the port's filter, so it must let all of them in.
        port_step(
            port,
            || format!("set {text} to all multicast"),
            || links.set_allmulti(port.0, true),
        )?;
        let count = || {
            bond.bpf.add_own([link.report.mac])?;
            bond.bpf.add_port(port)
        };
        step(|| format!("count {text} in {name}"), count)?;
        hook_port(bond, port, &link)?;
        port_step(port, || format!("set {text} up"), || links.set_up(port.0, true))?;
        let plan = PortPlan {
            mac: link.report.mac,
            mtu: base.mtu,
            promisc: link.promisc_flag,
            allmulti: true,
        };
        bond.applied.ports.insert(port, plan);
        Ok(())
    }
}

/// Sets a port's address. Many drivers refuse that while the interface is up; those are taken down for a moment.
pub fn set_mac(links: &mut Links, port: PortId, link: &Link, mac: MacAddr) -> Result<(), PlaneError> {
    if link.report.mac == mac {
        return Ok(());
    }
    let name = &link.report.name;
    port_step(
        port,
        || format!("set the address of {name}"),
        || match links.set_mac(port.0, mac) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && link.report.admin_up => {
                links.set_up(port.0, false)?;
                let done = links.set_mac(port.0, mac);
                links.set_up(port.0, true)?;
                done
            }
            done => done,
        },
    )
}

/// The port's interface, or that it is gone.
pub fn read(links: &mut Links, port: PortId) -> Result<Link, PlaneError> {
    port_step(port, || format!("read {port}"), || links.by_index(port.0))?.ok_or(PlaneError::PortGone { port })
}

/// Puts the settings of an interface back. Down before the address, where it was down: then no driver refuses it.
fn restore(links: &mut Links, port: PortId, link: &Link, original: &OriginalPort, errors: &mut FirstError) {
    let name = &link.report.name;
    let mut now = link.clone();
    if !original.admin_up && link.report.admin_up {
        let down = port_step(port, || format!("set {name} down"), || links.set_up(port.0, false));
        errors.note_unless_gone(down);
        now.report.admin_up = false;
    }
    if link.promisc_flag != original.promisc {
        let promisc = || links.set_promisc(port.0, original.promisc);
        errors.note_unless_gone(port_step(port, || format!("restore promiscuity of {name}"), promisc));
    }
    if link.allmulti_flag != original.allmulti {
        let allmulti = || links.set_allmulti(port.0, original.allmulti);
        errors.note_unless_gone(port_step(port, || format!("restore all-multicast of {name}"), allmulti));
    }
    if link.report.mtu != original.mtu {
        let mtu = || links.set_mtu(port.0, original.mtu);
        errors.note_unless_gone(port_step(port, || format!("restore the MTU of {name}"), mtu));
    }
    errors.note_unless_gone(set_mac(links, port, &now, original.mac));
    if original.admin_up && !link.report.admin_up {
        let up = || links.set_up(port.0, true);
        errors.note_unless_gone(port_step(port, || format!("set {name} up"), up));
    }
    if link.alias != original.ifalias {
        let alias = || links.set_alias(port.0, &original.ifalias);
        errors.note_unless_gone(port_step(port, || format!("restore the alias of {name}"), alias));
    }
    if let Some(off) = original.disable_ipv6 {
        let ipv6 = || sysctl::set_disable_ipv6(name, off);
        errors.note_unless_gone(port_step(port, || format!("restore IPv6 of {name}"), ipv6));
    }
}

fn hook_port(bond: &mut Bond, port: PortId, link: &Link) -> Result<(), PlaneError> {
    let name = &link.report.name;
    let pin = bond.pins.rx(port);
    // Somebody may have tidied up: forwarding goes on without pins, but no new one can be made without their folder.
    step(|| "make a folder for pins".to_owned(), || bond.pins.create())?;
    let kind = bond.hook;
    let attach = || hook::attach(bond.bpf.port_rx(), place(name, &pin), kind);
    let held = step_with(&HOOK, || format!("attach a program to {name}"), attach).map_err(|error| match error {
        PlaneError::Kernel { source, .. } if source.raw_os_error() == Some(libc::ENODEV) => {
            PlaneError::PortGone { port }
        }
        other => other,
    })?;
    bond.port_holds.insert(port, held);
    Ok(())
}

fn exchange(bond: &mut Bond, port: PortId, link: &Link) -> Result<bool, PlaneError> {
    let name = &link.report.name;
    let pin = bond.pins.rx(port);
    let kind = bond.hook;
    let replace = || hook::replace(bond.bpf.port_rx(), place(name, &pin), kind);
    let held = port_step(port, || format!("exchange the program on {name}"), replace)?;
    Ok(held.is_some_and(|hold| {
        bond.port_holds.insert(port, hold);
        true
    }))
}

/// Takes a port out of the maps, and the program off it.
fn expel(
    links: &mut Links,
    name: &str,
    bond: &mut Bond,
    port: PortId,
    link: Option<&Link>,
    original: &OriginalPort,
    errors: &mut FirstError,
) {
    bond.applied.ports.remove(&port);
    bond.applied.rx.remove(&port);
    bond.applied.queues.retain(|_, chosen| *chosen != port);
    bond.deaf.remove(&port);
    let close = || bond.bpf.set_accept(port, None);
    errors.note(step(|| format!("close {port} of {name}"), close));
    let others = bond.applied.tx.among(|kept| kept != port);
    if bond.applied.tx != others {
        let leave = || bond.bpf.set_tx(&others);
        if errors.note(step(
            || format!("stop the transmission of {name} through {port}"),
            leave,
        )) {
            bond.applied.tx = others;
        }
    }
    bond.port_holds.remove(&port);
    let unhook = || match (bond.hook, link) {
        (Attached::Tcx, _) => unpin(&bond.pins.rx(port)),
        (Attached::Clsact, None) => Ok(()),
        // The filter goes with the qdisc.
        (Attached::Clsact, Some(_)) if !original.clsact => links.remove_clsact(port.0),
        (Attached::Clsact, Some(link)) => hook::drop_filter(&link.report.name, RX).map(|_| ()),
    };
    errors.note_unless_gone(port_step(port, || format!("take the program off {port}"), unhook));
    let forget = || bond.bpf.remove_port(port);
    errors.note(step(|| format!("forget {port} of {name}"), forget));
    errors.note(keep_own(name, bond));
}

/// Takes off a filter that outlived its bond, and the qdisc with it if it came with it.
fn drop_filter(links: &mut Links, port: PortId, link: &Link, original: &OriginalPort) -> Result<(), PlaneError> {
    let name = &link.report.name;
    port_step(
        port,
        || format!("take the program off {name}"),
        || match hook::drop_filter(name, RX)? {
            true if !original.clsact => links.remove_clsact(port.0),
            _ => Ok(()),
        },
    )
}

fn place<'a>(interface: &'a str, pin: &'a std::path::Path) -> Place<'a> {
    Place {
        interface,
        pin: Some(pin),
        program: RX,
    }
}

/// What marks a port as ours.
pub(super) fn port_alias(bond: &str) -> String {
    format!("{PORT_MARK}{bond}")
}

//! What every data plane does with the interface of a port: the settings it gets, and gets back.

use std::io;

use bond_modes::PortId;
use bond_monitors::MacAddr;

use super::error::PlaneError;
use super::plane::{OriginalPort, PORT_MARK, PortBase};
use super::step::{Failures, port_step, step};
use crate::netlink::{Link, RouteSocket, sysctl};

/// What a port is now, for [`PlaneBond::detach`](super::PlaneBond::detach) to restore. Asked before it is attached. Leaves out what an earlier attachment
/// left behind (on a port that was moved to another namespace, say), where it can be recognised.
pub fn original(links: &mut RouteSocket, port: PortId) -> Result<OriginalPort, PlaneError> {
    let now = as_it_is(links, port)?;
    let marked = is_mark(&now.ifalias);
    Ok(OriginalPort {
        allmulti: now.allmulti && !marked,
        ifalias: if marked { String::new() } else { now.ifalias },
        ..now
    })
}

/// What an attempt to attach a port that fails puts back: all as it is, also the mark of one that has not got its settings back yet,
/// by which it is known.
pub fn as_it_is(links: &mut RouteSocket, port: PortId) -> Result<OriginalPort, PlaneError> {
    let link = read(links, port)?;
    let name = &link.report.name;
    let disable_ipv6 = step(
        || format!("read the IPv6 setting of {name}"),
        || sysctl::disable_ipv6(name),
    )?;
    let clsact = port_step(
        port,
        || format!("read the qdiscs of {name}"),
        || links.has_clsact(port.0),
    )?;
    Ok(OriginalPort {
        mac: link.report.mac,
        mtu: link.report.mtu,
        admin_up: link.report.admin_up,
        promisc: link.promisc_flag,
        allmulti: link.allmulti_flag,
        disable_ipv6,
        ifalias: link.alias,
        clsact,
    })
}

/// Marks an interface as a port, before anything else of it is changed.
pub fn mark(links: &mut RouteSocket, bond: &str, port: PortId, link: &mut Link) -> Result<(), PlaneError> {
    let (name, alias) = (&link.report.name, port_alias(bond));
    if link.alias != alias {
        port_step(
            port,
            || format!("set the alias of {name}"),
            || links.set_alias(port.0, &alias),
        )?;
        link.alias = alias;
    }
    Ok(())
}

/// Gives an interface the settings of a port, except that it is up: the mark, MTU, no IPv6 of its own, address.
pub fn prepare(
    links: &mut RouteSocket,
    bond: &str,
    port: PortId,
    link: &mut Link,
    base: &PortBase,
) -> Result<(), PlaneError> {
    let name = link.report.name.clone();
    mark(links, bond, port, link)?;
    if link.report.mtu != base.mtu {
        port_step(
            port,
            || format!("set the MTU of {name}"),
            || links.set_mtu(port.0, base.mtu),
        )?;
        link.report.mtu = base.mtu;
    }
    // After the MTU: below 1280 there is no such setting.
    step(
        || format!("turn IPv6 off on {name}"),
        || sysctl::set_disable_ipv6(&name, true),
    )?;
    if let Some(mac) = base.mac {
        set_mac(links, port, link, mac)?;
        link.report.mac = mac;
    }
    Ok(())
}

/// Sets a port's address. Many drivers refuse that while the interface is up; those are taken down for a moment.
pub fn set_mac(links: &mut RouteSocket, port: PortId, link: &Link, mac: MacAddr) -> Result<(), PlaneError> {
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

/// What a port is called where its failures are told. Its index says nothing to who reads them, but is all there is of one that has
/// gone.
pub fn name_of(port: PortId) -> String {
    let name = nix::net::if_::if_indextoname(port.0);
    name.map_or_else(|_| port.to_string(), |name| name.to_string_lossy().into_owned())
}

/// The port's interface, or that it is gone.
pub fn read(links: &mut RouteSocket, port: PortId) -> Result<Link, PlaneError> {
    port_step(port, || format!("read {}", name_of(port)), || links.by_index(port.0))?
        .ok_or(PlaneError::PortGone { port })
}

/// As [`read`], to give the port back. A port that has gone needs nothing given back: that is no failure.
pub fn read_unless_gone(links: &mut RouteSocket, port: PortId, errors: &mut Failures) -> Option<Link> {
    match read(links, port) {
        Ok(link) => Some(link),
        Err(error) => {
            errors.note_unless_gone(Err(error));
            None
        }
    }
}

/// As [`read_unless_gone`], of a port that is attached. It gets the mark again if another program has taken it: should something not
/// be put back, the next attempt looks for it.
pub fn read_attached(links: &mut RouteSocket, bond: &str, port: PortId, errors: &mut Failures) -> Option<Link> {
    let mut link = read_unless_gone(links, port, errors)?;
    errors.note_unless_gone(mark(links, bond, port, &mut link));
    Some(link)
}

/// As [`read_unless_gone`], of an interface that is not attached: also nothing without the mark of this bond. Then it is not the one
/// whose settings are known, or it has them back, or it is another bond's port by now.
pub fn read_marked(links: &mut RouteSocket, bond: &str, port: PortId, errors: &mut Failures) -> Option<Link> {
    let (link, of) = read_orphan(links, bond, port, errors)?;
    (of == MarkOf::ThisBond).then_some(link)
}

/// As [`read_unless_gone`], of an interface that may be a port of a bond that is gone; also whose port it is by its mark.
pub fn read_orphan(links: &mut RouteSocket, bond: &str, port: PortId, errors: &mut Failures) -> Option<(Link, MarkOf)> {
    let link = read_unless_gone(links, port, errors)?;
    let of = match mark_of(links, bond, &link.alias) {
        Ok(of) => of,
        Err(error) => {
            errors.note(Err(error));
            return None;
        }
    };
    if of != MarkOf::ThisBond {
        log_unmarked(bond, &link);
    }
    Some((link, of))
}

fn mark_of(links: &mut RouteSocket, bond: &str, alias: &str) -> Result<MarkOf, PlaneError> {
    let Some(owner) = alias.strip_prefix(PORT_MARK) else {
        return Ok(MarkOf::Nobody);
    };
    // Ports of a bond that was renamed are marked anew as well as that can be done. If an interface has the former name, it may be
    // another bond's port.
    let is_this = owner == bond || step(|| format!("read {owner}"), || links.by_name(owner))?.is_none();
    Ok(if is_this { MarkOf::ThisBond } else { MarkOf::AnotherBond })
}

/// Whose port an interface is by its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkOf {
    ThisBond,
    AnotherBond,
    Nobody,
}

fn log_unmarked(bond: &str, link: &Link) {
    log::warn!(
        "{bond}: {} is not marked as its port, so its settings are left as they are",
        link.report.name
    );
}

/// Whether an alias marks a port of any bond: one that was renamed meanwhile, say.
pub fn is_mark(alias: &str) -> bool {
    alias.starts_with(PORT_MARK)
}

/// Changes a port's address; see [`set_mac`].
pub fn change_mac(links: &mut RouteSocket, port: PortId, mac: MacAddr) -> Result<(), PlaneError> {
    let link = read(links, port)?;
    set_mac(links, port, &link, mac)
}

/// Keeps IPv6 off on a port whose MTU has changed. Below 1280 an interface has no IPv6; from there on it begins anew, with the
/// system's defaults.
pub fn keep_ipv6_off(links: &mut RouteSocket, port: PortId) -> io::Result<()> {
    match links.by_index(port.0)? {
        Some(link) => sysctl::set_disable_ipv6(&link.report.name, true),
        None => Ok(()),
    }
}

/// As [`PlaneBond::keep_ipv6_off`](super::PlaneBond::keep_ipv6_off), of a port that is attached.
pub fn switch_ipv6_off(links: &mut RouteSocket, port: PortId) -> Result<(), PlaneError> {
    let off = || keep_ipv6_off(links, port);
    port_step(port, || format!("switch IPv6 off on {}", name_of(port)), off)
}

/// Puts the settings of an interface back. Down before the address, where it was down: then no driver refuses it. One that another
/// program has given a master stays up for that. The mark goes last, and only if nothing failed, also not in what came before this:
/// another attempt looks for it.
pub fn restore(links: &mut RouteSocket, port: PortId, link: &Link, original: &OriginalPort, errors: &mut Failures) {
    let name = &link.report.name;
    let mut now = link.clone();
    if !original.admin_up && link.report.admin_up && link.master.is_none() {
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
    if let Some(off) = original.disable_ipv6 {
        let ipv6 = || sysctl::set_disable_ipv6(name, off);
        errors.note_unless_gone(port_step(port, || format!("restore IPv6 of {name}"), ipv6));
    }
    if errors.is_empty() && link.alias != original.ifalias {
        let alias = || links.set_alias(port.0, &original.ifalias);
        errors.note_unless_gone(port_step(port, || format!("restore the alias of {name}"), alias));
    }
}

/// What marks a port as ours.
pub fn port_alias(bond: &str) -> String {
    format!("{PORT_MARK}{bond}")
}

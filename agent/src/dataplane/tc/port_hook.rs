//! The program on a port: attached, taken over from an earlier agent, taken off.

use std::io;
use std::path::Path;

use bond_modes::PortId;

use super::bond::Bond;
use super::hook::{self, Attached, Place};
use super::object::{Loader, RX};
use super::pins::unpin;
use super::sys;
use crate::dataplane::port::read;
use crate::dataplane::step::{HOOK, port_step, step, step_with};
use crate::dataplane::{Applied, OriginalPort, PlanPart, PlaneError};
use crate::netlink::{Link, RouteSocket};

/// Attaches the program to a port.
pub(super) fn hook_port(loader: &mut Loader, bond: &mut Bond, port: PortId, link: &Link) -> Result<(), PlaneError> {
    let name = &link.report.name;
    let pin = bond.pins.rx(port);
    // The pins may have been removed: forwarding goes on without pins, but no new one can be made without their folder.
    step(|| "make a folder for pins".to_owned(), || bond.pins.create())?;
    let kind = bond.hook;
    let attach = || {
        hook::attach(
            bond.programs.port_rx(&bond.forwarding, loader)?,
            place(name, port, &pin),
            kind,
        )
    };
    let held = step_with(&HOOK, || format!("attach a program to {name}"), attach).map_err(|error| match error {
        PlaneError::Kernel { source, .. } if source.raw_os_error() == Some(libc::ENODEV) => {
            PlaneError::PortGone { port }
        }
        other => other,
    })?;
    bond.port_holds.insert(port, held);
    Ok(())
}

/// Takes over the program that an earlier agent attached to a port; exchanges it if it may be of another build. Returns whether
/// there was one.
pub(super) fn take_over(
    links: &mut RouteSocket,
    loader: &mut Loader,
    bond: &mut Bond,
    port: PortId,
    link: &Link,
) -> Result<bool, PlaneError> {
    let name = &link.report.name;
    let pin = bond.pins.rx(port);
    let kind = bond.hook;
    let take_over = || {
        if !bond.programs.are_stale()
            && let Some(hold) = hook::keep(links, place(name, port, &pin), kind)?
        {
            return Ok(Some(hold));
        }
        let program = bond.programs.port_rx(&bond.forwarding, loader)?;
        hook::replace(program, place(name, port, &pin), kind)
    };
    let held = port_step(port, || format!("exchange the program on {name}"), take_over)?;
    Ok(held.is_some_and(|hold| {
        bond.port_holds.insert(port, hold);
        true
    }))
}

/// Takes over the programs on ports that could not be taken over when the bond was.
pub(super) fn take_over_rest(
    links: &mut RouteSocket,
    loader: &mut Loader,
    name: &str,
    bond: &mut Bond,
    outcome: &mut Applied,
) {
    let mut rest = bond.ports();
    rest.retain(|port| !bond.port_holds.contains_key(port));
    for port in rest {
        let taken = read(links, port).and_then(|link| match take_over(links, loader, bond, port, &link)? {
            true => Ok(()),
            false => hook_port(loader, bond, port, &link),
        });
        outcome.note(PlanPart::Program(port), taken);
    }
    if bond.programs.are_stale() && bond.holds_all() {
        let mark = || bond.programs.mark_attached(&bond.forwarding);
        outcome.note(PlanPart::Programs, step(|| format!("set up the maps of {name}"), mark));
    }
    bond.note_unfinished();
}

/// Takes the program off a port; `had_clsact` says whether the qdisc is to stay.
pub(super) fn unhook(
    links: &mut RouteSocket,
    bond: &Bond,
    port: PortId,
    link: Option<&Link>,
    had_clsact: bool,
) -> io::Result<()> {
    match (bond.hook, link) {
        (Attached::Tcx | Attached::Netkit, _) => {
            let pin = bond.pins.rx(port);
            sys::detach_link(&pin)?;
            unpin(&pin)
        }
        (Attached::Clsact, None) => Ok(()),
        (Attached::Clsact, Some(link)) => hook::take_off(links, &link.report.name, port.0, RX, had_clsact).map(drop),
    }
}

/// Takes off a filter that outlived its bond.
pub(super) fn drop_filter(
    links: &mut RouteSocket,
    port: PortId,
    link: &Link,
    original: &OriginalPort,
) -> Result<(), PlaneError> {
    let name = &link.report.name;
    let take_off = || hook::take_off(links, name, port.0, RX, original.clsact).map(drop);
    port_step(port, || format!("take the program off {name}"), take_off)
}

/// Where the program of a port is attached.
pub(super) fn place<'a>(interface: &'a str, port: PortId, pin: &'a Path) -> Place<'a> {
    Place {
        interface,
        ifindex: port.0,
        pin: Some(pin),
        program: RX,
    }
}

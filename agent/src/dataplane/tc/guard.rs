//! What this plane has in the kernel for a bond and no event reports: how it is seen whether that is there, and how it is put back.
//!
//! | What | How it is seen | How it is put back |
//! |---|---|---|
//! | pins | by the names in their folder | pinned again, from what this process and the programs hold |
//! | wire | by the name that its index has | once it is back: set up as when the bond was made |
//! | program on the wire, or on a netkit device | the link says where it is; clsact: the filters of the interface | attached again |
//! | programs on ports | likewise | likewise |
//!
//! All bonds are looked after all the time, so a look takes few requests, and of the kernel's RTNL lock none where the programs are on
//! links. What seems amiss is looked at more closely: whatever has gone with an interface is no work of another program.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use aya::maps::MapData;
use bond_modes::PortId;
use bond_modes::plan::Accept;

use super::bond::{Bond, Planning};
use super::device::{settle_wire, tx_place, wire_name};
use super::errors::map_error;
use super::hook::{self, Hold};
use super::port_hook::{hook_port, place};
use super::program::put_on_wire;
use super::sys;
use crate::dataplane::port::{name_of, read};
use crate::dataplane::step::{BPF, HOOK, bond_gone, step, step_with};
use crate::dataplane::{Amiss, Kept, PlaneError};
use crate::netlink::{Link, RouteSocket};

/// How one of them is seen and put back.
struct Row {
    is_right: fn(&mut RouteSocket, &str, &Bond) -> io::Result<bool>,
    put_back: fn(&mut Planning, &str, &mut Bond) -> Result<(), PlaneError>,
}

const PINS: Row = Row {
    is_right: |_, _, bond| are_pinned(bond),
    put_back: |planning, name, bond| pin_again(planning, name, bond),
};
const WIRE: Row = Row {
    is_right: |_, _, bond| Ok(!bond.wire_left && name_of(PortId(bond.wire)) == wire_name(bond.ifindex)),
    put_back: take_wire_back,
};
const TX: Row = Row {
    is_right: is_tx_there,
    put_back: |planning, name, bond| match is_tx_there(&mut planning.links, name, bond) {
        // A change that came first did it.
        Ok(true) => Ok(()),
        _ => put_tx_back(planning, bond),
    },
};

/// The programs on ports are as many as there are ports.
fn row_of(what: Kept) -> Option<&'static Row> {
    match what {
        Kept::Pins => Some(&PINS),
        Kept::Wire => Some(&WIRE),
        Kept::Tx => Some(&TX),
        Kept::Rx(_) => None,
    }
}

/// Those that are not as they are to be.
pub(super) fn amiss(links: &mut RouteSocket, name: &str, bond: &mut Bond) -> Result<Vec<Amiss>, PlaneError> {
    let mut suspect = Vec::new();
    let ports: Vec<Kept> = bond.port_holds.keys().map(|port| Kept::Rx(*port)).collect();
    for what in [Kept::Pins, Kept::Wire, Kept::Tx].into_iter().chain(ports) {
        // What a program is on may be gone, which is for the closer look.
        let is_right = match (row_of(what), what) {
            (Some(row), _) => (row.is_right)(links, name, bond),
            (None, Kept::Rx(port)) => is_rx_there(links, bond, port),
            (None, _) => Ok(true),
        };
        if !is_right.unwrap_or(false) {
            suspect.push(what);
        }
    }
    if suspect.is_empty() {
        return Ok(Vec::new());
    }
    let device = step(|| format!("read {name}"), || links.by_index(bond.ifindex))?;
    // It is gone, which its event says.
    let Some(device) = device else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for what in suspect {
        if let Some(amiss) = look_closely(links, name, bond, &device, what)? {
            found.push(amiss);
        }
    }
    Ok(found)
}

/// Something seems amiss: what it is, in words, if it is.
fn look_closely(
    links: &mut RouteSocket,
    name: &str,
    bond: &mut Bond,
    device: &Link,
    what: Kept,
) -> Result<Option<Amiss>, PlaneError> {
    let is_away = device.far_end().is_none();
    match what {
        Kept::Pins => {
            let missing = step(|| format!("read the pins of {name}"), || missing_pins(bond))?;
            let done = || format!("removed pins of it ({})", missing.join(" "));
            let lacks = "go on forwarding without bondd".to_owned();
            Ok((!missing.is_empty()).then(|| mendable(what, done(), "pinning them again", lacks, false)))
        }
        Kept::Wire => Ok(look_at_wire(bond, device)),
        // It comes back with the wire.
        Kept::Tx if is_away || bond.wire_left => Ok(None),
        Kept::Tx => {
            let wire = wire_name(bond.ifindex);
            let (interface, _) = bond.kind.end_with_tx((name, bond.ifindex), (wire.as_str(), bond.wire));
            let is_there = is_tx_there(links, name, bond).map_or_else(not_read(name), Ok)?;
            let done = format!("took the program off {interface}");
            Ok((!is_there).then(|| mendable(what, done, ATTACHING, "send anything".to_owned(), true)))
        }
        Kept::Rx(port) => {
            let of = name_of(port);
            // One that is gone is told by its event.
            let is_there = step(|| format!("read {of}"), || links.by_index(port.0))?.is_none()
                || is_rx_there(links, bond, port).map_or_else(not_read(name), Ok)?;
            let (done, lacks) = (
                format!("took the program off {of}"),
                format!("take in what {of} receives"),
            );
            Ok((!is_there).then(|| mendable(what, done, ATTACHING, lacks, is_only_one(bond, port))))
        }
    }
}

fn look_at_wire(bond: &mut Bond, device: &Link) -> Option<Amiss> {
    let wire = wire_name(bond.ifindex);
    let lacks = "send or receive anything".to_owned();
    match device.far_end() {
        None => {
            bond.wire_left = true;
            // Nor is what ports receive to go to another interface with that index.
            if let Err(error) = bond.forwarding.with(|now| now.bpf.set_wire(0)) {
                log::debug!("{wire}: {error}");
            }
            let done = format!("moved its far end, {wire}, to another network namespace");
            let why = format!(
                "another program {done}; there, `ip link set {wire} netns {}` moves it back",
                std::process::id()
            );
            Some(Amiss {
                what: Kept::Wire,
                done,
                mending: None,
                lacks,
                why,
                is_cut: true,
            })
        }
        // It only has another name.
        Some(index) if index == bond.wire && !bond.wire_left => None,
        Some(_) => {
            let done = format!("moved its far end, {wire}, away and back");
            Some(mendable(Kept::Wire, done, "setting it up again", lacks, true))
        }
    }
}

fn mendable(what: Kept, done: String, mending: &'static str, lacks: String, is_cut: bool) -> Amiss {
    Amiss {
        what,
        done,
        mending: Some(mending),
        lacks,
        why: String::new(),
        is_cut,
    }
}

const ATTACHING: &str = "attaching it again";

fn not_read(name: &str) -> impl FnOnce(io::Error) -> Result<bool, PlaneError> {
    move |error| step(|| format!("find the programs of {name}"), || Err(error))
}

/// Puts it back.
pub(super) fn put_back(planning: &mut Planning, name: &str, bond: &mut Bond, what: Kept) -> Result<(), PlaneError> {
    let done = match (row_of(what), what) {
        (Some(row), _) => (row.put_back)(planning, name, bond),
        (None, Kept::Rx(port)) => put_rx_back(planning, bond, port),
        (None, _) => Ok(()),
    };
    bond.programs.close();
    done
}

/// Sees to it that all that forwards is pinned.
pub(super) fn outlive(planning: &mut Planning, name: &str, bond: &mut Bond) -> Result<(), PlaneError> {
    match step(|| format!("read the pins of {name}"), || are_pinned(bond))? {
        true => Ok(()),
        false => put_back(planning, name, bond, Kept::Pins),
    }
}

fn are_pinned(bond: &Bond) -> io::Result<bool> {
    Ok(missing_pins(bond)?.is_empty())
}

/// Names of pins that are not there.
fn missing_pins(bond: &Bond) -> io::Result<Vec<String>> {
    let there = bond.pins.names()?;
    let maps = bond.programs.pin_names().iter().map(|name| (*name).to_owned());
    let links = held(bond).map(|(pin, _)| pin.file_name().unwrap_or_default().to_string_lossy().into_owned());
    Ok(maps.chain(links).filter(|name| !there.contains(name)).collect())
}

/// The links that this process holds, and where they are pinned.
fn held(bond: &Bond) -> impl Iterator<Item = (PathBuf, &Hold)> {
    let ports = bond.port_holds.iter().map(|(port, hold)| (bond.pins.rx(*port), hold));
    std::iter::once((bond.pins.tx(), &bond.tx_hold))
        .chain(ports)
        .filter(|(_, hold)| hold.is_some())
}

fn pin_again(planning: &mut Planning, name: &str, bond: &mut Bond) -> Result<(), PlaneError> {
    let pin = || {
        bond.pins.create_private()?;
        let in_use = maps_in_use(bond);
        bond.programs
            .pin_again(&bond.forwarding, &mut planning.loader, &in_use)?;
        held(bond).try_for_each(|(pin, hold)| hook::keep_pinned(hold, &pin))
    };
    step_with(&BPF, || format!("pin the maps and links of {name} again"), pin)
}

/// Those that attached programs use, by name, as far as their links tell that.
fn maps_in_use(bond: &Bond) -> BTreeMap<String, MapData> {
    let open = |id| {
        let map = MapData::from_id(id).map_err(map_error).ok()?;
        let name = map.info().ok()?.name_as_str()?.to_owned();
        Some((name, map))
    };
    // Each program uses maps that others do not.
    let links = bond.tx_hold.iter().chain(bond.port_holds.values().flatten().take(1));
    let maps = links.filter_map(|link| sys::maps_of_link(link.as_fd()).ok()).flatten();
    let maps: BTreeSet<u32> = maps.collect();
    maps.into_iter().filter_map(open).collect()
}

fn is_tx_there(links: &mut RouteSocket, name: &str, bond: &Bond) -> io::Result<bool> {
    let (wire, pin) = (wire_name(bond.ifindex), bond.pins.tx());
    let place = tx_place(bond.kind, (name, bond.ifindex), (&wire, bond.wire), &pin);
    hook::is_held(links, place, &bond.tx_hold)
}

fn put_tx_back(planning: &mut Planning, bond: &mut Bond) -> Result<(), PlaneError> {
    let wire = wire_name(bond.ifindex);
    let attach = || put_on_wire(&mut planning.loader, bond);
    step_with(&HOOK, || format!("attach a program to {wire}"), attach)
}

fn is_rx_there(links: &mut RouteSocket, bond: &Bond, port: PortId) -> io::Result<bool> {
    let pin = bond.pins.rx(port);
    match bond.port_holds.get(&port) {
        Some(hold) => hook::is_held(links, place("", port, &pin), hold),
        // It is still to be taken over.
        None => Ok(true),
    }
}

fn put_rx_back(planning: &mut Planning, bond: &mut Bond, port: PortId) -> Result<(), PlaneError> {
    if is_rx_there(&mut planning.links, bond, port).is_ok_and(|there| there) {
        return Ok(());
    }
    let link = read(&mut planning.links, port)?;
    hook_port(&mut planning.loader, bond, port, &link)
}

/// Whether what the bond lets in comes by this port alone.
fn is_only_one(bond: &Bond, port: PortId) -> bool {
    bond.forwarding.with(|now| {
        let lets_in = now
            .applied
            .ports
            .iter()
            .filter(|(_, plan)| plan.accept != Accept::Nothing);
        lets_in.map(|(of, _)| *of).eq([port])
    })
}

/// The wire was in another network namespace, where it may have got another index.
fn take_wire_back(planning: &mut Planning, name: &str, bond: &mut Bond) -> Result<(), PlaneError> {
    let links = &mut planning.links;
    let device = step(|| format!("read {name}"), || links.by_index(bond.ifindex))?.ok_or_else(|| bond_gone(name))?;
    let Some(wire) = device.far_end() else { return Ok(()) };
    settle_wire(links, wire)?;
    let set = || bond.forwarding.with(|now| now.bpf.set_wire(wire));
    step(|| format!("set up the maps of {name}"), set)?;
    bond.wire = wire;
    put_tx_back(planning, bond)?;
    bond.wire_left = false;
    Ok(())
}

//! From the plan in force to the wanted one.
//!
//! Make before break:
//! 1. addresses that are about to be ours, then accept on ports that are to let in more than now;
//! 2. addresses, MTUs and promiscuity of ports, address of the bond;
//! 3. the transmit selector: the moment at which the traffic moves, to a port or to a list prepared before it; or, where the way
//!    of spreading is another, the exchange of the program on the wire; then where marked frames leave, which leave with the
//!    others until they have a port of their own;
//! 4. carrier of the bond, which thus comes on when frames have a way out, and goes off when they have none;
//! 5. stop accepting on the other ports, and forget addresses that were ours.
//!
//! If nothing but the active port changes, that is a few map writes. A step that fails is left out of what counts as in force,
//! so the next plan tries it again, and does not stop the others: the rest of a plan is good for the rest of the bond.

use std::io;

use bond_modes::plan::{Accept, PortPlan, Tx};
use bond_modes::{ForwardingPlan, PortId};
use bond_monitors::MacAddr;

use super::bond::Bond;
use super::device::wire_name;
use super::hook::{self, Place};
use super::object::{Loader, TX, Way};
use super::port_hook::take_over_rest;
use super::queues;
use crate::dataplane::step::{port_step, step};
use crate::dataplane::{Applied, PlanPart, PlaneError, port};
use crate::netlink::RouteSocket;

/// Makes the kernel match `plan`, writing only what differs from `bond.applied`, and keeps the latter true.
pub fn apply(
    links: &mut RouteSocket,
    loader: &mut Loader,
    name: &str,
    bond: &mut Bond,
    plan: &ForwardingPlan,
) -> Applied {
    let mut outcome = Applied::default();
    take_over_rest(links, loader, name, bond, &mut outcome);
    let add = || bond.bpf.add_own(addresses(plan));
    outcome.note(
        PlanPart::OwnMacs,
        step(|| format!("add to the own addresses of {name}"), add),
    );
    if bridged(plan) {
        outcome.note(PlanPart::Senders, remember_all(name, bond, true));
    }
    prepare_ports(links, name, bond, plan, &mut outcome);
    if bond.applied.mac != plan.mac {
        let set = || links.set_mac(bond.ifindex, plan.mac);
        if outcome.note_mac(bond.applied.mac, step(|| format!("set the address of {name}"), set)) {
            bond.applied.mac = plan.mac;
        }
    }
    transmit(loader, name, bond, &plan.tx, &mut outcome);
    queues::steer(links, name, bond, &plan.steer, &mut outcome);
    if bond.applied.carrier != plan.carrier {
        let set = || links.set_up(bond.wire, plan.carrier.is_on());
        if outcome.note(PlanPart::Carrier, step(|| format!("set the carrier of {name}"), set)) {
            bond.applied.carrier = plan.carrier;
        }
    }
    let accepted = bond.applied.ports.iter().map(|(port, now)| (*port, now.accept));
    for (port, now) in accepted.collect::<Vec<_>>() {
        let wanted = plan.ports.get(&port).map_or(Accept::Nothing, |port| port.accept);
        if now != wanted {
            outcome.note(PlanPart::Accept(port), set_accept(name, bond, port, wanted));
        }
    }
    outcome.note(PlanPart::OwnMacs, keep_own(name, bond));
    if !bridged(&bond.applied) {
        outcome.note(PlanPart::Senders, remember_all(name, bond, false));
    }
    outcome
}

/// What ports need before traffic moves to them: wider rules, their interface's settings, and every group.
fn prepare_ports(links: &mut RouteSocket, name: &str, bond: &mut Bond, plan: &ForwardingPlan, outcome: &mut Applied) {
    for (&port, wanted) in &plan.ports {
        match bond.applied.ports.get(&port) {
            Some(now) if wider(now.accept, wanted.accept) => {
                outcome.note(PlanPart::Accept(port), set_accept(name, bond, port, wanted.accept));
            }
            Some(_) => {}
            // It has just left, and the next plan will not name it.
            None => {
                outcome.note(PlanPart::Port(port), Err(PlaneError::PortGone { port }));
            }
        }
    }
    for (&port, wanted) in &plan.ports {
        if let Some(now) = bond.applied.ports.get(&port).copied() {
            configure_port(links, bond, port, now, *wanted, outcome);
        }
    }
    for port in bond.lost_allmulti.clone() {
        let hear = || links.set_allmulti(port.0, true);
        let heard = port_step(port, || format!("set {port} to all multicast"), hear);
        if outcome.note(PlanPart::Allmulti(port), heard) {
            bond.lost_allmulti.remove(&port);
        }
    }
}

/// Remembers the senders that the plan in force asks for.
pub fn remember_senders(name: &str, bond: &mut Bond) -> Result<(), PlaneError> {
    let all = bridged(&bond.applied);
    remember_all(name, bond, all)
}

/// Whether a bridge stands above, which asks for promiscuity.
fn bridged(plan: &ForwardingPlan) -> bool {
    plan.ports.values().any(|port| port.promisc)
}

/// Under a bridge all senders above are remembered: a switch may flood what each of them sends.
fn remember_all(name: &str, bond: &mut Bond, all: bool) -> Result<(), PlaneError> {
    step(
        || format!("change which senders {name} remembers"),
        || bond.bpf.remember_all(all),
    )
}

/// Sets the addresses of the bond and its ports, as they are in force, as its own; no others.
pub fn keep_own(name: &str, bond: &mut Bond) -> Result<(), PlaneError> {
    let own = addresses(&bond.applied).collect();
    step(|| format!("set the own addresses of {name}"), || bond.bpf.set_own(&own))
}

fn addresses(plan: &ForwardingPlan) -> impl Iterator<Item = MacAddr> {
    std::iter::once(plan.mac).chain(plan.ports.values().map(|port| port.mac))
}

/// A port that is not attached costs the others nothing: they are programmed without it. With none left, all stays as it is.
fn transmit(loader: &mut Loader, name: &str, bond: &mut Bond, wanted: &Tx, outcome: &mut Applied) {
    let mut gone = false;
    for port in wanted.named() {
        if !bond.applied.ports.contains_key(&port) {
            outcome.note(PlanPart::Tx, Err(PlaneError::PortGone { port }));
            gone = true;
        }
    }
    let possible = wanted.among(|port| bond.applied.ports.contains_key(&port));
    if gone && possible.is_nowhere() {
        return;
    }
    if bond.applied.tx.sends_as(&possible) {
        // Without ports only the kind can differ. A program that can do it is loaded when there is a port to send through.
        bond.applied.tx = possible;
        return;
    }
    let set = || set_tx(loader, bond, &possible);
    if outcome.note(PlanPart::Tx, step(|| format!("move the transmission of {name}"), set)) {
        bond.applied.tx = possible;
    }
}

/// Moves the traffic, also to another program where the one on the wire cannot do it: that is loaded beside it, on the same maps,
/// and reads a selector of its own, so that each frame is handled by the old program with the old policy or by the new one with the
/// new.
pub fn set_tx(loader: &mut Loader, bond: &mut Bond, tx: &Tx) -> io::Result<()> {
    let before = bond.bpf.way();
    let way = match Way::of(tx) {
        Some(way) if !before.serves(tx) => way,
        _ => return bond.bpf.set_tx(tx),
    };
    bond.bpf.begin_way(way, tx)?;
    let exchanged = exchange(loader, bond);
    if exchanged.is_err() {
        // The one before is still on the wire.
        bond.bpf.end_way(before)?;
    } else {
        bond.bpf.end_way(way)?;
    }
    exchanged
}

/// Puts the program of the bond's way on the wire in place of another.
fn exchange(loader: &mut Loader, bond: &mut Bond) -> io::Result<()> {
    let wire = wire_name(bond.ifindex);
    let pin = bond.pins.tx();
    let place = Place {
        interface: &wire,
        pin: Some(&pin),
        program: TX,
    };
    hook::keep_pinned(&bond.wire_hold, place)?;
    let program = bond.bpf.bond_tx(loader)?;
    bond.wire_hold = match hook::replace(program, place, bond.hook)? {
        Some(hold) => hold,
        // Another program took it off.
        None => hook::attach(program, place, bond.hook)?,
    };
    Ok(())
}

fn wider(now: Accept, wanted: Accept) -> bool {
    matches!(
        (now, wanted),
        (Accept::Nothing, Accept::Unicast | Accept::All) | (Accept::Unicast, Accept::All)
    )
}

fn set_accept(name: &str, bond: &mut Bond, port: PortId, accept: Accept) -> Result<(), PlaneError> {
    let doing = || format!("change what {name} lets in from {port}");
    step(doing, || bond.bpf.set_accept(port, accept))?;
    if let Some(now) = bond.applied.ports.get_mut(&port) {
        now.accept = accept;
    }
    Ok(())
}

/// All-multicast is not among the settings: an attached port has it in any case.
fn configure_port(
    links: &mut RouteSocket,
    bond: &mut Bond,
    port: PortId,
    now: PortPlan,
    wanted: PortPlan,
    outcome: &mut Applied,
) {
    let mut done = PortPlan {
        allmulti: wanted.allmulti,
        ..now
    };
    if now.mac != wanted.mac && outcome.note(PlanPart::PortMac(port), port::change_mac(links, port, wanted.mac)) {
        done.mac = wanted.mac;
    }
    if now.mtu != wanted.mtu {
        let set = || {
            links.set_mtu(port.0, wanted.mtu)?;
            port::keep_ipv6_off(links, port)
        };
        let set = port_step(port, || format!("set the MTU of {port}"), set);
        if outcome.note(PlanPart::Mtu(port), set) {
            done.mtu = wanted.mtu;
        }
    }
    if now.promisc != wanted.promisc {
        let set = || links.set_promisc(port.0, wanted.promisc);
        let set = port_step(port, || format!("set the promiscuity of {port}"), set);
        if outcome.note(PlanPart::Promisc(port), set) {
            done.promisc = wanted.promisc;
        }
    }
    bond.applied.ports.insert(port, done);
}

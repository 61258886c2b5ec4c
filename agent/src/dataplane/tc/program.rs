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
//!
//! Meanwhile another thread may move the traffic by a newer plan, so every step reads anew which plan counts.

use std::io;

use bond_modes::plan::PortPlan;
use bond_modes::{ForwardingPlan, PortId};

use super::bond::Bond;
use super::device::tx_place;
use super::failover::prepare;
use super::forwarding::{Forwarding, addresses};
use super::hook;
use super::object::Loader;
use super::port_hook::take_over_rest;
use super::{queues, traffic};
use crate::dataplane::step::{port_step, step};
use crate::dataplane::{Applied, PlanPart, port};
use crate::netlink::RouteSocket;

/// Makes the kernel match `plan`, or a newer one by which the traffic was moved, writing only what differs from what is in force,
/// and keeps that true.
pub fn apply(
    links: &mut RouteSocket,
    loader: &mut Loader,
    name: &str,
    bond: &mut Bond,
    plan: &ForwardingPlan,
) -> Applied {
    bond.forwarding.with(|now| now.programming = true);
    let mut outcome = Applied::default();
    take_over_rest(links, loader, name, bond, &mut outcome);
    make(links, loader, name, bond, plan, &mut outcome);
    finish(links, &bond.forwarding, plan, &mut outcome);
    bond.forwarding.with(|now| now.programming = false);
    bond.programs.close();
    outcome
}

/// All up to the moment from which on nothing needs what was.
fn make(
    links: &mut RouteSocket,
    loader: &mut Loader,
    name: &str,
    bond: &mut Bond,
    plan: &ForwardingPlan,
    outcome: &mut Applied,
) {
    let forwarding = bond.forwarding.clone();
    forwarding.with_newest(plan, |now, plan| traffic::open(now, plan, outcome));
    prepare_ports(links, &forwarding, plan, outcome);
    set_address(links, name, bond, plan, outcome);
    if forwarding.with_newest(plan, |now, plan| traffic::lacks_list(now, plan)) {
        forwarding.make_room();
    }
    forwarding.with_newest(plan, |now, plan| traffic::transmit(now, plan, outcome));
    let exchange = || exchange(loader, bond, plan);
    outcome.note(
        PlanPart::Tx,
        step(|| format!("move the transmission of {name}"), exchange),
    );
    let tie = forwarding.with_newest(plan, |now, plan| queues::needs_tie(now, &plan.steer));
    if tie
        && outcome.note(
            PlanPart::Steer,
            queues::tie_unmarked(links, name, [bond.ifindex, bond.wire]),
        )
    {
        forwarding.with(|now| now.steered = true);
    }
    forwarding.with_newest(plan, |now, plan| queues::steer(now, &plan.steer, outcome));
    set_carrier(links, name, bond, plan, outcome);
}

fn finish(links: &mut RouteSocket, forwarding: &Forwarding, plan: &ForwardingPlan, outcome: &mut Applied) {
    forwarding.with_newest(plan, |now, newest| {
        traffic::close(now, newest, outcome);
        // Those of a newer plan are about to be ours.
        let coming = addresses(newest).filter(|_| newest != plan);
        outcome.note(PlanPart::OwnMacs, now.keep_own(coming));
    });
    prepare::put_in_force(links, forwarding, plan);
}

fn set_address(links: &mut RouteSocket, name: &str, bond: &Bond, plan: &ForwardingPlan, outcome: &mut Applied) {
    let (known, wanted) = bond
        .forwarding
        .with_newest(plan, |now, plan| (now.applied.mac, plan.mac));
    if known != wanted {
        let set = || links.set_mac(bond.ifindex, wanted);
        if outcome.note_mac(known, step(|| format!("set the address of {name}"), set)) {
            bond.forwarding.with(|now| now.applied.mac = wanted);
        }
    }
}

fn set_carrier(links: &mut RouteSocket, name: &str, bond: &Bond, plan: &ForwardingPlan, outcome: &mut Applied) {
    let (known, wanted) = bond
        .forwarding
        .with_newest(plan, |now, plan| (now.applied.carrier, plan.carrier));
    // Another interface may have its index while it is in another network namespace.
    if known != wanted && !bond.wire_left {
        let set = || links.set_up(bond.wire, wanted.is_on());
        if outcome.note(PlanPart::Carrier, step(|| format!("set the carrier of {name}"), set)) {
            bond.forwarding.with(|now| now.applied.carrier = wanted);
        }
    }
}

/// What the interfaces of ports need before traffic moves to them: their settings, and every group.
fn prepare_ports(links: &mut RouteSocket, forwarding: &Forwarding, plan: &ForwardingPlan, outcome: &mut Applied) {
    for port in forwarding.with(|now| now.applied.ports.keys().copied().collect::<Vec<_>>()) {
        let settings = forwarding.with_newest(plan, |now, plan| {
            Some((*now.applied.ports.get(&port)?, *plan.ports.get(&port)?))
        });
        if let Some((known, wanted)) = settings {
            configure_port(links, forwarding, port, known, wanted, outcome);
        }
    }
    for port in forwarding.with(|now| now.lost_allmulti.clone()) {
        let hear = || links.set_allmulti(port.0, true);
        let heard = port_step(port, || format!("set {} to all multicast", port::name_of(port)), hear);
        if outcome.note(PlanPart::Allmulti(port), heard) {
            forwarding.with(|now| now.lost_allmulti.remove(&port));
        }
    }
}

/// Where the program on the wire cannot do the plan, puts one there that can. It is loaded beside the other, on the same maps, and
/// reads a selector of its own, so that each frame is handled by the old program with the old policy or by the new one with the
/// new.
fn exchange(loader: &mut Loader, bond: &mut Bond, plan: &ForwardingPlan) -> io::Result<()> {
    let forwarding = bond.forwarding.clone();
    let begun = forwarding.with_newest(plan, |now, plan| match traffic::other_way(now, plan) {
        Some((way, tx)) => now.bpf.begin_way(way, &tx).map(|()| true),
        None => Ok(false),
    })?;
    if !begun {
        return Ok(());
    }
    let exchanged = put_on_wire(loader, bond);
    forwarding.with(|now| {
        // If that failed, the one before is still on the wire.
        if let Some(tx) = now.bpf.end_way(exchanged.is_ok()) {
            now.applied.tx = tx;
        }
        now.bpf.set_state(bond.programs.build())
    })?;
    exchanged
}

/// Puts the program of the bond's next way on the wire in place of another.
pub(super) fn put_on_wire(loader: &mut Loader, bond: &mut Bond) -> io::Result<()> {
    let name = bond.forwarding.with(|now| now.name.clone());
    // Another program may have given it another name.
    let wire = port::name_of(PortId(bond.wire));
    let pin = bond.pins.tx();
    let place = tx_place(bond.kind, (&name, bond.ifindex), (&wire, bond.wire), &pin);
    let hook = bond.kind.tx_hook(bond.hook);
    hook::keep_pinned(&bond.tx_hold, &pin)?;
    let program = bond.programs.bond_tx(&bond.forwarding, loader)?;
    bond.tx_hold = match hook::replace(program, place, hook)? {
        Some(hold) => hold,
        // Another program took it off.
        None => hook::attach(program, place, hook)?,
    };
    Ok(())
}

fn configure_port(
    links: &mut RouteSocket,
    forwarding: &Forwarding,
    port: PortId,
    now: PortPlan,
    wanted: PortPlan,
    outcome: &mut Applied,
) {
    let mut done = now;
    if now.mac != wanted.mac && outcome.note(PlanPart::PortMac(port), port::change_mac(links, port, wanted.mac)) {
        done.mac = wanted.mac;
    }
    if now.mtu != wanted.mtu {
        let set = || {
            links.set_mtu(port.0, wanted.mtu)?;
            port::keep_ipv6_off(links, port)
        };
        let set = port_step(port, || format!("set the MTU of {}", port::name_of(port)), set);
        if outcome.note(PlanPart::Mtu(port), set) {
            done.mtu = wanted.mtu;
        }
    }
    if now.promisc != wanted.promisc {
        let set = || links.set_promisc(port.0, wanted.promisc);
        let set = port_step(port, || format!("set the promiscuity of {}", port::name_of(port)), set);
        if outcome.note(PlanPart::Promisc(port), set) {
            done.promisc = wanted.promisc;
        }
    }
    forwarding.with(|now| {
        if let Some(now) = now.applied.ports.get_mut(&port) {
            (now.mac, now.mtu, now.promisc) = (done.mac, done.mtu, done.promisc);
        }
    });
}

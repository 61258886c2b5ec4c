//! The steps of a plan that are map writes only, and so need no lock of the kernel but the map's: what a failover is.
//!
//! None of them waits. Where the traffic is to move to a list of ports and there is no room for another one, it moves as soon as there
//! is; see [`restock`](super::restock).

use std::collections::BTreeSet;
use std::io;

use bond_modes::plan::{Accept, PortPlan, Tx};
use bond_modes::{ForwardingPlan, PortId};
use bond_monitors::ReceiveStamps;

use super::failover::prepare;
use super::forwarding::{Forwarding, InForce, addresses, bridged};
use super::object::Way;
use super::queues;
use crate::dataplane::port::name_of;
use crate::dataplane::step::step;
use crate::dataplane::{Applied, Followed, PlanPart, PlaneError, PortCounters, Traffic, can};

impl Traffic for Forwarding {
    fn follow(&mut self, plan: &ForwardingPlan) -> Followed {
        self.with(|now| {
            if let Err(error) = can::check(plan) {
                let applied = Applied::refused(error, now.applied.mac, plan);
                return Followed { applied, rest: false };
            }
            now.wanted = Some(plan.clone());
            let mut applied = Applied::default();
            open(now, plan, &mut applied);
            transmit(now, plan, &mut applied);
            transmit_meanwhile(now, plan, &mut applied);
            if !queues::needs_tie(now, &plan.steer) {
                queues::steer(now, &plan.steer, &mut applied);
            }
            close(now, plan, &mut applied);
            prepare::follow(now, plan);
            let rest = is_behind(now, plan);
            Followed { applied, rest }
        })
    }

    fn counters(&mut self, port: PortId) -> Result<PortCounters, PlaneError> {
        let read = || self.with(|now| now.bpf.counters(port));
        step(|| format!("read the counters of {}", name_of(port)), read)
    }

    fn fails_over(&self) -> Result<bool, String> {
        self.with(|now| match &now.prepared {
            Some(_) => Ok(prepare::stands(now).unwrap_or(false)),
            None => Err(now.why_unprepared.clone()),
        })
    }

    fn why_unprepared(&self) -> Option<String> {
        self.with(|now| now.prepared.as_ref()?.failed.clone())
    }

    fn overtaken(&mut self) -> Result<(), PlaneError> {
        self.with(|now| {
            let doing = format!("read what the kernel made of {}", now.name);
            step(|| doing, || read_again(now))
        })
    }

    fn heard(&mut self, port: PortId) -> Result<ReceiveStamps, PlaneError> {
        let read = || self.with(|now| now.bpf.heard(port));
        step(|| format!("read the stamps of {}", name_of(port)), read)
    }
}

fn read_again(now: &mut InForce) -> io::Result<()> {
    now.applied.tx = now.bpf.tx()?;
    for (port, known) in &mut now.applied.ports {
        known.accept = now.bpf.accept(*port)?;
    }
    now.unprepare().map(drop)
}

/// What is needed before the traffic moves: addresses that are about to be ours, and wider rules.
pub fn open(now: &mut InForce, plan: &ForwardingPlan, outcome: &mut Applied) {
    let attached = |port: &PortId| now.applied.ports.contains_key(port);
    let ports = plan.ports.iter().filter(|(port, _)| attached(port));
    let macs: Vec<_> = ports.map(|(_, port)| port.mac).chain([plan.mac]).collect();
    outcome.note(PlanPart::OwnMacs, now.add_own(macs));
    if bridged(plan) {
        outcome.note(PlanPart::Senders, now.remember_all(true));
    }
    for (&port, wanted) in &plan.ports {
        match now.applied.ports.get_mut(&port) {
            Some(known) => {
                // Not among the settings: an attached port has it in any case.
                known.allmulti = wanted.allmulti;
                if wider(known.accept, wanted.accept) {
                    outcome.note(PlanPart::Accept(port), now.set_accept(port, wanted.accept));
                }
            }
            // It has just left, and the next plan will not name it.
            None => {
                outcome.note(PlanPart::Port(port), Err(PlaneError::PortGone { port }));
            }
        }
    }
}

/// Moves the traffic if the program on the wire can do it. With none of the wanted ports left, all stays as it is.
pub fn transmit(now: &mut InForce, plan: &ForwardingPlan, outcome: &mut Applied) {
    for port in plan.tx.named() {
        if !now.applied.ports.contains_key(&port) {
            outcome.note(PlanPart::Tx, Err(PlaneError::PortGone { port }));
        }
    }
    now.postponed = false;
    if let Some(wanted) = possible(now, plan)
        && now.bpf.way().serves(&wanted)
    {
        send(now, wanted, outcome);
    }
}

/// Whether no list can be prepared, and the traffic has to move to one.
pub fn lacks_list(now: &InForce, plan: &ForwardingPlan) -> bool {
    possible(now, plan).is_some_and(|tx| !now.applied.tx.sends_as(&tx) && now.bpf.lacks_list_for(&tx))
}

/// There is room for lists again: the traffic follows a plan for which there was none, and what it prepares is prepared.
pub fn catch_up(now: &mut InForce, plan: &ForwardingPlan) {
    if now.postponed {
        // Who had more to do than that was told so, and does what fails here again.
        let mut outcome = Applied::default();
        transmit(now, plan, &mut outcome);
        transmit_meanwhile(now, plan, &mut outcome);
    }
    prepare::follow(now, plan);
}

/// As long as another program has yet to take the wire over, the one that is there does of the plan what it can, and the one that
/// is about to be there is prepared for it.
fn transmit_meanwhile(now: &mut InForce, plan: &ForwardingPlan, outcome: &mut Applied) {
    let Some(wanted) = possible(now, plan) else { return };
    if let Some((way, coming)) = now.bpf.coming() {
        let tx = nearest(*way, coming, &wanted);
        if coming.sends_as(&tx) {
            // Nothing to prepare.
        } else if now.bpf.lacks_list_for(&tx) {
            now.postponed = true;
        } else {
            let doing = || format!("prepare the transmission of {}", now.name);
            outcome.note(PlanPart::Tx, step(doing, || now.bpf.set_coming(&tx)));
        }
    }
    if !now.bpf.way().serves(&wanted) {
        send(now, nearest(now.bpf.way(), &now.applied.tx, &wanted), outcome);
    }
}

/// What is possible of a plan; nothing if none of its ports is left.
fn possible(now: &InForce, plan: &ForwardingPlan) -> Option<Tx> {
    let tx = now.among_attached(&plan.tx);
    (!tx.is_nowhere() || plan.tx.is_nowhere()).then_some(tx)
}

fn send(now: &mut InForce, tx: Tx, outcome: &mut Applied) {
    if now.applied.tx.sends_as(&tx) {
        // Without ports only the kind can differ. A program that can do it is loaded when there is a port to send through.
        now.applied.tx = tx;
    } else if now.bpf.lacks_list_for(&tx) {
        now.postponed = true;
    } else {
        outcome.note(PlanPart::Tx, now.set_tx(tx));
    }
}

/// What the program of a way can do of a wish: all of it; or what it does already, through those ports that are still wanted, or if
/// none is, through the others.
fn nearest(way: Way, already: &Tx, wanted: &Tx) -> Tx {
    if way.serves(wanted) {
        return wanted.clone();
    }
    let fewer = already.among(|port| wanted.ports.contains(&port));
    if !fewer.is_nowhere() || already.is_nowhere() {
        return fewer;
    }
    let others = Tx::new(already.kind.clone(), wanted.ports.clone());
    if way.serves(&others) { others } else { already.clone() }
}

/// The way of spreading whose program has to take the wire over, and what it is to do.
pub fn other_way(now: &InForce, plan: &ForwardingPlan) -> Option<(Way, Tx)> {
    let tx = now.among_attached(&plan.tx);
    let way = Way::of(&tx)?;
    (!now.bpf.way().serves(&tx)).then_some((way, tx))
}

/// What comes after the traffic has moved: narrower rules.
pub fn close(now: &mut InForce, plan: &ForwardingPlan, outcome: &mut Applied) {
    let accepted = now.applied.ports.iter().map(|(port, known)| (*port, known.accept));
    for (port, known) in accepted.collect::<Vec<_>>() {
        let wanted = plan.ports.get(&port).map_or(Accept::Nothing, |port| port.accept);
        if known != wanted {
            outcome.note(PlanPart::Accept(port), now.set_accept(port, wanted));
        }
    }
    if !bridged(plan) && !bridged(&now.applied) {
        outcome.note(PlanPart::Senders, now.remember_all(false));
    }
}

/// Whether more than map writes is left to do.
fn is_behind(now: &InForce, plan: &ForwardingPlan) -> bool {
    let settings = |port: &PortPlan| (port.mac, port.mtu, port.promisc);
    let differs = |(port, wanted)| {
        let known = now.applied.ports.get(port);
        known.is_some_and(|known| settings(known) != settings(wanted))
    };
    (now.applied.mac, now.applied.carrier) != (plan.mac, plan.carrier)
        || plan.ports.iter().any(differs)
        || !now.lost_allmulti.is_empty()
        || now.unfinished
        || now.programming
        || other_way(now, plan).is_some()
        || queues::needs_tie(now, &plan.steer)
        || *now.bpf.own() != addresses(&now.applied).collect::<BTreeSet<_>>()
        || now.postponed
        || prepare::lacks_lists(now, plan)
        || prepare::needs_look(now, plan)
}

fn wider(now: Accept, wanted: Accept) -> bool {
    matches!(
        (now, wanted),
        (Accept::Nothing, Accept::Unicast | Accept::All) | (Accept::Unicast, Accept::All)
    )
}

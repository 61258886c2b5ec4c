//! Traffic that an operator sends through a port of his choice, as `queue_id` has it: he marks it with a transmit queue of the
//! bond, by tc's `skbedit queue_mapping` at clsact or behind a multiq qdisc. [bonding.rst: queue_id]
//!
//! The mark crosses the pair, and `bond_tx` reads the port from it. So frames without a mark must be on queue 0. A bond has room for
//! [`TX_QUEUES`] and uses one, on which everything is, like a pair without this; only when a port gets a queue does it use all of
//! them, with ordinary traffic tied to the first. It stays so until the bond is deleted: queues come and go with links.

use std::collections::BTreeMap;
use std::io;

use bond_modes::PortId;
use bond_modes::plan::{Match, Steer};

use super::forwarding::InForce;
use crate::dataplane::step::{XPS, bond_gone, step, step_with};
use crate::dataplane::{Applied, PlanPart, PlaneError};
use crate::netlink::{Link, RouteSocket, queue};

/// Makes the pair of a bond. Kernels before 5.15 cannot change how many queues a pair uses; there it has one for good.
pub fn add_pair(links: &mut RouteSocket, name: &str, wire: &str) -> io::Result<()> {
    links.add_veth_with_queues(name, wire, TX_QUEUES)?;
    let pair = links.by_name(name)?;
    let far = match pair.as_ref().and_then(|pair| pair.peer) {
        Some(peer) => links.by_index(peer)?,
        None => None,
    };
    for end in pair.iter().chain(&far) {
        if let Err(error) = links.set_tx_queues(&end.report.name, 1) {
            log::debug!("{name}: one transmit queue for good: {error}");
            links.delete(end.ifindex)?;
            return links.add_veth(name, wire);
        }
    }
    Ok(())
}

/// Sends marked frames where the plan says, as far as ordinary traffic is tied to the first queue.
pub fn steer(now: &mut InForce, wanted: &[Steer], outcome: &mut Applied) {
    for port in queues_of(wanted).into_values() {
        if !now.applied.ports.contains_key(&port) {
            outcome.note(PlanPart::Steer, Err(PlaneError::PortGone { port }));
        }
    }
    let (before, possible) = (now.bpf.queues().clone(), possible(now, wanted));
    if before == possible || !now.steered {
        return;
    }
    for &queue in before.keys().chain(possible.keys()) {
        let port = possible.get(&queue).copied();
        if now.bpf.queues().get(&queue).copied() != port {
            let doing = || format!("change where queue {queue} of {} leaves", now.name);
            let set = step(doing, || now.bpf.set_queue(queue, port));
            outcome.note(PlanPart::Steer, set);
        }
    }
    now.applied.steer = steer_of(now.bpf.queues());
}

/// Whether ordinary traffic has to be tied to the first queue before marked frames can be sent where the plan says.
pub fn needs_tie(now: &InForce, wanted: &[Steer]) -> bool {
    !now.steered && *now.bpf.queues() != possible(now, wanted)
}

fn possible(now: &InForce, wanted: &[Steer]) -> BTreeMap<u16, PortId> {
    let mut possible = queues_of(wanted);
    possible.retain(|_, port| now.applied.ports.contains_key(port));
    possible
}

/// The port of each queue; the first that matches counts.
pub fn queues_of(steer: &[Steer]) -> BTreeMap<u16, PortId> {
    let mut queues = BTreeMap::new();
    for steer in steer {
        if let Match::Queue(queue) = steer.what {
            queues.entry(queue).or_insert(steer.to);
        }
    }
    queues
}

/// The port of each queue, as a plan says it.
pub fn steer_of(queues: &BTreeMap<u16, PortId>) -> Vec<Steer> {
    let steer = |(&queue, &to): (&u16, &PortId)| Steer {
        what: Match::Queue(queue),
        to,
    };
    queues.iter().map(steer).collect()
}

/// Ties ordinary traffic of a bond, with these two ends, to the first queue before there are others.
pub(super) fn tie_unmarked(links: &mut RouteSocket, name: &str, [near, wire]: [u32; 2]) -> Result<(), PlaneError> {
    let mut read = |ifindex| step(|| format!("read {name}"), || links.by_index(ifindex));
    let (Some(near), Some(wire)) = (read(near)?, read(wire)?) else {
        return Err(bond_gone(name));
    };
    if near.tx_queues < TX_QUEUES {
        return Err(PlaneError::OneQueue { bond: name.to_owned() });
    }
    tie(name, &wire)?;
    let open = || links.set_tx_queues(name, TX_QUEUES);
    step(|| format!("open the queues of {name}"), open)
}

/// Ties what every CPU sends to the first queue. To be done again now and then: the kernel does it for the CPUs that are there
/// at the moment, and what one that came later sends is spread over all queues, as if marked. [dev.c: __netif_set_xps_queue]
pub fn tie(name: &str, wire: &Link) -> Result<(), PlaneError> {
    let tie = || queue::tie_to_first_queue(name, wire);
    step_with(&XPS, || format!("tie the traffic of {name} to a queue"), tie)
}

/// As many as the kernel's driver gives a bond. [bond_main.c: BOND_DEFAULT_TX_QUEUES]
const TX_QUEUES: u32 = 16;

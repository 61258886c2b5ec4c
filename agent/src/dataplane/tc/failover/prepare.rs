//! What is prepared for one bond, and how it gets in force.
//!
//! The entries of its ports are written while its number is not in the bond's map, and then the number: so the program sees all of it
//! or nothing. Entries of ports for which nothing is prepared are there too, for their loss is counted, and ends what is prepared for
//! the others.
//!
//! It is put in force only for as many losses as had been counted when the carriers were read on which it builds. If there has been
//! another one, whether or not the agent knows of it, nothing is, until carriers are read again by the thread that may wait.

use std::collections::BTreeMap;
use std::io;

use bond_modes::plan::{Accept, Failover};
use bond_modes::{ForwardingPlan, PortId};

use super::super::bpf::{accept_of, rule_value};
use super::super::forwarding::{Forwarding, InForce};
use super::super::object::Way;
use super::LISTS_LEFT;
use super::entries::{Known, Prepared, Standing, losses};
use super::layout::{Armed, MOST_RULES, Rule};
use crate::dataplane::port::name_of;
use crate::netlink::RouteSocket;

/// Reads what an earlier agent prepared, once the ports are known.
pub fn read(now: &mut InForce) -> io::Result<()> {
    let Some(mut prepared) = now.prepared.take() else {
        // The program of an earlier agent may run for a moment after its pin is gone.
        return match Standing::read(&now.bpf)? {
            Standing { number: 0, .. } => Ok(()),
            _ => Standing::default().write(&mut now.bpf),
        };
    };
    let ports = &now.applied.ports;
    prepared
        .in_kernel
        .forget_other_ports(prepared.bond, |port| ports.contains_key(&port))?;
    let standing = Standing::read(&now.bpf)?;
    let stands = standing.number != 0 && standing.losses == losses(&now.bpf)?;
    prepared.number = standing.number;
    for port in now.applied.ports.keys() {
        let Some(entry) = prepared.in_kernel.armed(*port)? else {
            continue;
        };
        prepared.number = prepared.number.max(entry.number);
        if stands && entry.number == standing.number && entry.selector != 0 && entry.bond == prepared.bond {
            prepared.in_force.insert(*port, decode(now, &entry)?);
        }
        prepared.entries.insert(*port, entry);
    }
    if stands && !prepared.in_force.is_empty() {
        // It had them all, and has lost none.
        prepared.known = Some(Known {
            losses: standing.losses,
            ..Known::default()
        });
    } else if standing.number != 0 {
        Standing::default().write(&mut now.bpf)?;
    }
    let spare = prepared.in_force.keys().map(|port| prepared.entries[port].selector);
    now.bpf.set_spare(spare.collect());
    now.applied.if_lost.clone_from(&prepared.in_force);
    now.prepared = Some(prepared);
    Ok(())
}

/// Whether what was put in force still is: no port has lost its carrier since.
pub fn stands(now: &InForce) -> io::Result<bool> {
    let known = now.prepared.as_ref().and_then(|prepared| {
        let is_in_force = !prepared.in_force.is_empty();
        prepared.known.as_ref().filter(|_| is_in_force)
    });
    known.map_or(Ok(false), |known| Ok(known.losses == losses(&now.bpf)?))
}

/// Puts in force what a plan prepares, as far as its traffic is in force and the program can do it. What fails leaves nothing
/// prepared: then the agent alone fails over.
pub fn follow(now: &mut InForce, plan: &ForwardingPlan) {
    let failed = renew(now, plan).err();
    if failed.is_some()
        && let Err(error) = now.unprepare()
    {
        log::warn!("{}: cannot take back a failover in the kernel: {error}", now.name);
    }
    note(now, failed);
}

/// As [`follow`], of the newest plan or else this one, once carriers are read and there are lists for it. It waits for the kernel, not
/// locked.
pub fn put_in_force(links: &mut RouteSocket, forwarding: &Forwarding, plan: &ForwardingPlan) {
    if forwarding.with_newest(plan, |now, plan| lacks_lists(now, plan)) {
        forwarding.make_room();
    }
    look(links, forwarding, plan);
    forwarding.with_newest(plan, follow);
}

/// Notes why what a plan prepares could not be put in force, until something is. The log has each reason once.
fn note(now: &mut InForce, failed: Option<io::Error>) {
    let Some(prepared) = &mut now.prepared else { return };
    match failed.map(|error| error.to_string()) {
        Some(why) if prepared.failed.as_ref() != Some(&why) => {
            log::warn!("{}: cannot prepare a failover in the kernel: {why}", now.name);
            prepared.failed = Some(why);
        }
        None if !prepared.in_force.is_empty() => prepared.failed = None,
        _ => {}
    }
}

fn renew(now: &mut InForce, plan: &ForwardingPlan) -> io::Result<()> {
    if now.prepared.is_none() {
        return Ok(());
    }
    let stands = stands(now)?;
    let wanted = wanted(now, plan)?;
    let in_force = now.prepared.as_ref().map(|prepared| &prepared.in_force);
    if in_force == Some(&wanted) && (stands || wanted.is_empty()) {
        return Ok(());
    }
    now.unprepare()?;
    match lacks_lists(now, plan) {
        // They are waited for, and then there is another attempt.
        true => Ok(()),
        false => begin(now, wanted),
    }
}

/// Whether the next lists of ports have to be waited for first.
pub fn lacks_lists(now: &InForce, plan: &ForwardingPlan) -> bool {
    now.prepared.is_some()
        && needs_lists(now)
        && now.bpf.clean_lists() < plan.if_lost.len() + LISTS_LEFT
        && !plan.if_lost.is_empty()
}

fn needs_lists(now: &InForce) -> bool {
    now.bpf.way() != Way::One
}

/// Whether carriers have to be read before all of it can be put in force.
pub fn needs_look(now: &InForce, plan: &ForwardingPlan) -> bool {
    let Some(prepared) = now.prepared.as_ref().filter(|_| !plan.if_lost.is_empty()) else {
        return false;
    };
    let Some(known) = &prepared.known else { return true };
    !prepared.counts(now.applied.ports.keys().copied())
        || losses(&now.bpf).is_ok_and(|losses| losses != known.losses)
        || known.off.iter().any(|port| plan.prepares(*port))
}

/// Reads the carriers on which a plan builds, if that is needed. Losses are counted before, so none is between what was read and
/// what is put in force. It waits for the kernel, not locked.
fn look(links: &mut RouteSocket, forwarding: &Forwarding, plan: &ForwardingPlan) {
    let begun = forwarding.with_newest(plan, |now, plan| match needs_look(now, plan) {
        true => count_losses(now).map(Some),
        false => Ok(None),
    });
    let (losses, ports) = match begun {
        Ok(Some(begun)) => begun,
        Ok(None) => return,
        Err(error) => return forwarding.with(|now| note(now, Some(error))),
    };
    let mut failed = None;
    let is_off = |port: &PortId| match links.by_index(port.0) {
        Ok(Some(link)) => !link.report.carrier.is_on(),
        Ok(None) => true,
        Err(error) => {
            let text = format!("the carrier of {} cannot be read: {error}", name_of(*port));
            failed = Some(io::Error::new(error.kind(), text));
            true
        }
    };
    let off = ports.into_iter().filter(is_off).collect();
    forwarding.with(|now| {
        if let Some(prepared) = &mut now.prepared {
            prepared.known = Some(Known { losses, off });
        }
        note(now, failed);
    });
}

/// Sees to it that the loss of any port is counted; the count by then, and the ports.
fn count_losses(now: &mut InForce) -> io::Result<(u32, Vec<PortId>)> {
    let ports: Vec<PortId> = now.applied.ports.keys().copied().collect();
    if let Some(prepared) = &mut now.prepared {
        for port in &ports {
            if !prepared.entries.contains_key(port) {
                let blank = prepared.blank(*port);
                prepared.enter(*port, blank)?;
            }
        }
    }
    Ok((losses(&now.bpf)?, ports))
}

fn wanted(now: &InForce, plan: &ForwardingPlan) -> io::Result<BTreeMap<PortId, Failover>> {
    let accepts = |(port, wanted): (&PortId, &bond_modes::PortPlan)| {
        now.applied
            .ports
            .get(port)
            .is_some_and(|known| known.accept == wanted.accept)
    };
    let is_in_force = !now.applied.tx.is_nowhere()
        && now.applied.tx.sends_as(&plan.tx)
        && now.bpf.coming().is_none()
        && plan.ports.iter().all(accepts);
    let known = now.prepared.as_ref().and_then(|prepared| {
        let counts = prepared.counts(now.applied.ports.keys().copied());
        prepared.known.as_ref().filter(|_| counts)
    });
    let Some(known) = known.filter(|_| is_in_force) else {
        return Ok(BTreeMap::new());
    };
    if known.losses != losses(&now.bpf)? {
        return Ok(BTreeMap::new());
    }
    let attached = |port: &PortId| now.applied.ports.contains_key(port);
    let possible = |(lost, failover): &(&PortId, &Failover)| {
        failover
            .tx
            .named()
            .all(|port| attached(&port) && !known.off.contains(&port))
            && !known.off.contains(lost)
            && failover.accept.keys().all(attached)
            && Way::of(&failover.tx).is_some()
            && now.bpf.way().serves(&failover.tx)
    };
    let failovers = plan.if_lost.iter().filter(possible);
    Ok(failovers.map(|(port, failover)| (*port, failover.clone())).collect())
}

fn begin(now: &mut InForce, wanted: BTreeMap<PortId, Failover>) -> io::Result<()> {
    let Some(mut prepared) = now.prepared.take() else {
        return Ok(());
    };
    let begun = begin_with(now, &mut prepared, wanted);
    now.prepared = Some(prepared);
    begun
}

fn begin_with(now: &mut InForce, prepared: &mut Prepared, wanted: BTreeMap<PortId, Failover>) -> io::Result<()> {
    let Some(known) = prepared.known.clone().filter(|_| !wanted.is_empty()) else {
        return Ok(());
    };
    let (expected, program) = (now.bpf.selector_in_force()?, now.bpf.way().number());
    let number = prepared.next_number();
    let mut spare = Vec::new();
    for port in now.applied.ports.keys().copied().collect::<Vec<_>>() {
        let entry = match wanted.get(&port) {
            None => prepared.blank(port),
            Some(failover) => {
                let selector = now.bpf.spare_selector(&failover.tx)?;
                spare.push(selector);
                // Not to be taken for the next one's.
                now.bpf.set_spare(spare.clone());
                let (rules, rule) = rules(now, failover)?;
                let entry = Armed {
                    number,
                    program,
                    expected,
                    selector,
                    rules,
                    rule,
                    ..prepared.blank(port)
                };
                entry.sealed()
            }
        };
        prepared.enter(port, entry)?;
    }
    let losses = known.losses;
    Standing { number, losses }.write(&mut now.bpf)?;
    now.applied.if_lost.clone_from(&wanted);
    prepared.in_force = wanted;
    Ok(())
}

fn rules(now: &InForce, failover: &Failover) -> io::Result<(u32, [Rule; MOST_RULES])> {
    if failover.accept.len() > MOST_RULES {
        let many = format!("more than {MOST_RULES} ports would let in something else");
        return Err(io::Error::other(many));
    }
    let mut rules = [Rule::default(); MOST_RULES];
    for (rule, (port, accept)) in rules.iter_mut().zip(&failover.accept) {
        let slot = now.bpf.rule_of(*port).ok_or(io::ErrorKind::NotFound)?;
        *rule = Rule {
            slot,
            value: rule_value(*accept),
        };
    }
    Ok((failover.accept.len() as u32, rules))
}

fn decode(now: &InForce, entry: &Armed) -> io::Result<Failover> {
    let rules = entry.rule.iter().take(entry.rules as usize);
    let accept = rules.filter_map(|rule| Some((now.bpf.port_of_rule(rule.slot)?, accept_of(rule.value))));
    Ok(Failover {
        tx: now.bpf.tx_of(entry.selector)?,
        accept: accept.collect::<BTreeMap<PortId, Accept>>(),
    })
}

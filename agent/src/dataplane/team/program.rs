//! From the plan in force to the wanted one.
//!
//! Make before break:
//! 1. `enabled` on ports that are to receive;
//! 2. addresses of ports, address of the bond; MTU, promiscuity and lists of addresses the driver hands on to ports itself;
//! 3. the moment at which the traffic moves: `activeport`; or the cells, then the hash program; `user_linkup` of new senders,
//!    which in mode broadcast is what lets them send;
//! 4. `user_linkup` off on the others, so that the carrier, which is that of any of them, never flickers;
//! 5. `enabled` off on ports that are not to receive any more. A port that is off loses its cells.
//!
//! A failover in active-backup is five messages. The new port is enabled before it is the active one: else nothing would come
//! in for a moment. (Enabling would make the driver announce; the mark of our devices turns that off.)
//!
//! | Plan | Receives (`enabled`) | Sends |
//! |---|---|---|
//! | one port | that port | `activeport` |
//! | by hash | every port | `cells[hash % ports]`, the program computing all of it |
//! | all | every port | those with `user_linkup` |
//! | nowhere | none | a team without enabled ports drops what it is to send |
//!
//! In the hash modes every port receives, as `rx` of the plan asks. differs: a backup port that is about to become active, or was
//! active until just now, receives nothing, as in the kernel's driver.
//!
//! While a hash program is exchanged, every frame must find one of the new ports, whatever its hash: so all cells that either
//! program can name are filled first.
//!
//! A step that fails is left out of what counts as in force, so the next plan tries it again. If a step that makes a new path
//! fails, the steps that break the old one are skipped.

use std::collections::BTreeSet;

use bond_modes::plan::{PortPlan, Spread, Tx};
use bond_modes::{ForwardingPlan, PortId, XmitHashPolicy};

use super::bond::{Bond, MARK};
use super::driver::{Driver, Mode};
use super::hash::{self, SockFilter};
use super::options::{Key, Name, Value};
use crate::dataplane::step::{port_step, step, step_with};
use crate::dataplane::{Applied, PlanPart, PlaneError, port};
use crate::netlink::RouteSocket;

/// Makes the kernel match `plan`, writing only differences from the known state, and records each write there.
pub fn apply(
    driver: &mut Driver,
    links: &mut RouteSocket,
    name: &str,
    bond: &mut Bond,
    plan: &ForwardingPlan,
) -> Applied {
    let mut work = Work {
        driver,
        links,
        name,
        bond,
        outcome: Applied::default(),
    };
    work.check_ports(plan);
    for (key, value) in MARK {
        work.put(PlanPart::Mark, key, value);
    }
    work.set_mode(&plan.tx.kind);
    let attached = |port| work.bond.ports.contains_key(&port);
    let tx = plan.tx.among(attached);
    // If all ports of the plan have left, the next plan will not name them: nothing is changed for this one.
    let moves = !tx.is_nowhere() || plan.tx.is_nowhere();
    let (receivers, linked) = (receivers(&tx, work.bond), linked(plan, &tx, work.bond));
    let ready = moves && work.enable(&receivers, true);
    work.configure_ports(plan);
    let moved = ready && work.transmit(&tx) && work.link(&linked, true);
    if moved {
        work.link(&linked, false);
        work.enable(&receivers, false);
    }
    work.outcome
}

/// Puts a team into the mode that spreads so. It must have no ports.
pub fn set_mode(driver: &mut Driver, name: &str, bond: &mut Bond, spread: &Spread) -> Result<(), PlaneError> {
    let no_mode = || inexact("one port after the other", "the driver takes turns of its own");
    let mode = Mode::of(spread).ok_or_else(no_mode)?;
    let value = Value::text(mode.name());
    let key = Key::team(Name::Mode);
    if bond.settings.get(&key) == Some(&value) {
        return Ok(());
    }
    let team = bond.ifindex;
    let set = || format!("set the mode of {name}");
    step_with(mode.feature(), set, || driver.set(team, key, &value))?;
    if mode == Mode::LoadBalance {
        let by_cell = || driver.set(team, Key::team(Name::TxMethod), &Value::text("hash_to_port_mapping"));
        step(|| format!("set how {name} uses its hash"), by_cell)?;
    }
    // With a mode, its options come and those of the old one go.
    bond.settings = step(|| format!("read the options of {name}"), || driver.options(team))?;
    Ok(())
}

/// That the driver would do something else.
pub fn inexact(what: impl Into<String>, why: &'static str) -> PlaneError {
    PlaneError::Inexact {
        plane: "team",
        what: what.into(),
        why,
        other: "tc",
    }
}

/// How many ports the hash program of a bond chooses between, and by what.
pub fn hash_in_force(bond: &Bond) -> Option<(XmitHashPolicy, u32)> {
    let Some(Value::Binary(bytes)) = bond.settings.get(&Key::team(Name::HashProgram)) else {
        return None;
    };
    let instruction = |bytes: &[u8]| SockFilter::from_bytes(bytes.try_into().expect("chunks of this size"));
    let program: Vec<SockFilter> = bytes.chunks_exact(8).map(instruction).collect();
    hash::recognise(&program)
}

fn receivers(tx: &Tx, bond: &Bond) -> BTreeSet<PortId> {
    match tx.kind {
        Spread::One => tx.ports.iter().copied().collect(),
        _ if tx.is_nowhere() => BTreeSet::new(),
        _ => bond.ports.keys().copied().collect(),
    }
}

/// The ports whose link makes the bond's carrier. A bond that has carrier but sends nothing needs such ports, too.
fn linked(plan: &ForwardingPlan, tx: &Tx, bond: &Bond) -> BTreeSet<PortId> {
    match (plan.carrier.is_on(), tx.is_nowhere()) {
        (false, _) => BTreeSet::new(),
        (true, true) => bond.ports.keys().copied().collect(),
        (true, false) => tx.ports.iter().copied().collect(),
    }
}

struct Work<'a> {
    driver: &'a mut Driver,
    links: &'a mut RouteSocket,
    name: &'a str,
    bond: &'a mut Bond,
    outcome: Applied,
}

impl Work<'_> {
    /// A port that is not attached does not stop the others.
    fn check_ports(&mut self, plan: &ForwardingPlan) {
        for &port in plan.ports.keys().chain(&plan.tx.ports) {
            if !self.bond.ports.contains_key(&port) {
                self.outcome
                    .note(PlanPart::Port(port), Err(PlaneError::PortGone { port }));
            }
        }
    }

    /// Sets an option that has another value, for this part of the plan; says whether it has the wanted one now.
    fn put(&mut self, part: PlanPart, key: Key, value: Value) -> bool {
        if self.bond.settings.get(&key) == Some(&value) {
            return true;
        }
        let name = self.name;
        let doing = || format!("set {} of {name}", key.name.text());
        let done = set(self.driver, self.bond, key, value, doing);
        self.outcome.note(part, done)
    }

    /// Lets every port receive that is to; or no port any more that is not to. Says whether all of them do so.
    fn enable(&mut self, receivers: &BTreeSet<PortId>, on: bool) -> bool {
        self.flag(PlanPart::Accept, Name::Enabled, receivers, on)
    }

    /// Sets the link of the ports that make the carrier; or takes it from the others. Says whether all of them have it so.
    fn link(&mut self, linked: &BTreeSet<PortId>, on: bool) -> bool {
        self.flag(|_| PlanPart::Carrier, Name::UserLinkup, linked, on)
    }

    /// Sets a flag on every port that is chosen; or takes it off every port that is not. Says whether all have it so.
    fn flag(&mut self, part: fn(PortId) -> PlanPart, name: Name, chosen: &BTreeSet<PortId>, on: bool) -> bool {
        let mut ports: Vec<PortId> = self.bond.ports.keys().copied().collect();
        ports.retain(|port| chosen.contains(port) == on);
        let set = |port| self.put(part(port), Key::port(name, port), Value::Flag(on));
        all(ports.into_iter().map(set))
    }

    /// A bond without ports may come to spread otherwise.
    fn set_mode(&mut self, spread: &Spread) {
        if self.bond.ports.is_empty() {
            let done = set_mode(self.driver, self.name, self.bond, spread);
            self.outcome.note(PlanPart::Tx, done);
        }
    }

    /// Says whether frames leave as they should.
    fn transmit(&mut self, tx: &Tx) -> bool {
        match (&tx.kind, tx.ports.first()) {
            // No port is enabled.
            (_, None) => true,
            (Spread::One, Some(port)) => self.put(PlanPart::Tx, Key::team(Name::ActivePort), Value::U32(port.0)),
            (Spread::Hash(policy), _) => self.spread(&tx.ports, *policy),
            // `user_linkup` is all it takes.
            (Spread::All, _) => true,
            // Such a bond was refused.
            (Spread::RoundRobin { .. } | Spread::Buckets { .. }, _) => true,
        }
    }

    fn spread(&mut self, ports: &[PortId], policy: XmitHashPolicy) -> bool {
        let count = ports.len() as u32;
        let Some(program) = hash::program(policy, count) else {
            let what = format!("xmit_hash_policy={} over {count} ports", policy.name());
            self.outcome
                .note(PlanPart::Tx, Err(inexact(what, "its hash programs cannot loop")));
            return false;
        };
        let before = hash_in_force(self.bond).map_or(0, |(_, count)| count);
        let cells = (0..count.max(before)).zip(ports.iter().cycle());
        let fill = |(index, port): (u32, &PortId)| self.put(PlanPart::Tx, Key::cell(index), Value::U32(port.0));
        let bytes = program.into_iter().flat_map(SockFilter::bytes).collect();
        all(cells.map(fill)) && self.put(PlanPart::Tx, Key::team(Name::HashProgram), Value::Binary(bytes))
    }

    fn configure_ports(&mut self, plan: &ForwardingPlan) {
        for (&port, &wanted) in &plan.ports {
            if let Some(now) = self.bond.ports.get(&port).copied().filter(|now| *now != wanted) {
                self.configure_port(port, now, wanted, &plan.tx.kind);
            }
        }
        if self.bond.mac != plan.mac {
            let (team, name) = (self.bond.ifindex, self.name);
            let set = step(
                || format!("set the address of {name}"),
                || self.links.set_mac(team, plan.mac),
            );
            if self.outcome.note_mac(self.bond.mac, set) {
                self.bond.mac = plan.mac;
            }
        }
    }

    fn configure_port(&mut self, port: PortId, now: PortPlan, wanted: PortPlan, spread: &Spread) {
        let mut done = wanted;
        // In mode broadcast the driver gives every port the address of the team.
        if now.mac != wanted.mac && *spread != Spread::All {
            let links = &mut *self.links;
            let changed = port::change_mac(links, port, wanted.mac);
            if !self.outcome.note(PlanPart::PortMac(port), changed) {
                done.mac = now.mac;
            }
        }
        if now.mtu != wanted.mtu {
            // The driver has set it.
            let keep_off = || port::keep_ipv6_off(self.links, port);
            let kept = port_step(port, || format!("keep IPv6 off on {}", port::name_of(port)), keep_off);
            if !self.outcome.note(PlanPart::Mtu(port), kept) {
                done.mtu = now.mtu;
            }
        }
        self.bond.ports.insert(port, done);
    }
}

/// Whether all of some steps were done; each is tried.
fn all(steps: impl Iterator<Item = bool>) -> bool {
    steps.fold(true, |all, done| all & done)
}

/// The port that an option names whose setting failed, if the port has left the team. The driver gives the same error for an
/// option that its mode does not have, so the options are read.
fn gone(driver: &mut Driver, team: u32, error: &PlaneError, key: Key, value: &Value) -> Option<PortId> {
    let PlaneError::Kernel { source, .. } = error else {
        return None;
    };
    let named = match key.name {
        Name::ActivePort | Name::Cell => value.as_u32().map(PortId),
        _ => key.port,
    };
    let port = named.filter(|_| matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)))?;
    let now = driver.options(team).ok()?;
    (!now.contains_key(&Key::port(Name::Enabled, port))).then_some(port)
}

/// Sets an option and records its value.
pub fn set(
    driver: &mut Driver,
    bond: &mut Bond,
    key: Key,
    value: Value,
    doing: impl FnOnce() -> String,
) -> Result<(), PlaneError> {
    let team = bond.ifindex;
    step(doing, || driver.set(team, key, &value)).map_err(|error| match gone(driver, team, &error, key, &value) {
        Some(port) => PlaneError::PortGone { port },
        None => error,
    })?;
    bond.note(key, value);
    Ok(())
}

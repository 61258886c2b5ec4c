//! The bond's own interface: a team device with our mark.
//!
//! It is made under another name and gets the bond's name last, in one step. So a crash in between leaves no half-made bond under
//! that name; the next creation removes what is left.

use std::collections::BTreeMap;

use bond_modes::plan::{Accept, PortPlan, Rewrite, Source, Spread, Tx};
use bond_modes::{ForwardingPlan, PortId};
use bond_monitors::Carrier;

use super::bond::{Bond, MARK, Shared};
use super::driver::Mode;
use super::options::{Key, Name, Settings, Value};
use super::program::{hash_in_force, set_mode};
use crate::dataplane::interface::{delete, label, report};
use crate::dataplane::port::{name_of, port_alias};
use crate::dataplane::step::{TEAM, bond_gone, step, step_with, twice};
use crate::dataplane::{BondDevice, Observed, PlaneError};
use crate::netlink::{Link, Statistics};
use crate::text::chain;

/// A team device of ours.
pub struct Found {
    /// The interface.
    pub link: Link,
    /// Its options.
    pub settings: Settings,
}

impl Shared {
    /// The device of this bond, if the interface of that name is ours.
    pub(super) fn find(&mut self, name: &str) -> Result<Option<Found>, PlaneError> {
        // Asked by name, the kernel also answers for alternative names.
        let is_team = |link: &Link| link.report.name == name && link.kind.as_deref() == Some("team");
        let link = step(|| format!("read the interface {name}"), || self.links.by_name(name))?;
        match link.filter(is_team) {
            Some(link) => self.ours(link),
            None => Ok(None),
        }
    }

    /// The names of all bonds that are there.
    pub(super) fn find_bonds(&mut self) -> Result<Vec<String>, PlaneError> {
        let mut names = Vec::new();
        for link in step(|| "read the interfaces".to_owned(), || self.links.all())? {
            let draft = link.report.name == DRAFT;
            if link.kind.as_deref() != Some("team") || draft {
                continue;
            }
            let (name, ifindex) = (link.report.name.clone(), link.ifindex);
            match self.ours(link) {
                Ok(found) => names.extend(found.map(|found| found.link.report.name)),
                // Gone since the interfaces were read.
                Err(_) if matches!(self.links.by_index(ifindex), Ok(None)) => {}
                Err(error) => log::error!("cannot find out whether {name} is a bond of bondd: {}", chain(&error)),
            }
        }
        Ok(names)
    }

    fn ours(&mut self, link: Link) -> Result<Option<Found>, PlaneError> {
        let read = || format!("read the options of {}", link.report.name);
        step(read, || self.look_up())?;
        let settings = step(read, || self.driver.options(link.ifindex))?;
        let marked = MARK.iter().all(|(key, value)| settings.get(key) == Some(value));
        Ok(marked.then_some(Found { link, settings }))
    }

    /// Makes a device that spreads so; on failure nothing of it is left.
    pub(super) fn make(&mut self, name: &str, spread: &Spread) -> Result<(Bond, BondDevice), PlaneError> {
        let taken = || PlaneError::NameTaken { name: name.to_owned() };
        let look = |shared: &mut Shared, name: &str| {
            step(|| format!("read the interface {name}"), || shared.links.by_name(name))
        };
        if look(self, name)?.is_some() {
            return Err(taken());
        }
        if let Some(left) = look(self, DRAFT)?.filter(|link| link.kind.as_deref() == Some("team")) {
            delete(&mut self.links, DRAFT, left.ifindex)?;
        }
        let make = || format!("make the interface {name}");
        step_with(&TEAM, make, || self.links.add_team(DRAFT))?;
        let draft = look(self, DRAFT)?.ok_or_else(|| bond_gone(name))?;
        let made = self.finish(name, &draft, spread).map_err(|error| match error {
            PlaneError::Kernel { source, .. } if source.raw_os_error() == Some(libc::EEXIST) => taken(),
            other => other,
        });
        if made.is_err()
            && let Err(error) = delete(&mut self.links, name, draft.ifindex)
        {
            log::debug!("{name}: undoing a failed creation: {error}");
        }
        made
    }

    fn finish(&mut self, name: &str, draft: &Link, spread: &Spread) -> Result<(Bond, BondDevice), PlaneError> {
        let team = draft.ifindex;
        step_with(&TEAM, || "find the team driver".to_owned(), || self.look_up())?;
        let mut bond = Bond {
            ifindex: team,
            mac: draft.report.mac,
            ports: BTreeMap::new(),
            settings: Settings::new(),
            bases: BTreeMap::new(),
        };
        for (key, value) in MARK {
            step(|| format!("mark {name}"), || self.driver.set(team, key, &value))?;
        }
        set_mode(&mut self.driver, name, &mut bond, spread)?;
        // A random address from the kernel is replaced by udev some time later (MACAddressPolicy=persistent), one that
        // was set is not.
        let keep = || self.links.set_mac(team, draft.report.mac);
        step(|| format!("set the address of {name}"), keep)?;
        step(
            || format!("make the interface {name}"),
            || self.links.rename(team, name),
        )?;
        let link = self.device(name, team)?;
        let report = report(&mut self.links, &link);
        Ok((bond, BondDevice { ifindex: team, report }))
    }

    /// Takes a device of ours over, with its ports, if there is one under this name.
    pub(super) fn adopt(&mut self, name: &str) -> Result<Option<(Bond, Observed)>, PlaneError> {
        let Some(found) = self.find(name)? else {
            return Ok(None);
        };
        let (bond, observed) = self.adopt_found(name, &found)?;
        Ok(Some((bond, observed)))
    }

    /// Takes a device of ours over, with its ports.
    ///
    /// # Errors
    /// A port cannot be read: left out of the bond, it would be taken out of the team while it forwards.
    pub(super) fn adopt_found(&mut self, name: &str, found: &Found) -> Result<(Bond, Observed), PlaneError> {
        let team = found.link.ifindex;
        let order = step(|| format!("read the ports of {name}"), || self.driver.ports(team))?;
        let mut bond = Bond {
            ifindex: team,
            mac: found.link.report.mac,
            ports: BTreeMap::new(),
            settings: found.settings.clone(),
            bases: BTreeMap::new(),
        };
        let mut reports = BTreeMap::new();
        for &port in &order {
            // A port of ours gets this option first. Without it, another program added the port, or an agent died while it did.
            if bond.settings.get(&Key::port(Name::UserLinkupEnabled, port)) != Some(&Value::Flag(true)) {
                continue;
            }
            let read = || step(|| format!("read {}", name_of(port)), || self.links.by_index(port.0));
            let Some(link) = twice(read)? else { continue };
            if link.alias != port_alias(name) {
                label(&mut self.links, name, port.0, &port_alias(name));
            }
            bond.ports.insert(port, settings_of(&link, &found.link));
            bond.bases.insert(port, self.counted_before(name, port));
            reports.insert(port, report(&mut self.links, &link));
        }
        let observed = Observed {
            ifindex: team,
            report: report(&mut self.links, &found.link),
            ports: reports.into_iter().collect(),
            plan: plan_of(&bond, &order),
        };
        Ok((bond, observed))
    }

    /// What a port that is taken over has counted until now. Without an answer its counters begin with those of the interface.
    fn counted_before(&mut self, name: &str, port: PortId) -> Statistics {
        let read = || format!("read the counters of {}", name_of(port));
        let counted = step(read, || self.links.statistics(port.0)).unwrap_or_else(|error| {
            log::warn!("{name}: {}", chain(&error));
            None
        });
        counted.unwrap_or_default()
    }
}

/// A port's settings as in a plan, before it is known what it accepts. The driver passes promiscuity and all-multicast of the bond
/// on to its ports, so the bond's settings are reported.
pub fn settings_of(port: &Link, bond: &Link) -> PortPlan {
    PortPlan {
        mac: port.report.mac,
        mtu: port.report.mtu,
        promisc: bond.report.promisc,
        allmulti: bond.report.allmulti,
        accept: Accept::Nothing,
        source: Source::AsSent,
    }
}

/// The plan that the driver carries out, with its ports in this order.
pub fn plan_of(bond: &Bond, order: &[PortId]) -> ForwardingPlan {
    let is_on = |name, port| bond.settings.get(&Key::port(name, port)) == Some(&Value::Flag(true));
    let linked: Vec<PortId> = order
        .iter()
        .copied()
        .filter(|port| bond.ports.contains_key(port) && is_on(Name::UserLinkup, *port))
        .collect();
    let with_accept = |(&id, &port): (&PortId, &PortPlan)| {
        let accept = match is_on(Name::Enabled, id) {
            true => Accept::All,
            false => Accept::Nothing,
        };
        (id, PortPlan { accept, ..port })
    };
    ForwardingPlan {
        carrier: Carrier::from_bool(!linked.is_empty()),
        mac: bond.mac,
        ports: bond.ports.iter().map(with_accept).collect(),
        tx: tx_of(bond, &linked),
        steer: Vec::new(),
        rewrite: Rewrite::default(),
        without_agent: None,
        if_lost: Default::default(),
    }
}

/// Where the driver sends frames; `linked` are the ports whose link is set.
fn tx_of(bond: &Bond, linked: &[PortId]) -> Tx {
    let is_on = |port| bond.settings.get(&Key::port(Name::Enabled, port)) == Some(&Value::Flag(true));
    let has_port = |key: &Key| {
        let port = bond.settings.get(key).and_then(Value::as_u32).map(PortId)?;
        (bond.ports.contains_key(&port) && is_on(port)).then_some(port)
    };
    let mode = match bond.settings.get(&Key::team(Name::Mode)) {
        Some(Value::Text(mode)) => Mode::named(mode),
        _ => None,
    };
    let mode = mode.unwrap_or(Mode::ActiveBackup);
    let nowhere = Tx::new(mode.spread(), Vec::new());
    match mode {
        Mode::ActiveBackup => Tx::one(has_port(&Key::team(Name::ActivePort))),
        Mode::LoadBalance => {
            let by_hash = hash_in_force(bond).and_then(|(policy, count)| {
                let ports = (0..count).map(|index| has_port(&Key::cell(index)));
                Some(Tx::new(Spread::Hash(policy), ports.collect::<Option<_>>()?))
            });
            by_hash.unwrap_or(nowhere)
        }
        Mode::Broadcast => Tx::new(
            Spread::All,
            linked.iter().copied().filter(|port| is_on(*port)).collect(),
        ),
    }
}

/// What a device is called while it is made.
const DRAFT: &str = "bondd-new";

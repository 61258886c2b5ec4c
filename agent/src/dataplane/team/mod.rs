//! The team data plane: the kernel's team driver, set over generic netlink.
//!
//! The bond's own interface is a team device, its ports are under it. The driver forwards and shows carrier, but decides
//! nothing: options set for each port whether it receives, sends and counts as linked. So a new agent finds the plan in force by
//! reading the options.
//!
//! A device is ours by two options that have no effect together, `MARK`. Any other team device is never touched.
//!
//! | File | What |
//! |---|---|
//! | `genl`, `options` | messages: requests, answers, the stream of changes |
//! | `driver` | requests as the plane makes them |
//! | `hash` | programs that make its loadbalance mode choose ports as the bonding driver does |
//! | `exact`, `probe` | what it cannot do exactly; what this kernel has |
//! | `bond` | the state of a bond |
//! | `device`, `port` | the team device; ports taken in and given back |
//! | `program` | from the plan in force to the wanted one, and in which order |
//! | `watch` | options that another program changes |

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bond_modes::options::PortOptions;
use bond_modes::{BondOptions, ForwardingPlan, PortId};

pub use self::bond::NAME;
use self::bond::{Bond, Shared};
use self::driver::{Driver, Mode};
use self::genl::{Events, Genl};
use self::watch::TeamWatch;
use super::interface::{delete, label};
use super::lock::lock;
use super::port::{name_of, port_alias, switch_ipv6_off};
use super::step::{TEAM, step};
use super::{
    Adopted, Applied, BondDevice, BondName, Examiner, OriginalPort, Plane, PlaneBond, PlaneError, PlaneReport,
    PortBase, PortCounters, PortSigns, Report, Watch, can,
};
use crate::locks::{lock_byte, private_file};
use crate::netlink::{RouteSocket, Statistics};
use crate::text::chain;

mod bond;
mod device;
mod driver;
pub mod exact;
mod genl;
pub mod hash;
mod options;
mod port;
mod probe;
mod program;
#[cfg(test)]
mod tests;
mod watch;

/// The team data plane of one network namespace: the one in which it was opened.
pub struct TeamPlane {
    shared: Arc<Mutex<Shared>>,
    /// For plans, which do not wait while a bond is made.
    planning: Arc<Mutex<Shared>>,
    /// Held by the one agent of this network namespace that takes over devices without saved state.
    orphan_lock: Option<File>,
}

/// A bond of this plane.
pub struct TeamBond {
    shared: Arc<Mutex<Shared>>,
    /// For plans, which do not wait while a bond is made.
    planning: Arc<Mutex<Shared>>,
    name: BondName,
    bond: Bond,
}

impl TeamPlane {
    /// A plane for the network namespace of the calling thread. Whether the kernel has the driver is found out when it matters.
    pub fn open() -> Result<TeamPlane, PlaneError> {
        let open = || "open a generic netlink socket".to_owned();
        let orphan_lock = lock_orphans().unwrap_or_else(|error| {
            log::warn!("cannot lock {ORPHAN_LOCK}, so team devices without saved state are left alone: {error}");
            None
        });
        let links = || step(|| "open a netlink socket".to_owned(), RouteSocket::open);
        let shared = Shared {
            links: links()?,
            driver: Driver::over(step(open, Genl::open)?),
            events: Arc::new(step(open, Events::open)?),
            abilities: None,
        };
        let planning = Shared {
            links: links()?,
            driver: shared.driver.beside(step(open, Genl::open)?),
            events: Arc::clone(&shared.events),
            abilities: None,
        };
        Ok(TeamPlane {
            shared: Arc::new(Mutex::new(shared)),
            planning: Arc::new(Mutex::new(planning)),
            orphan_lock,
        })
    }

    fn handle(&self, name: &str, bond: Bond) -> TeamBond {
        TeamBond {
            shared: Arc::clone(&self.shared),
            planning: Arc::clone(&self.planning),
            name: name.to_owned(),
            bond,
        }
    }
}

impl Shared {
    /// Whether a bond with these options does exactly what they say.
    fn check(&mut self, options: &BondOptions) -> Result<(), PlaneError> {
        exact::check(options)?;
        match Mode::of(&bond_modes::spread(options)) {
            Some(mode) if !self.can(|abilities| abilities.can(mode))? => Err(mode.feature().unsupported()),
            _ => Ok(()),
        }
    }
}

/// What the driver can do here, tried anew: a module may have come or gone.
fn examine(options: &BondOptions) -> PlaneReport {
    let found = probe::run().map_err(|error| chain(&error));
    let usable = match &found {
        Ok(abilities) if abilities.is_empty() => Err(chain(&TEAM.unsupported())),
        Ok(_) => Ok(()),
        Err(why) => Err(why.clone()),
    };
    let exact = match (exact::check(options), Mode::of(&bond_modes::spread(options))) {
        (Err(error), _) => Err(chain(&error)),
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(mode)) => match found {
            Ok(abilities) if abilities.can(mode) => Ok(()),
            Ok(_) => Err(chain(&mode.feature().unsupported())),
            Err(why) => Err(why),
        },
    };
    PlaneReport::new(NAME, usable, exact)
}

impl Plane for TeamPlane {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&mut self) -> Result<(), PlaneError> {
        match lock(&self.shared).can(|abilities| !abilities.is_empty())? {
            true => Ok(()),
            false => Err(TEAM.unsupported()),
        }
    }

    fn can(&mut self, options: &BondOptions) -> Result<(), PlaneError> {
        lock(&self.shared).check(options)
    }

    fn examiner(&self) -> Examiner {
        Arc::new(examine)
    }

    fn bonds(&mut self) -> Result<Vec<BondName>, PlaneError> {
        match self.orphan_lock {
            Some(_) => lock(&self.shared).find_bonds(),
            None => Ok(Vec::new()),
        }
    }

    fn create(&mut self, name: &str, options: &BondOptions) -> Result<(Box<dyn PlaneBond>, BondDevice), PlaneError> {
        let spread = bond_modes::spread(options);
        can::check_spread(&spread)?;
        let (bond, device) = lock(&self.shared).make(name, &spread)?;
        Ok((Box::new(self.handle(name, bond)), device))
    }

    fn adopt(&mut self, name: &str) -> Result<Option<Adopted>, PlaneError> {
        let found = lock(&self.shared).adopt(name)?;
        Ok(found.map(|(bond, observed)| (Box::new(self.handle(name, bond)) as Box<dyn PlaneBond>, observed)))
    }

    fn give_back(&mut self, bond: &str, port: PortId, original: &OriginalPort) -> Result<bool, PlaneError> {
        lock(&self.shared).give_back_orphan(bond, port, original)
    }

    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn watch(&mut self) -> Option<Box<dyn Watch>> {
        let events = Arc::clone(&lock(&self.shared).events);
        Some(Box::new(TeamWatch::new(events)))
    }
}

impl PlaneBond for TeamBond {
    fn plane(&self) -> &'static str {
        NAME
    }

    fn can(&mut self, options: &BondOptions) -> Result<(), PlaneError> {
        lock(&self.shared).check(options)?;
        match self.bond.ports.is_empty() {
            true => Ok(()),
            false => exact::check_mode(&self.bond, options),
        }
    }

    fn can_port(&mut self, options: &PortOptions) -> Result<(), PlaneError> {
        exact::check_port(options)
    }

    fn needs_to_set_addresses(&self) -> Option<&'static str> {
        Some("the team driver sets that of every port; a bond with plane=tc and mode=active-backup can use it")
    }

    fn attach(&mut self, port: PortId, base: &PortBase) -> Result<(), PlaneError> {
        lock(&self.shared).take_in(&self.name, &mut self.bond, port, base)
    }

    fn detach(&mut self, port: PortId, original: &OriginalPort) -> Result<bool, PlaneError> {
        lock(&self.shared).give_back(&self.name, &mut self.bond, port, original)
    }

    fn forget(&mut self, port: PortId) -> Result<(), PlaneError> {
        self.bond.forget(port);
        Ok(())
    }

    fn program(&mut self, plan: &ForwardingPlan) -> Applied {
        if let Err(error) = can::check(plan) {
            return Applied::refused(error, self.bond.mac, plan);
        }
        let shared = &mut *lock(&self.planning);
        program::apply(&mut shared.driver, &mut shared.links, &self.name, &mut self.bond, plan)
    }

    fn refresh(&mut self) -> Result<(), PlaneError> {
        lock(&self.planning).refresh(&self.name, &mut self.bond)
    }

    fn changed_by_others(&mut self, reports: &[Report]) -> bool {
        lock(&self.planning).is_changed(&mut self.bond, reports)
    }

    fn keep_ipv6_off(&mut self, port: PortId) -> Result<(), PlaneError> {
        match self.bond.ports.contains_key(&port) {
            true => switch_ipv6_off(&mut lock(&self.planning).links, port),
            false => Ok(()),
        }
    }

    /// The kernel counts frames that a backup port refuses as unwanted, unless a packet socket on the port took them.
    fn counters(&mut self, port: PortId) -> Result<PortCounters, PlaneError> {
        let links = &mut lock(&self.planning).links;
        let read = || format!("read the counters of {}", name_of(port));
        let now = step(read, || links.statistics(port.0))?.ok_or(PlaneError::PortGone { port })?;
        let base = self.bond.bases.get(&port).copied();
        Ok(since(base.unwrap_or_default(), now))
    }

    fn port_signs(&self) -> PortSigns {
        PortSigns {
            master: Some(self.bond.ifindex),
            ..PortSigns::default()
        }
    }

    fn renamed(&mut self, new: &str) {
        self.name = new.to_owned();
        let links = &mut lock(&self.planning).links;
        for port in self.bond.ports.keys() {
            label(links, new, port.0, &port_alias(new));
        }
    }

    fn destroy(self: Box<Self>) -> Result<(), PlaneError> {
        delete(&mut lock(&self.shared).links, &self.name, self.bond.ifindex)
    }
}

/// The right to take over devices that another agent may have made whose state is lost; none if another agent of this network
/// namespace has it. It is a byte of one file, the inode number of the namespace, because the namespace has no file of its own
/// that only root can open. Agents that share the network but not `/run`, as in containers, do not see each other's.
fn lock_orphans() -> io::Result<Option<File>> {
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let file = private_file(Path::new(ORPHAN_LOCK))?;
    Ok(lock_byte(&file, namespace)?.then_some(file))
}

/// Not in a run directory: several agents of one namespace have one each.
const ORPHAN_LOCK: &str = "/run/bondd-team.lock";

fn since(base: Statistics, now: Statistics) -> PortCounters {
    let unwanted = now.rx_unwanted.saturating_sub(base.rx_unwanted);
    PortCounters {
        tx_frames: now.tx_frames.saturating_sub(base.tx_frames),
        tx_bytes: now.tx_bytes.saturating_sub(base.tx_bytes),
        rx_frames: now.rx_frames.saturating_sub(base.rx_frames).saturating_sub(unwanted),
        rx_bytes: now.rx_bytes.saturating_sub(base.rx_bytes),
        rx_dropped: unwanted,
    }
}

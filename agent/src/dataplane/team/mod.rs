//! The team data plane: the kernel's team driver, told over generic netlink what to forward.
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
//! | `device`, `port` | the team device; ports taken in and given back |
//! | `program` | from the plan in force to the wanted one, and in which order |
//! | `watch` | options that somebody else changes |

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::dataplane::wanted::{PortPlan, Wanted, spread_of};
use bond_modes::options::PortOptions;
use bond_modes::{BondOptions, PortId};
use bond_monitors::{LinkReport, MacAddr, ReceiveStamps};

use self::driver::{Driver, mode_of};
use self::genl::{Events, Genl};
use self::options::{Key, Name, Settings, Value};
use self::probe::Abilities;
use super::port::{port_alias, read_original};
use super::step::{TEAM, step, unknown};
use super::{
    Applied, BondBase, BondDevice, BondName, Dataplane, Observed, OriginalPort, PlaneError, PlaneReport, PortBase,
    PortCounters, Touched,
};
use crate::locks::{lock_byte, private_file};
use crate::netlink::{Link, Links, Statistics};

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
    links: Links,
    driver: Driver,
    events: Events,
    /// Held by the one agent of this network namespace that takes over devices without saved state.
    orphan_lock: Option<File>,
    /// What the kernel can do, when it was tried last.
    abilities: Option<Abilities>,
    bonds: BTreeMap<BondName, Bond>,
}

/// A bond that this process made or took over.
struct Bond {
    ifindex: u32,
    /// Address in force.
    mac: MacAddr,
    /// Attached ports with their settings in force.
    ports: BTreeMap<PortId, PortPlan>,
    /// The driver's options as far as known.
    settings: Settings,
    /// What each port had counted when it was attached, or taken over.
    bases: BTreeMap<PortId, Statistics>,
}

impl Bond {
    /// An option has this value now, with what the driver makes of it.
    fn note(&mut self, key: Key, value: Value) {
        if let (Name::Enabled, Some(port), Value::Flag(false)) = (key.name, key.port, &value) {
            self.forget_cells(port);
        }
        self.settings.insert(key, value);
    }

    /// A port that is off loses its cells. [team_mode_loadbalance.c: lb_tx_hash_to_port_mapping_null_port]
    fn forget_cells(&mut self, port: PortId) {
        let cells = self.settings.iter_mut().filter(|(key, _)| key.name == Name::Cell);
        for (_, value) in cells.filter(|(_, value)| value.as_u32() == Some(port.0)) {
            *value = Value::U32(0);
        }
    }

    /// A port has left: with it go its options, its cells, and its being the active one.
    /// [team_mode_activebackup.c: ab_port_leave]
    fn forget(&mut self, port: PortId) {
        self.ports.remove(&port);
        self.bases.remove(&port);
        self.settings.retain(|key, _| key.port != Some(port));
        self.forget_cells(port);
        if let Some(active) = self.settings.get_mut(&Key::team(Name::ActivePort))
            && active.as_u32() == Some(port.0)
        {
            *active = Value::U32(0);
        }
    }
}

impl TeamPlane {
    /// A plane for the network namespace of the calling thread. Whether the kernel has the driver is found out when it matters.
    pub fn open() -> Result<TeamPlane, PlaneError> {
        let open = || "open a generic netlink socket".to_owned();
        let orphan_lock = lock_orphans().unwrap_or_else(|error| {
            log::warn!("cannot lock {ORPHAN_LOCK}, so team devices without saved state are left alone: {error}");
            None
        });
        Ok(TeamPlane {
            links: step(|| "open a netlink socket".to_owned(), Links::open)?,
            driver: Driver::over(step(open, Genl::open)?),
            events: step(open, Events::open)?,
            orphan_lock,
            abilities: None,
            bonds: BTreeMap::new(),
        })
    }

    /// Whether the kernel can do enough. What it can is remembered; what it cannot may have been installed since.
    fn can(&mut self, enough: impl Fn(&Abilities) -> bool) -> Result<bool, PlaneError> {
        if !self.abilities.as_ref().is_some_and(&enough) {
            self.abilities = Some(probe::run()?);
        }
        Ok(self.abilities.as_ref().is_some_and(enough))
    }

    /// Gets to know the driver, which has a number only while its module is there, and listens to it.
    fn meet(&mut self) -> io::Result<()> {
        let family = self.driver.meet()?;
        self.events.join(family)
    }

    fn report(&mut self, link: &Link) -> LinkReport {
        let (speed, duplex) = self.links.speed_duplex(&link.report.name);
        LinkReport {
            speed,
            duplex,
            ..link.report.clone()
        }
    }

    /// The interface of a bond.
    fn device(&mut self, name: &str, ifindex: u32) -> Result<Link, PlaneError> {
        step(|| format!("read {name}"), || self.links.by_index(ifindex))?.ok_or_else(|| unknown(name))
    }
}

impl Dataplane for TeamPlane {
    fn name(&self) -> &'static str {
        "team"
    }

    fn probe(&mut self) -> Result<(), PlaneError> {
        match self.can(|abilities| !abilities.is_empty())? {
            true => Ok(()),
            false => Err(TEAM.unsupported()),
        }
    }

    fn express(&mut self, options: &BondOptions) -> Result<(), PlaneError> {
        exact::check(options)?;
        let spread = spread_of(&bond_modes::spread(options))?;
        match mode_of(spread) {
            Some((_, feature)) if !self.can(|abilities| abilities.can(spread))? => Err(feature.unsupported()),
            _ => Ok(()),
        }
    }

    fn express_for(&mut self, bond: &BondName, options: &BondOptions) -> Result<(), PlaneError> {
        self.express(options)?;
        let known = self.bonds.get(bond).filter(|known| !known.ports.is_empty());
        known.map_or(Ok(()), |known| exact::check_mode(known, options))
    }

    fn reports(&mut self, options: &BondOptions) -> Vec<PlaneReport> {
        self.abilities = None;
        vec![PlaneReport::of(self, options)]
    }

    fn express_port(&mut self, _bond: &BondName, options: &PortOptions) -> Result<(), PlaneError> {
        exact::check_port(options)
    }

    fn bonds(&mut self) -> Result<Vec<BondName>, PlaneError> {
        self.find_bonds()
    }

    fn observe(&mut self, bond: &BondName) -> Result<Option<Observed>, PlaneError> {
        let Some(found) = self.find(bond)? else {
            self.bonds.remove(bond);
            return Ok(None);
        };
        let (adopted, plan) = self.adopt(bond, &found)?;
        self.bonds.insert(bond.clone(), adopted);
        let mut ports = Vec::new();
        for &port in plan.ports.keys() {
            if let Some(link) = step(|| format!("read {port}"), || self.links.by_index(port.0))? {
                ports.push((port, self.report(&link)));
            }
        }
        Ok(Some(Observed {
            ifindex: found.link.ifindex,
            report: self.report(&found.link),
            ports,
            plan,
        }))
    }

    fn create(&mut self, bond: &BondName, base: &BondBase) -> Result<BondDevice, PlaneError> {
        let (made, link) = self.make(bond, spread_of(&bond_modes::spread(&base.options))?)?;
        let ifindex = made.ifindex;
        self.bonds.insert(bond.clone(), made);
        let report = self.report(&link);
        Ok(BondDevice { ifindex, report })
    }

    fn original(&mut self, port: PortId) -> Result<OriginalPort, PlaneError> {
        read_original(&mut self.links, port)
    }

    fn attach(&mut self, bond: &BondName, port: PortId, base: &PortBase) -> Result<(), PlaneError> {
        self.take_in(bond, port, base)
    }

    fn detach(&mut self, bond: &BondName, port: PortId, original: &OriginalPort) -> Result<(), PlaneError> {
        self.give_back(bond, port, original)
    }

    fn holds(&self, bond: &BondName, link: &Link) -> bool {
        let known = self.bonds.get(bond);
        known.is_none_or(|known| link.master == Some(known.ifindex))
    }

    /// The driver passes the bond's multicast settings on to every port.
    fn hears_groups(&self, _bond: &BondName, _link: &Link) -> bool {
        true
    }

    fn program(&mut self, bond: &BondName, plan: &Wanted) -> Applied {
        match self.bonds.get_mut(bond) {
            Some(known) => program::apply(&mut self.driver, &mut self.links, bond, known, plan),
            None => unknown(bond).into(),
        }
    }

    fn refresh(&mut self, bond: &BondName) -> Result<(), PlaneError> {
        let known = self.bonds.get_mut(bond).ok_or_else(|| unknown(bond))?;
        let team = known.ifindex;
        if let Some(link) = step(|| format!("read {bond}"), || self.links.by_index(team))? {
            known.mac = link.report.mac;
        }
        known.settings = step(|| format!("read the options of {bond}"), || self.driver.options(team))?;
        Ok(())
    }

    fn destroy(&mut self, bond: &BondName) -> Result<(), PlaneError> {
        let ifindex = match self.bonds.remove(bond) {
            Some(known) => Some(known.ifindex),
            None => self.find(bond)?.map(|found| found.link.ifindex),
        };
        ifindex.map_or(Ok(()), |ifindex| self.remove(bond, ifindex))
    }

    fn renamed(&mut self, old: &str, new: &BondName) {
        let Some(bond) = self.bonds.remove(old) else { return };
        for port in bond.ports.keys() {
            // A label for people; a failure does no harm.
            if let Err(error) = self.links.set_alias(port.0, &port_alias(new)) {
                log::warn!("{new}: cannot set an alias: {error}");
            }
        }
        self.bonds.insert(new.clone(), bond);
    }

    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The kernel counts frames that a backup port refuses as not taken by anybody, unless a packet socket on the port took them.
    fn counters(&mut self, bond: &BondName, port: PortId) -> Result<PortCounters, PlaneError> {
        let known = self.bonds.get(bond).ok_or_else(|| unknown(bond))?;
        let read = || format!("read the counters of {port}");
        let now = step(read, || self.links.statistics(port.0))?.ok_or(PlaneError::PortGone { port })?;
        Ok(since(known.bases.get(&port).copied().unwrap_or_default(), now))
    }

    /// The driver does not report when frames came.
    fn heard(&mut self, _bond: &BondName, _port: PortId) -> Result<ReceiveStamps, PlaneError> {
        Ok(ReceiveStamps::default())
    }

    fn event_fd(&self) -> Option<RawFd> {
        Some(self.events.as_raw_fd())
    }

    fn read_events(&mut self, budget: usize) -> io::Result<Touched> {
        self.read_changes(budget)
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
        last_rx: 0,
    }
}

/// What makes a team device ours: an interval between announcements that are not made. The number is "bond".
const MARK: [(Key, Value); 2] = [
    (
        Key {
            name: Name::NotifyPeersCount,
            port: None,
            index: None,
        },
        Value::U32(0),
    ),
    (
        Key {
            name: Name::NotifyPeersInterval,
            port: None,
            index: None,
        },
        Value::U32(0x626f_6e64),
    ),
];

//! The state of each bond, and the sockets that all bonds of the plane share.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bond_modes::PortId;
use bond_modes::plan::PortPlan;
use bond_monitors::MacAddr;

use super::driver::Driver;
use super::genl::Events;
use super::options::{Key, Name, Settings, Value};
use super::probe::{self, Abilities};
use crate::dataplane::PlaneError;
use crate::dataplane::step::{bond_gone, step};
use crate::netlink::{Link, RouteSocket, Statistics};

/// What the plane is called.
pub const NAME: &str = "team";

/// What all bonds of a plane work with. It is locked for one call to the plane or a bond at a time; none makes another.
pub(super) struct Shared {
    pub(super) links: RouteSocket,
    pub(super) driver: Driver,
    /// The loop has it too.
    pub(super) events: Arc<Events>,
    /// What the kernel can do, when it was tried last.
    pub(super) abilities: Option<Abilities>,
}

/// State in force of a bond that this process made or took over.
pub(super) struct Bond {
    pub(super) ifindex: u32,
    /// Address in force.
    pub(super) mac: MacAddr,
    /// Attached ports with their settings in force, except what they accept: the driver's options say that.
    pub(super) ports: BTreeMap<PortId, PortPlan>,
    /// The driver's options as far as known.
    pub(super) settings: Settings,
    /// What each port had counted when it was attached, or taken over.
    pub(super) bases: BTreeMap<PortId, Statistics>,
}

impl Bond {
    /// An option has this value now, with what the driver makes of it.
    pub(super) fn note(&mut self, key: Key, value: Value) {
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
    pub(super) fn forget(&mut self, port: PortId) {
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

impl Shared {
    /// Whether the kernel can do enough. What it can is remembered; what it cannot may have been installed since.
    pub(super) fn can(&mut self, enough: impl Fn(&Abilities) -> bool) -> Result<bool, PlaneError> {
        if !self.abilities.as_ref().is_some_and(&enough) {
            self.abilities = Some(probe::run()?);
        }
        Ok(self.abilities.as_ref().is_some_and(enough))
    }

    /// See [`PlaneBond::refresh`](crate::dataplane::PlaneBond::refresh).
    pub(super) fn refresh(&mut self, name: &str, bond: &mut Bond) -> Result<(), PlaneError> {
        let team = bond.ifindex;
        if let Some(link) = step(|| format!("read {name}"), || self.links.by_index(team))? {
            bond.mac = link.report.mac;
        }
        bond.settings = step(|| format!("read the options of {name}"), || self.driver.options(team))?;
        Ok(())
    }

    /// Looks up the driver's family number, which it has only while its module is loaded, and subscribes to its events.
    pub(super) fn look_up(&mut self) -> io::Result<()> {
        let family = self.driver.look_up()?;
        self.events.join(family)
    }

    /// The interface of a bond.
    pub(super) fn device(&mut self, name: &str, ifindex: u32) -> Result<Link, PlaneError> {
        step(|| format!("read {name}"), || self.links.by_index(ifindex))?.ok_or_else(|| bond_gone(name))
    }
}

/// What makes a team device ours: an interval between announcements that are not made. The number is "bond".
pub(super) const MARK: [(Key, Value); 2] = [
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

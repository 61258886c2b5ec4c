//! The saved file: soft state that the kernel cannot hold, in types of its own.
//!
//! Later agents read this file, and earlier ones after a downgrade. So fields may be added, with a default, but never renamed
//! or removed, independent of the types that hold the state while the agent runs.

use std::collections::BTreeMap;

use bond_monitors::{
    AnyMonitor, ArpMonitor, CarrierMonitor, Combine, Debounce, Duplex, Health, LinkReport, MacAddr, Speed, Time,
};
use serde::{Deserialize, Serialize};

use super::Bond;
use super::announce::{Announcements, Announcer};
use super::device::{Device, MacOrigin};
use crate::deadline::Deadline;
use crate::ids::PortId;
use crate::mode::{AnyMode, ModeSaved};
use crate::options::{BondOptions, PortOptions};
use crate::plan::ForwardingPlan;
use crate::port::Port;

/// Soft state of a bond; valid until the machine reboots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    options: BondOptions,
    device: SavedDevice,
    ports: Vec<SavedPort>,
    #[serde(default)]
    mode: SavedMode,
    #[serde(default)]
    notifier: SavedAnnouncements,
    #[serde(default)]
    rejoin: SavedAnnouncements,
}

/// See [`Device`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedDevice {
    up: bool,
    mac: MacAddr,
    mac_origin: SavedOrigin,
    born_mac: MacAddr,
    #[serde(default)]
    mac_unsure: bool,
    #[serde(default)]
    unwanted_mac: Option<MacAddr>,
    mtu: u32,
    promisc: bool,
    allmulti: bool,
}

/// See [`MacOrigin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SavedOrigin {
    Random,
    Port,
    User,
}

/// See [`Port`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedPort {
    id: PortId,
    name: String,
    permanent_mac: MacAddr,
    own_mac: MacAddr,
    speed: Speed,
    duplex: Duplex,
    failures: u32,
    #[serde(default)]
    prio: i32,
    #[serde(default)]
    queue_id: u16,
    monitor: CarrierMonitor,
    #[serde(default)]
    arp: ArpMonitor,
    debounce: Debounce,
    delayed_since: Time,
}

/// See [`ModeSaved`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct SavedMode {
    active: Option<PortId>,
    force_primary: bool,
    left: Option<SavedLeft>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    state: BTreeMap<String, String>,
}

/// A port that was active, and until when it may still get frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedLeft {
    port: PortId,
    until: Time,
}

/// See [`Announcements`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SavedAnnouncements {
    left: u8,
    next: Time,
}

impl Saved {
    /// Options that were in force.
    pub fn options(&self) -> &BondOptions {
        &self.options
    }

    pub(super) fn of(bond: &Bond) -> Saved {
        let (notifier, rejoin) = bond.announcer.announcements();
        Saved {
            options: bond.options.clone(),
            device: SavedDevice::of(&bond.device),
            ports: bond.ports.iter().map(SavedPort::of).collect(),
            mode: SavedMode::of(bond.mode.save()),
            notifier: SavedAnnouncements::of(notifier),
            rejoin: SavedAnnouncements::of(rejoin),
        }
    }

    /// The assumed state of a bond whose file was lost.
    pub(super) fn unknown(options: BondOptions, report: &LinkReport) -> Saved {
        Saved {
            options,
            device: SavedDevice::of(&Device::new(report, MacOrigin::Port)),
            ports: Vec::new(),
            mode: SavedMode::default(),
            notifier: SavedAnnouncements::default(),
            rejoin: SavedAnnouncements::default(),
        }
    }

    /// A bond with this state, except that of its mode, see [`crate::mode::Mode::adopt`].
    pub(super) fn into_bond(self, now: Time, plan: ForwardingPlan) -> (Bond, ModeSaved) {
        let mode = AnyMode::new(self.options.mode);
        let mut bond = Bond::assemble(now, self.options, self.device.restore(), mode, plan);
        for port in self.ports {
            let port = port.restore(now, &bond.options);
            bond.ports.push(port);
        }
        bond.announcer = Announcer::resumed(self.notifier.restore(), self.rejoin.restore());
        (bond, self.mode.restore())
    }
}

impl SavedDevice {
    fn of(device: &Device) -> Self {
        SavedDevice {
            up: device.up,
            mac: device.mac,
            mac_origin: match device.mac_origin {
                MacOrigin::Random => SavedOrigin::Random,
                MacOrigin::Port => SavedOrigin::Port,
                MacOrigin::User => SavedOrigin::User,
            },
            born_mac: device.born_mac,
            mac_unsure: device.mac_unsure,
            unwanted_mac: device.unwanted_mac,
            mtu: device.mtu,
            promisc: device.promisc,
            allmulti: device.allmulti,
        }
    }

    fn restore(self) -> Device {
        Device {
            up: self.up,
            mac: self.mac,
            mac_origin: match self.mac_origin {
                SavedOrigin::Random => MacOrigin::Random,
                SavedOrigin::Port => MacOrigin::Port,
                SavedOrigin::User => MacOrigin::User,
            },
            born_mac: self.born_mac,
            mac_unsure: self.mac_unsure,
            unwanted_mac: self.unwanted_mac,
            mtu: self.mtu,
            promisc: self.promisc,
            allmulti: self.allmulti,
        }
    }
}

impl SavedPort {
    fn of(port: &Port) -> Self {
        SavedPort {
            id: port.id,
            name: port.name.clone(),
            permanent_mac: port.permanent_mac,
            own_mac: port.own_mac,
            speed: port.speed,
            duplex: port.duplex,
            failures: port.failures,
            prio: port.options.prio,
            queue_id: port.options.queue_id,
            monitor: CarrierMonitor::new(port.carrier()),
            arp: port.arp().cloned().unwrap_or_default(),
            debounce: Debounce::in_state(port.link()),
            delayed_since: port.delayed_since,
        }
    }

    fn restore(self, now: Time, options: &BondOptions) -> Port {
        let mut health = Health::new(self.monitor.carrier(), self.debounce.state());
        if options.asks_targets() {
            health.watch_by(now, vec![AnyMonitor::Arp(self.arp)], Combine::All);
        }
        Port {
            id: self.id,
            name: self.name,
            permanent_mac: self.permanent_mac,
            own_mac: self.own_mac,
            speed: self.speed,
            duplex: self.duplex,
            failures: self.failures,
            options: PortOptions {
                prio: self.prio,
                queue_id: self.queue_id,
            },
            health,
            delayed_since: self.delayed_since,
        }
    }
}

impl SavedMode {
    fn of(mode: ModeSaved) -> Self {
        SavedMode {
            active: mode.active,
            force_primary: mode.force_primary,
            left: mode.left.map(|(port, until)| SavedLeft { port, until }),
            state: mode.state,
        }
    }

    fn restore(self) -> ModeSaved {
        ModeSaved {
            active: self.active,
            force_primary: self.force_primary,
            left: self.left.map(|left| (left.port, left.until)),
            state: self.state,
        }
    }
}

impl SavedAnnouncements {
    fn of(rounds: Announcements) -> Self {
        SavedAnnouncements {
            left: rounds.left,
            next: rounds.next.due(),
        }
    }

    fn restore(self) -> Announcements {
        Announcements {
            left: self.left,
            next: Deadline::at(self.next),
        }
    }
}

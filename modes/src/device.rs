//! The bond's own interface, and how addresses move between it and the ports.

use bond_monitors::{LinkReport, MacAddr, Time};
use serde::{Deserialize, Serialize};

use crate::bond::{Bond, Wish};
use crate::ids::PortId;
use crate::options::FailOverMac;

/// The bond's own interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Device {
    pub up: bool,
    pub mac: MacAddr,
    pub mac_origin: MacOrigin,
    /// The address it was made with or that the operator gave it, to go back to when the last port takes its own along.
    pub born_mac: MacAddr,
    /// The last plan left the interface with an address that nobody asked for.
    #[serde(default)]
    pub mac_unsure: bool,
    /// That address; a state of an earlier version does not say which.
    #[serde(default)]
    pub unwanted_mac: Option<MacAddr>,
    pub mtu: u32,
    pub promisc: bool,
    pub allmulti: bool,
}

/// Where the bond's address comes from. [bond_main.c: bond_enslave, addr_assign_type]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MacOrigin {
    /// Chosen at random when the bond was made; the first port replaces it.
    Random,
    /// From a port.
    Port,
    /// From the operator: kept.
    User,
}

impl Device {
    /// From a link message.
    pub fn new(report: &LinkReport, mac_origin: MacOrigin) -> Self {
        Device {
            up: report.admin_up,
            mac: report.mac,
            mac_origin,
            born_mac: report.mac,
            mac_unsure: false,
            unwanted_mac: None,
            mtu: report.mtu,
            promisc: report.promisc,
            allmulti: report.allmulti,
        }
    }

    /// A later link message. A new address is the operator's wish; with `fail_over_mac` the driver ignores it, and so do we.
    /// [bond_main.c: bond_set_mac_address]
    pub fn update(&mut self, report: &LinkReport, fail_over_mac: FailOverMac) {
        let unwanted = self.mac_unsure && self.unwanted_mac.is_none_or(|mac| mac == report.mac);
        if report.mac != self.mac && fail_over_mac == FailOverMac::None && !unwanted {
            self.mac = report.mac;
            self.born_mac = report.mac;
            self.mac_origin = MacOrigin::User;
        }
        self.up = report.admin_up;
        self.mtu = report.mtu;
        self.promisc = report.promisc;
        self.allmulti = report.allmulti;
    }

    /// A plan left the interface with this address, if that is not the plan's.
    pub fn doubt(&mut self, left_with: Option<MacAddr>) {
        self.mac_unsure = left_with.is_some();
        self.unwanted_mac = left_with;
    }

    pub fn take_mac_of_first(&mut self, port: MacAddr) {
        if self.mac_origin == MacOrigin::Random {
            self.mac = port;
            self.mac_origin = MacOrigin::Port;
        }
    }

    /// The address goes with the last port. differs: an address that the operator set is kept.
    pub fn give_mac_back(&mut self) {
        self.mac = self.born_mac;
        if self.mac_origin == MacOrigin::Port {
            self.mac_origin = MacOrigin::Random;
        }
    }
}

impl Bond {
    /// The address to give a port that is about to be attached; none to leave it its own. [bond_main.c: bond_enslave]
    pub fn mac_for_new_port(&self, own: MacAddr) -> Option<MacAddr> {
        let first = self.ports.is_empty();
        match self.options.moving_macs() {
            FailOverMac::None if first && self.device.mac_origin == MacOrigin::Random => None,
            FailOverMac::None => Some(self.device.mac),
            FailOverMac::Active => None,
            FailOverMac::Follow if first || own != self.device.mac => None,
            FailOverMac::Follow => (self.ports.len()..)
                .map(|place| sibling(own, place))
                .find(|mac| self.ports.iter().all(|port| port.own_mac != *mac)),
        }
    }

    pub(crate) fn on_bond_link(&mut self, now: Time, report: &LinkReport) -> Wish {
        if report.admin_up && !self.device.up {
            self.next_poll = now;
            self.resume_probing(now, now);
        } else if !report.admin_up {
            self.stop_announcing();
        }
        self.device.update(report, self.options.moving_macs());
        Wish::Nothing
    }

    /// [bond_main.c: bond_do_fail_over_mac]
    pub(crate) fn move_macs(&mut self, from: Option<PortId>, to: Option<PortId>) {
        let bond_mac = self.device.mac;
        let Some(new) = to else { return };
        match self.options.moving_macs() {
            FailOverMac::None => {}
            FailOverMac::Active => self.device.mac = self.ports.get(new).map_or(bond_mac, |port| port.own_mac),
            FailOverMac::Follow => {
                let Some(port) = self.ports.get_mut(new) else { return };
                let parked = std::mem::replace(&mut port.own_mac, bond_mac);
                // Whoever had the bond's address gets the new port's in exchange.
                let holder = from.or_else(|| {
                    self.ports
                        .iter()
                        .find(|port| port.id != new && port.own_mac == bond_mac)
                        .map(|port| port.id)
                });
                if let Some(old) = holder.and_then(|id| self.ports.get_mut(id)) {
                    old.own_mac = parked;
                }
            }
        }
    }
}

/// An address for a port that came with the bond's own: locally administered, told apart by its place.
/// [bond_main.c: bond_enslave, BOND_FOM_FOLLOW]
fn sibling(mac: MacAddr, place: usize) -> MacAddr {
    let mut bytes = mac.0;
    bytes[0] = (bytes[0] | 0x02) & !0x01;
    bytes[5] ^= (place as u8) | 0x80;
    MacAddr(bytes)
}

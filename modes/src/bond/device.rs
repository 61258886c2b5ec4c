//! The bond's own interface: what the operator set on it, and where its address comes from.

use bond_monitors::{LinkReport, MacAddr};

use crate::options::FailOverMac;

/// The bond's own interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub up: bool,
    pub mac: MacAddr,
    pub mac_origin: MacOrigin,
    /// The address it was made with or that the operator gave it, to go back to when the last port takes its own along.
    pub born_mac: MacAddr,
    /// The last plan left the interface with an address that nobody asked for.
    pub mac_unsure: bool,
    /// That address; a state of an earlier version does not say which.
    pub unwanted_mac: Option<MacAddr>,
    pub mtu: u32,
    pub promisc: bool,
    pub allmulti: bool,
}

/// Where the bond's address comes from. [bond_main.c: bond_enslave, addr_assign_type]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// An interface that is yet to be made.
    pub fn unknown() -> Self {
        Device {
            up: false,
            mac: MacAddr::default(),
            mac_origin: MacOrigin::Random,
            born_mac: MacAddr::default(),
            mac_unsure: false,
            unwanted_mac: None,
            mtu: 0,
            promisc: false,
            allmulti: false,
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

    /// The first port gives its address, unless the operator has.
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

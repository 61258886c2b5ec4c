//! The bond's own interface: the operator's settings and the origin of its address.

use bond_monitors::{LinkReport, MacAddr};

use crate::options::FailOverMac;

/// The bond's own interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub up: bool,
    pub mac: MacAddr,
    pub mac_origin: MacOrigin,
    /// Its first address, or the operator's; used again when the last port leaves with its own.
    pub born_mac: MacAddr,
    /// The last plan left the interface with an unwanted address.
    pub mac_unsure: bool,
    /// That address; unknown in a state of an earlier version.
    pub unwanted_mac: Option<MacAddr>,
    pub mtu: u32,
    pub promisc: bool,
    pub allmulti: bool,
}

/// Origin of the bond's address. [bond_main.c: bond_enslave, addr_assign_type]
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

    /// An interface that does not exist yet.
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

    /// Handles a later link message. A new address was set by the operator; with `fail_over_mac` the driver ignores it, and so
    /// do we.
    /// [bond_main.c: bond_set_mac_address]
    pub fn update(&mut self, report: &LinkReport, fail_over_mac: FailOverMac) {
        if report.mac == self.mac {
            // An address that comes after this one is not what the failed plan left.
            self.doubt(None);
        }
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

    /// A plan left the interface with this address because it could not set its own; `None` if it did.
    pub fn doubt(&mut self, left_with: Option<MacAddr>) {
        self.mac_unsure = left_with.is_some();
        self.unwanted_mac = left_with;
    }

    /// Takes the address of the first port, unless the operator set one.
    pub fn take_mac_of_first(&mut self, port: MacAddr) {
        if self.mac_origin == MacOrigin::Random {
            self.mac = port;
            self.mac_origin = MacOrigin::Port;
        }
    }

    /// Drops the address with the last port. differs: an address set by the operator is kept.
    pub fn give_mac_back(&mut self) {
        self.mac = self.born_mac;
        if self.mac_origin == MacOrigin::Port {
            self.mac_origin = MacOrigin::Random;
        }
    }
}

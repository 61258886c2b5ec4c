//! Options of a bond, in the spelling of the kernel's driver.
//!
//! [`TABLE`] has one row per option, in the order in which the driver applies them; parsing, showing, checking files and help
//! all read it. [bond_options.c, bond_netlink.c: bond_changelink]

mod absent;
mod apply;
mod change;
mod error;
mod port;
mod row;
mod shown;
mod table;
mod value;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bond_monitors::{Delays, SignOfLife, Window};

use crate::hash::XmitHashPolicy;
use crate::named::named;

pub use crate::mode::ModeName;
pub use absent::{is_absent_option, is_absent_parameter};
pub(crate) use apply::restore;
pub use apply::{apply, check, nearest, parse};
pub use change::{Change, Context};
pub use error::OptionError;
pub use port::{PORT_TABLE, PortOptions};
pub use row::{Files, Kind, Modes, OptionRow, SetWhen, Since};
pub use shown::{OptionValue, millis};
pub use table::{TABLE, find, row_name, show, show_all};
pub use value::{Range, is_interface_name};

/// Effective options of a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondOptions {
    /// How traffic is spread.
    pub mode: ModeName,
    /// How often carrier is polled; zero: never, and link events have no effect.
    pub miimon: Duration,
    /// How long carrier must be back before the port is used.
    pub updelay: Duration,
    /// How long carrier must be lost before the port is no longer used.
    pub downdelay: Duration,
    /// Time between two announcements after a failover; zero: miimon.
    pub peer_notif_delay: Duration,
    /// Ask the network stack for carrier; else the driver, by ethtool and MII registers.
    pub use_carrier: bool,
    /// How often targets are probed; zero: never. Not together with miimon.
    pub arp_interval: Duration,
    /// Targets probed by ARP; at most 16, each once.
    pub arp_ip_target: Vec<Ipv4Addr>,
    /// Targets probed by neighbour solicitations; at most 16, each once.
    pub ns_ip6_target: Vec<Ipv6Addr>,
    /// Which frames prove that a port works.
    pub arp_validate: ArpValidate,
    /// Whether one target that answers is enough.
    pub arp_all_targets: ArpAllTargets,
    /// How many intervals a port may stay silent; at least 1.
    pub arp_missed_max: u8,
    /// Name of the preferred port, attached or not.
    pub primary: Option<String>,
    /// When the preferred port becomes active again.
    pub primary_reselect: PrimaryReselect,
    /// How MAC addresses move at a failover.
    pub fail_over_mac: FailOverMac,
    /// How often addresses are announced after a failover.
    pub num_grat_arp: u8,
    /// How often multicast memberships are reported after a failover.
    pub resend_igmp: u8,
    /// Addresses behind the bond are announced after a failover.
    pub learn_packets: bool,
    /// Stored and shown, in seconds; acts in balance-tlb and balance-alb only.
    pub lp_interval: u32,
    /// Frames from backup ports are accepted, too.
    pub all_slaves_active: bool,
    /// Stored and shown; acts in 802.3ad only. [bond_options.c: bond_option_min_links_set]
    pub min_links: u32,
    /// Fields that balance-xor hashes.
    pub xmit_hash_policy: XmitHashPolicy,
    /// How many frames in a row balance-rr sends through one port; 0 for a random port each time.
    pub packets_per_slave: u32,
}

impl Default for BondOptions {
    fn default() -> Self {
        BondOptions {
            mode: ModeName::BalanceRr,
            // differs: the driver's default is 0, which means no monitor.
            miimon: Duration::from_millis(100),
            updelay: Duration::ZERO,
            downdelay: Duration::ZERO,
            peer_notif_delay: Duration::ZERO,
            use_carrier: true,
            arp_interval: Duration::ZERO,
            arp_ip_target: Vec::new(),
            ns_ip6_target: Vec::new(),
            arp_validate: ArpValidate::None,
            arp_all_targets: ArpAllTargets::Any,
            arp_missed_max: 2,
            primary: None,
            primary_reselect: PrimaryReselect::Always,
            fail_over_mac: FailOverMac::None,
            num_grat_arp: 1,
            resend_igmp: 1,
            learn_packets: true,
            lp_interval: 1,
            all_slaves_active: false,
            min_links: 0,
            xmit_hash_policy: XmitHashPolicy::Layer2,
            packets_per_slave: 1,
        }
    }
}

impl BondOptions {
    /// Targets are asked through the ports: the ARP monitor decides about links, with carrier. [bond_main.c: bond_open]
    pub fn asks_targets(&self) -> bool {
        !self.arp_interval.is_zero()
    }

    /// Carrier alone decides about links, after delays. [bond_main.c: bond_open]
    pub fn polls_carrier(&self) -> bool {
        !self.asks_targets() && !self.miimon.is_zero()
    }

    /// A monitor judges links; without one ports keep their state. [bond_main.c: bond_work_init_all]
    pub fn watches_links(&self) -> bool {
        self.asks_targets() || self.polls_carrier()
    }

    /// How long a change of a link must last before it counts; the ARP monitor has no such delays.
    pub fn delays(&self) -> Delays {
        if self.asks_targets() {
            return Delays::default();
        }
        Delays {
            up: self.updelay,
            down: self.downdelay,
        }
    }

    /// How often the monitor acts; zero without one.
    pub fn monitor_interval(&self) -> Duration {
        self.arp_interval.max(self.miimon)
    }

    /// How long a sign of life counts for the ARP monitor.
    pub fn window(&self) -> Window {
        Window {
            interval: self.arp_interval,
        }
    }

    /// All targets of the ARP monitor.
    pub fn targets(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.arp_ip_target.iter().copied().map(IpAddr::V4);
        v4.chain(self.ns_ip6_target.iter().copied().map(IpAddr::V6))
    }
}

named! {
    /// When a preferred port that recovered becomes active again.
    PrimaryReselect {
        /// At once.
        Always = "always" 0,
        /// If it is faster than the active one.
        Better = "better" 1,
        /// When the active one fails.
        Failure = "failure" 2,
    }
}

named! {
    /// Which frames prove that a port works.
    ArpValidate {
        /// Any frame of another host.
        None = "none" 0,
        /// On active ports only answers.
        Active = "active" 1,
        /// On backup ports only what proves the path.
        Backup = "backup" 2,
        /// Both.
        All = "all" 3,
        /// Any ARP and IPv6.
        Filter = "filter" 4,
        /// On active ports only answers, on others any ARP and IPv6.
        FilterActive = "filter_active" 5,
        /// On backup ports only what proves the path, on others any ARP and IPv6.
        FilterBackup = "filter_backup" 6,
    }
}

impl ArpValidate {
    /// Frames that count on a port in this role. [bonding.rst: arp_validate]
    pub fn counts(self, active: bool) -> SignOfLife {
        match (self, active) {
            (ArpValidate::All, _)
            | (ArpValidate::Active | ArpValidate::FilterActive, true)
            | (ArpValidate::Backup | ArpValidate::FilterBackup, false) => SignOfLife::Validated,
            (ArpValidate::Filter | ArpValidate::FilterActive | ArpValidate::FilterBackup, _) => SignOfLife::Probes,
            (ArpValidate::None | ArpValidate::Active | ArpValidate::Backup, _) => SignOfLife::Any,
        }
    }

    /// Whether answers are validated on any port.
    pub fn validates(self) -> bool {
        !matches!(self, ArpValidate::None | ArpValidate::Filter)
    }
}

named! {
    /// Whether one target that answers is enough.
    ArpAllTargets {
        /// One is enough.
        Any = "any" 0,
        /// All must answer.
        All = "all" 1,
    }
}

named! {
    /// How MAC addresses move at a failover.
    FailOverMac {
        /// All ports have the bond's address.
        None = "none" 0,
        /// The bond takes the address of its active port.
        Active = "active" 1,
        /// The active port gets the bond's address, the one before it gets the other back.
        Follow = "follow" 2,
    }
}

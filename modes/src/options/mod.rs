//! Options of a bond, as the kernel's driver spells them.
//!
//! [`TABLE`] has one row an option, in the order in which the driver applies them; parsing, showing, checking files and help
//! all read it. [bond_options.c, bond_netlink.c: bond_changelink]

mod apply;
mod error;
mod port;
mod table;
mod value;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use apply::{Change, Context, apply, check, parse};
pub use error::OptionError;
pub use port::{PORT_TABLE, PortOptions};
pub use table::{Modes, OptionRow, SetWhen, TABLE, find, show_all};
pub use value::is_interface_name;

/// Effective options of a bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BondOptions {
    /// How traffic is spread.
    pub mode: ModeName,
    /// How often carrier is polled; zero: never, and link events do not count either.
    pub miimon: Duration,
    /// How long carrier must be back before the port is used.
    pub updelay: Duration,
    /// How long carrier must be lost before the port is given up.
    pub downdelay: Duration,
    /// Time between two announcements after a failover; zero: miimon.
    pub peer_notif_delay: Duration,
    /// Ask the network stack for carrier; else the driver, by ethtool and MII registers.
    pub use_carrier: bool,
    /// Name of the preferred port, attached or not.
    pub primary: Option<String>,
    /// When the preferred port is taken back.
    pub primary_reselect: PrimaryReselect,
    /// How MAC addresses move at a failover.
    pub fail_over_mac: FailOverMac,
    /// How often addresses are announced after a failover.
    pub num_grat_arp: u8,
    /// Backup ports let frames in too.
    pub all_slaves_active: bool,
    /// Stored and shown; acts in 802.3ad only. [bond_options.c: bond_option_min_links_set]
    pub min_links: u32,
    /// What balance-xor hashes.
    pub xmit_hash_policy: XmitHashPolicy,
    /// How many frames in a row balance-rr sends through one port; 0 for a random port each time.
    pub packets_per_slave: u32,
}

impl Default for BondOptions {
    fn default() -> Self {
        BondOptions {
            mode: ModeName::BalanceRr,
            // differs: the driver's default is 0, a bond that nobody watches.
            miimon: Duration::from_millis(100),
            updelay: Duration::ZERO,
            downdelay: Duration::ZERO,
            peer_notif_delay: Duration::ZERO,
            use_carrier: true,
            primary: None,
            primary_reselect: PrimaryReselect::Always,
            fail_over_mac: FailOverMac::None,
            num_grat_arp: 1,
            all_slaves_active: false,
            min_links: 0,
            xmit_hash_policy: XmitHashPolicy::Layer2,
            packets_per_slave: 1,
        }
    }
}

impl BondOptions {
    /// How addresses move in this mode; elsewhere than in active-backup the option is only stored. [bond_main.c: bond_enslave]
    pub fn moving_macs(&self) -> FailOverMac {
        match self.mode {
            ModeName::ActiveBackup => self.fail_over_mac,
            _ => FailOverMac::None,
        }
    }

    /// Whether nothing decides about links.
    pub fn unmonitored(&self) -> bool {
        self.miimon.is_zero()
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal $number:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every value with its name and its number in the kernel's driver.
            pub const VALUES: &'static [($name, &'static str, u8)] = &[$(($name::$variant, $text, $number),)+];

            /// The kernel's name.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }

            /// The kernel's number.
            pub fn number(self) -> u8 {
                match self { $($name::$variant => $number,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named! {
    /// How traffic is spread.
    ModeName {
        /// One port after the other.
        BalanceRr = "balance-rr" 0,
        /// One port carries everything, the others wait.
        ActiveBackup = "active-backup" 1,
        /// Each flow through the port that its hash names.
        BalanceXor = "balance-xor" 2,
        /// Everything through every port.
        Broadcast = "broadcast" 3,
    }
}

named! {
    /// When a preferred port that recovered is taken back.
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

named! {
    /// What balance-xor hashes to choose a port. [bonding.rst: xmit_hash_policy]
    XmitHashPolicy {
        /// MAC addresses and EtherType.
        Layer2 = "layer2" 0,
        /// IP addresses and ports.
        Layer34 = "layer3+4" 1,
        /// MAC and IP addresses.
        Layer23 = "layer2+3" 2,
        /// As layer2+3, of the innermost headers of a tunnel.
        Encap23 = "encap2+3" 3,
        /// As layer3+4, of the innermost headers of a tunnel.
        Encap34 = "encap3+4" 4,
        /// VLAN tag and source MAC address.
        VlanSrcmac = "vlan+srcmac" 5,
    }
}

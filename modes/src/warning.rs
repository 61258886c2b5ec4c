//! Warnings as data; the agent makes the sentences.

use std::net::IpAddr;

use bond_monitors::MacAddr;
use serde::Serialize;

/// A setting that was made differently, or one with a consequence that the operator should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Warning {
    /// No monitor is configured: a failed port stays in use.
    Unmonitored,
    /// No target of the ARP monitor can be asked through this bond: ports follow their carrier.
    NoTarget,
    /// A target is reached through another interface, so it does not count.
    TargetElsewhere {
        /// Its address.
        target: IpAddr,
        /// That interface.
        device: String,
    },
    /// `prio` was set while a primary is attached, so it has no effect. [bond_options.c: bond_option_prio_set]
    PrioWithoutEffect {
        /// The port's name.
        port: String,
    },
    /// A delay was rounded down to a multiple of miimon. [bond_options.c: _bond_option_delay_set]
    DelayRounded {
        /// Its name.
        option: String,
        /// As asked for, in milliseconds.
        asked_ms: u64,
        /// In milliseconds.
        miimon_ms: u64,
        /// The effective value in milliseconds.
        used_ms: u64,
    },
    /// A first port keeps its address, so fail_over_mac was set to active. [bond_main.c: bond_enslave]
    AddressFixed {
        /// The port's name.
        port: String,
    },
    /// The driver reports no link by ethtool or MII, so the port counts as up for ever. [bond_main.c: bond_check_dev_link]
    LinkUnknown {
        /// The port's name.
        port: String,
    },
    /// Another program changed the address of a port.
    ForeignAddress {
        /// The port's name.
        port: String,
        /// Its address now.
        mac: MacAddr,
        /// The one that the bond uses.
        wanted: MacAddr,
    },
}

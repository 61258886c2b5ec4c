//! Vocabulary of links, shared by monitors, modes and agent.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::wire::MacAddr;

/// Whether a wire carries a signal right now, before any delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// Signal present and interface administratively up.
    On,
    /// No signal, or interface administratively down.
    Off,
}

impl Carrier {
    /// `On` for true.
    pub fn from_bool(on: bool) -> Self {
        if on { Carrier::On } else { Carrier::Off }
    }

    /// Whether it is `On`.
    pub fn is_on(self) -> bool {
        self == Carrier::On
    }
}

/// Speed in Mbit/s; `None` if the driver does not report it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Speed(pub Option<u32>);

impl Speed {
    /// For comparison by `primary_reselect=better`: unknown counts as the fastest. [bond_main.c: bond_should_change_active]
    pub fn rank(self) -> u32 {
        self.0.unwrap_or(u32::MAX)
    }
}

/// Duplex as reported by ethtool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duplex {
    /// One direction at a time.
    Half,
    /// Both directions at once.
    Full,
    /// The driver does not report it.
    #[default]
    #[serde(untagged)]
    Unknown,
}

impl Duplex {
    /// For comparison by `primary_reselect=better`: unknown counts as the best. [bond_main.c: bond_should_change_active]
    pub fn rank(self) -> u8 {
        match self {
            Duplex::Half => 0,
            Duplex::Full => 1,
            Duplex::Unknown => 255,
        }
    }
}

impl fmt::Display for Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Duplex::Half => "half",
            Duplex::Full => "full",
            Duplex::Unknown => "unknown",
        })
    }
}

/// One reading of an interface, from a link message and ethtool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkReport {
    /// The interface's name at the moment.
    pub name: String,
    /// IFF_UP: the operator wants it to run.
    pub admin_up: bool,
    /// Administratively up and with carrier (`IFLA_CARRIER`).
    pub carrier: Carrier,
    /// The address in use.
    pub mac: MacAddr,
    /// Largest frame payload in bytes.
    pub mtu: u32,
    /// IFF_PROMISC, set by an operator or by an upper device such as a bridge.
    pub promisc: bool,
    /// IFF_ALLMULTI.
    pub allmulti: bool,
    /// Mbit/s, by ethtool.
    pub speed: Speed,
    /// By ethtool.
    pub duplex: Duplex,
}

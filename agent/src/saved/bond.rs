//! The saved state of one bond.

use std::collections::BTreeMap;

use bond_modes::{PortId, Saved};

use crate::dataplane::OriginalPort;
use crate::origins::Origins;

/// Everything kept about one bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedBond {
    /// Boot of the machine at which it was written.
    pub boot_id: String,
    /// Inode number of its network namespace; `None` in a state of an earlier version.
    pub netns: Option<u64>,
    /// The bond's name.
    pub name: String,
    /// Index of the bond's interface.
    pub ifindex: u32,
    /// Its data plane; states without this field have `tc`.
    pub plane: Option<String>,
    /// The bond machine.
    pub bond: Saved,
    /// Settings of ports before they were attached, to be restored.
    pub originals: BTreeMap<PortId, OriginalPort>,
    /// The same of ports that have disappeared, by name.
    pub vanished: BTreeMap<String, OriginalPort>,
    /// The same of interfaces that are no ports and have not got them back.
    pub unrestored: BTreeMap<PortId, OriginalPort>,
    /// Names of the ports that belong to the bond, absent ones included.
    pub wanted: Vec<String>,
    /// The options of the files at the last start; `None` if no file has lines about the bond.
    pub configured: Option<Vec<(String, String)>>,
    /// Origins of options and ports; `None` in a state of an earlier version.
    pub origins: Option<Origins>,
}

/// A port that did not get its settings back when its bond was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftPort {
    /// The name that its bond had.
    pub bond: String,
    /// The plane that the bond was on.
    pub plane: String,
    /// The settings to be restored.
    pub original: OriginalPort,
}

impl SavedBond {
    /// The name of its data plane.
    pub fn plane(&self) -> &str {
        self.plane.as_deref().unwrap_or("tc")
    }
}

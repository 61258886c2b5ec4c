//! The format of a state file: types of its own, so that names can change in the agent while files stay readable.
//!
//! Later agents read this file, and earlier ones after a downgrade. So fields may be added, with a default, but never renamed
//! or removed. The bond machine has its part in [`bond_modes::Saved`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bond_modes::{PortId, Saved};
use bond_monitors::MacAddr;
use serde::{Deserialize, Serialize};

use super::bond::{LeftPort, SavedBond};
use crate::dataplane::OriginalPort;
use crate::origins::Origins;

/// See [`SavedBond`].
#[derive(Serialize, Deserialize)]
pub(super) struct FileBond {
    boot_id: String,
    #[serde(default)]
    netns: Option<u64>,
    name: String,
    ifindex: u32,
    #[serde(default)]
    plane: Option<String>,
    bond: Saved,
    #[serde(default)]
    originals: BTreeMap<PortId, FileOriginal>,
    #[serde(default)]
    vanished: BTreeMap<String, FileOriginal>,
    #[serde(default)]
    unrestored: BTreeMap<PortId, FileOriginal>,
    #[serde(default)]
    wanted: Vec<String>,
    #[serde(default)]
    configured: Option<Vec<(String, String)>>,
    #[serde(default)]
    origins: Option<FileOrigins>,
}

/// Ports that their bonds have left behind.
#[derive(Serialize, Deserialize)]
pub(super) struct FileLeft {
    pub(super) boot_id: String,
    /// The inode number of the network namespace.
    pub(super) netns: u64,
    pub(super) ports: BTreeMap<PortId, FileLeftPort>,
}

/// See [`LeftPort`].
#[derive(Serialize, Deserialize)]
pub(super) struct FileLeftPort {
    bond: String,
    plane: String,
    original: FileOriginal,
}

/// See [`OriginalPort`].
#[derive(Serialize, Deserialize)]
struct FileOriginal {
    mac: MacAddr,
    mtu: u32,
    admin_up: bool,
    promisc: bool,
    allmulti: bool,
    disable_ipv6: Option<bool>,
    ifalias: String,
    clsact: bool,
}

/// See [`Origins`].
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct FileOrigins {
    made_by_file: bool,
    files: BTreeSet<PathBuf>,
    file_ports: BTreeSet<String>,
    renamed_ports: BTreeMap<String, String>,
    operator_options: BTreeSet<String>,
    entailed_options: BTreeSet<String>,
    operator_ports: BTreeSet<String>,
    port_options: BTreeMap<String, String>,
}

impl From<SavedBond> for FileBond {
    fn from(state: SavedBond) -> Self {
        FileBond {
            boot_id: state.boot_id,
            netns: state.netns,
            name: state.name,
            ifindex: state.ifindex,
            plane: state.plane,
            bond: state.bond,
            originals: values_into(state.originals),
            vanished: values_into(state.vanished),
            unrestored: values_into(state.unrestored),
            wanted: state.wanted,
            configured: state.configured,
            origins: state.origins.map(FileOrigins::from),
        }
    }
}

impl From<FileBond> for SavedBond {
    fn from(file: FileBond) -> Self {
        SavedBond {
            boot_id: file.boot_id,
            netns: file.netns,
            name: file.name,
            ifindex: file.ifindex,
            plane: file.plane,
            bond: file.bond,
            originals: values_into(file.originals),
            vanished: values_into(file.vanished),
            unrestored: values_into(file.unrestored),
            wanted: file.wanted,
            configured: file.configured,
            origins: file.origins.map(Origins::from),
        }
    }
}

impl From<LeftPort> for FileLeftPort {
    fn from(left: LeftPort) -> Self {
        FileLeftPort {
            bond: left.bond,
            plane: left.plane,
            original: left.original.into(),
        }
    }
}

impl From<FileLeftPort> for LeftPort {
    fn from(file: FileLeftPort) -> Self {
        LeftPort {
            bond: file.bond,
            plane: file.plane,
            original: file.original.into(),
        }
    }
}

impl From<OriginalPort> for FileOriginal {
    fn from(port: OriginalPort) -> Self {
        FileOriginal {
            mac: port.mac,
            mtu: port.mtu,
            admin_up: port.admin_up,
            promisc: port.promisc,
            allmulti: port.allmulti,
            disable_ipv6: port.disable_ipv6,
            ifalias: port.ifalias,
            clsact: port.clsact,
        }
    }
}

impl From<FileOriginal> for OriginalPort {
    fn from(file: FileOriginal) -> Self {
        OriginalPort {
            mac: file.mac,
            mtu: file.mtu,
            admin_up: file.admin_up,
            promisc: file.promisc,
            allmulti: file.allmulti,
            disable_ipv6: file.disable_ipv6,
            ifalias: file.ifalias,
            clsact: file.clsact,
        }
    }
}

impl From<Origins> for FileOrigins {
    fn from(origins: Origins) -> Self {
        FileOrigins {
            made_by_file: origins.made_by_file,
            files: origins.files,
            file_ports: origins.file_ports,
            renamed_ports: origins.renamed_ports,
            operator_options: origins.operator_options,
            entailed_options: origins.entailed_options,
            operator_ports: origins.operator_ports,
            port_options: origins.port_options,
        }
    }
}

impl From<FileOrigins> for Origins {
    fn from(file: FileOrigins) -> Self {
        Origins {
            made_by_file: file.made_by_file,
            files: file.files,
            file_ports: file.file_ports,
            renamed_ports: file.renamed_ports,
            operator_options: file.operator_options,
            entailed_options: file.entailed_options,
            operator_ports: file.operator_ports,
            port_options: file.port_options,
        }
    }
}

pub(super) fn values_into<K: Ord, V, W: From<V>>(map: BTreeMap<K, V>) -> BTreeMap<K, W> {
    map.into_iter().map(|(key, value)| (key, value.into())).collect()
}

/// Reads a file. Unknown fields are ignored, missing ones have a default.
pub(super) fn parse(text: &[u8]) -> serde_json::Result<SavedBond> {
    serde_json::from_slice::<FileBond>(text).map(SavedBond::from)
}

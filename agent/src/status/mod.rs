//! The files that the agent publishes for tools: copies of what the kernel's drivers show in `/proc` and `/sys`.
//!
//! A bond is rendered as a [`Tree`], which the [`publish::Publisher`] brings to disk.

mod disk;
pub mod info;
pub mod procfs;
pub mod publish;
pub mod sysfs;

use std::collections::BTreeMap;

use bond_modes::{BondOptions, PortStatus};
use bond_monitors::LinkReport;

use crate::control::proto::BondReport;
use crate::netlink::Link;

/// Files and links by their path under the run directory.
pub type Tree = BTreeMap<String, Entry>;

/// What was read last of interfaces, by index.
pub type Devices = BTreeMap<u32, Device>;

/// What was read last of an interface.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its state.
    pub report: LinkReport,
    /// Its `operstate`, if it was read.
    pub operstate: Option<&'static str>,
}

impl Device {
    /// What a link message says.
    pub fn of(link: &Link) -> Self {
        Device {
            report: link.report.clone(),
            operstate: Some(link.operstate),
        }
    }
}

impl From<LinkReport> for Device {
    fn from(report: LinkReport) -> Self {
        Device {
            report,
            operstate: None,
        }
    }
}

/// The entry at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file with this text.
    File(String),
    /// A symbolic link to this target.
    Link(String),
}

/// Everything that is published about one bond with these options. `release` is the running kernel's, as `uname -r` prints it.
pub fn render(bond: &BondReport, options: &BondOptions, devices: &Devices, release: &str) -> Tree {
    let mut tree = Tree::new();
    let text = procfs::render(bond, options, release);
    tree.insert(format!("{}/{}", procfs::FOLDER, bond.name), Entry::File(text));
    // In the folder of the 2.4 driver it would look like a bond.
    if bond.name != "bonding" {
        tree.insert(
            format!("proc/net/{}/info", bond.name),
            Entry::File(info::render(bond, options)),
        );
    }
    sysfs::render(&mut tree, bond, options, devices);
    tree
}

/// Ports that are in the bond, in the order of attaching: the drivers know no others.
fn attached(bond: &BondReport) -> impl DoubleEndedIterator<Item = &PortStatus> {
    bond.ports.iter().filter_map(|port| port.status.as_ref())
}

/// The primary port, if it is attached. [bond_options.c: bond_option_primary_set]
fn attached_primary(bond: &BondReport) -> Option<&PortStatus> {
    let wanted = bond.status.primary.as_deref()?;
    attached(bond).find(|port| port.name == wanted)
}

#[cfg(test)]
mod golden;

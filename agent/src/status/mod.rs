//! The files that the agent publishes for tools: copies of what the kernel's drivers show in `/proc` and `/sys`.
//!
//! A bond is rendered as a [`Tree`], which the [`publish::Publisher`] brings to disk.

mod attached;
mod device;
mod disk;
pub mod info;
pub mod procfs;
pub mod publish;
pub mod sysfs;
mod tree;

use bond_modes::BondOptions;

pub use self::device::{Device, Devices};
pub use self::tree::{Entry, Tree};
use crate::control::proto::BondReport;

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

#[cfg(test)]
mod golden;

//! The files that the agent publishes for tools: copies of what the kernel's drivers show in `/proc` and `/sys`.
//!
//! A bond's [`Page`] is rendered as a [`Tree`], which the [`publish::Publisher`] brings to disk, in the thread of the
//! [`writer::Writer`].

mod attached;
mod device;
mod disk;
pub mod info;
mod packed;
pub mod procfs;
pub mod publish;
pub mod sysfs;
mod tree;
pub mod writer;

use bond_modes::BondOptions;

pub use self::device::{Device, Devices};
pub use self::tree::{Entry, Tree};
use crate::control::proto::BondReport;

/// Which files bonds have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum StatusFiles {
    /// Those of `/proc/net` and of `/sys/class/net`.
    #[default]
    All,
    /// Those of `/proc/net`, and the list of bonds.
    Proc,
}

/// Everything that the files of one bond show.
#[derive(Clone, Debug)]
pub struct Page {
    /// The bond and its ports.
    pub report: BondReport,
    /// Its options.
    pub options: BondOptions,
    /// Its interface and those of its ports.
    pub devices: Devices,
    /// Which files it has.
    pub files: StatusFiles,
    /// Bonds are listed in the order of these numbers.
    pub age: u64,
}

impl Page {
    /// Its files. `release` is the running kernel's, as `uname -r` prints it.
    fn render(&self, release: &str) -> Tree {
        let mut tree = Tree::new();
        render_proc(&mut tree, &self.report, &self.options, release);
        if self.files == StatusFiles::All {
            sysfs::render(&mut tree, &self.report, &self.options, &self.devices);
        }
        tree
    }
}

fn render_proc(tree: &mut Tree, bond: &BondReport, options: &BondOptions, release: &str) {
    let text = procfs::render(bond, options, release);
    tree.insert(format!("{}/{}", procfs::FOLDER, bond.name), Entry::File(text));
    // In the folder of the 2.4 driver it would look like a bond.
    if bond.name != "bonding" {
        tree.insert(
            format!("proc/net/{}/info", bond.name),
            Entry::File(info::render(bond, options)),
        );
    }
}

#[cfg(test)]
mod golden;

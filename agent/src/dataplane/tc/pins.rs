//! Names of the pins: `<bpffs>/bondd/<netns inode>/<bond ifindex>/`, in it the maps under their own names, the link `tx` of the
//! wire and a link `rx-<ifindex>` per port. Where the hooks are clsact filters there are no links, only maps.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bond_modes::PortId;
use nix::fcntl::{Flock, FlockArg};

use super::bpffs::Bpffs;

/// The pins of one network namespace.
#[derive(Debug)]
pub struct Pins {
    fs: Bpffs,
    dir: PathBuf,
    /// Held as long as this process lives; none if another agent has it, on another run directory.
    lock: Option<Flock<File>>,
}

impl Pins {
    /// Those of the network namespace with this inode number, in the file system that `run_dir` leads to.
    pub fn open(run_dir: &Path, netns: u64) -> io::Result<Pins> {
        let mut pins = Self::inside(Bpffs::open(run_dir)?, netns);
        fs::create_dir_all(&pins.dir)?;
        pins.lock = Flock::lock(File::open(&pins.dir)?, FlockArg::LockExclusiveNonblock).ok();
        Ok(pins)
    }

    /// As [`Pins::open`], but mounts nothing.
    pub fn find(run_dir: &Path, netns: u64) -> Option<Pins> {
        Some(Self::inside(Bpffs::find(run_dir)?, netns))
    }

    fn inside(fs: Bpffs, netns: u64) -> Pins {
        let dir = fs.root().join(ALL).join(netns.to_string());
        Pins { fs, dir, lock: None }
    }

    /// Whether no other agent uses these pins.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// The folder of the bond with this interface index.
    pub fn bond(&self, ifindex: u32) -> BondPins {
        BondPins {
            dir: self.dir.join(ifindex.to_string()),
        }
    }

    /// Removes what bonds left behind whose interface is gone: a crash while one was destroyed, or an interface that somebody
    /// else deleted.
    pub fn sweep(&self, mut alive: impl FnMut(u32) -> bool) -> io::Result<()> {
        for name in names(&self.dir)? {
            match name.parse() {
                Ok(ifindex) if !alive(ifindex) => self.bond(ifindex).remove()?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Every pin of the namespace, by path.
    #[cfg(test)]
    pub fn list(&self) -> Vec<String> {
        let bonds = names(&self.dir).expect("the folder of pins is readable");
        let pins = bonds.iter().flat_map(|bond| {
            let pins = names(&self.dir.join(bond)).expect("the folder of a bond is readable");
            std::iter::once(bond.clone()).chain(pins.into_iter().map(move |pin| format!("{bond}/{pin}")))
        });
        pins.collect()
    }

    /// Removes empty folders, and the mount if bondd made it and no pin is left.
    pub fn release(mut self) -> io::Result<()> {
        // An open directory would keep the mount busy.
        self.lock = None;
        for dir in [self.dir.clone(), self.fs.root().join(ALL)] {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => return Ok(()),
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.fs.unmount_if_empty()
    }
}

/// The pins of one bond.
#[derive(Clone, Debug)]
pub struct BondPins {
    dir: PathBuf,
}

impl BondPins {
    /// Whether there is such a folder.
    pub fn exist(&self) -> bool {
        self.dir.is_dir()
    }

    /// Makes the folder if it is not there.
    pub fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)
    }

    /// Where a map of this name is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the link of the wire is pinned.
    pub fn tx(&self) -> PathBuf {
        self.dir.join("tx")
    }

    /// Where the link of a port is pinned.
    pub fn rx(&self, port: PortId) -> PathBuf {
        self.dir.join(format!("rx-{}", port.0))
    }

    /// Removes everything; harmless if there is nothing.
    pub fn remove(&self) -> io::Result<()> {
        for name in names(&self.dir)? {
            unpin(&self.dir.join(name))?;
        }
        match fs::remove_dir(&self.dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Removes one pin; harmless if it is not there.
pub fn unpin(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a folder holds; nothing if there is no such folder.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// The folder of all bonds of the machine.
const ALL: &str = "bondd";

//! Names of the pins: `<bpffs>/bondd/<netns inode>/<bond ifindex>/`, in it the maps under their own names, the link `tx` of the
//! wire and a link `rx-<ifindex>` per port. Where the hooks are clsact filters there are no links, only maps.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::MapInfo;
use aya::programs::loaded_programs;
use bond_modes::PortId;
use nix::fcntl::{Flock, FlockArg};

use super::bpffs::Bpffs;
use super::errors::program_error;
use super::failover::layout::{FOLDER, FOLDERS};
use super::folder;
pub use super::folder::{names, unpin};
use super::sys;
use crate::locks::private_folder;

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
        pins.lock = lock(&pins.dir)?;
        Ok(pins)
    }

    /// As [`Pins::open`], but mounts nothing.
    pub fn find(run_dir: &Path, netns: u64) -> io::Result<Option<Pins>> {
        Ok(Bpffs::find(run_dir)?.map(|fs| Self::inside(fs, netns)))
    }

    fn inside(fs: Bpffs, netns: u64) -> Pins {
        let dir = fs.root().join(ALL).join(netns.to_string());
        Pins { fs, dir, lock: None }
    }

    /// Whether they end with this process's mount namespace.
    pub fn are_short_lived(&self) -> bool {
        self.fs.is_short_lived()
    }

    /// As [`Pins::are_short_lived`] of those that [`Pins::open`] would open.
    pub fn would_be_short_lived(run_dir: &Path) -> bool {
        Bpffs::would_be_short_lived(run_dir)
    }

    /// Whether no other agent uses these pins.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Takes the lock if another agent had it before and has not any more.
    pub fn retry_lock(&mut self) -> io::Result<()> {
        if self.lock.is_none() {
            self.lock = lock_now(&self.dir)?;
        }
        Ok(())
    }

    /// As [`Pins::retry_lock`], also if the folder that is locked was removed.
    pub fn keep_lock(&mut self) -> io::Result<()> {
        if let Some(lock) = &self.lock
            && fs::metadata(&self.dir).map_or(0, |dir| dir.ino()) != lock.metadata()?.ino()
        {
            self.lock = None;
        }
        self.retry_lock()
    }

    /// The folder of the bond with this interface index.
    pub fn bond(&self, ifindex: u32) -> BondPins {
        BondPins {
            dir: self.dir.join(ifindex.to_string()),
        }
    }

    /// Whether a bond has pins; also true if that cannot be read.
    pub fn has_bonds(&self) -> bool {
        self.has_others(0)
    }

    /// Whether a bond other than this one has pins; also true if that cannot be read.
    pub fn has_others(&self, ifindex: u32) -> bool {
        let is_other = |name: &String| name.parse().is_ok_and(|other: u32| other != ifindex);
        names(&self.dir).map_or(true, |names| names.iter().any(is_other))
    }

    /// The folder of what fails over in the kernel.
    pub fn failover(&self) -> PathBuf {
        self.dir.join(FOLDER)
    }

    /// Removes what bonds left behind whose interface is gone: a crash while one was destroyed, or an interface that somebody
    /// else deleted. What cannot be removed is logged and does not keep the others.
    pub fn sweep(&self, mut alive: impl FnMut(u32) -> bool) -> io::Result<()> {
        for name in names(&self.dir)? {
            if let Ok(ifindex) = name.parse()
                && !alive(ifindex)
                && let Err(error) = self.bond(ifindex).remove()
            {
                let folder = self.dir.join(&name);
                log::warn!(
                    "cannot remove the pins of a bond that is gone, {}: {error}",
                    folder.display()
                );
            }
        }
        remove_failover(&self.dir)
    }

    /// Removes what bonds of other network namespaces left behind: those of a namespace that is gone, or deleted while no agent
    /// served it. An agent that serves a namespace has its folder locked; where none does, a bond is there as long as its programs
    /// are attached. A folder that cannot be swept is logged and does not keep the others.
    pub fn sweep_namespaces(&self) -> io::Result<()> {
        let mut in_use = MapsInUse::default();
        let namespaces = self.fs.root().join(ALL);
        for name in names(&namespaces)? {
            let dir = namespaces.join(&name);
            if dir == self.dir || name.parse::<u64>().is_err() {
                continue;
            }
            match sweep_namespace(&dir, &mut in_use) {
                Ok(bonds) => {
                    if let Some(report) = swept(bonds, &name) {
                        log::info!("{report}");
                    }
                }
                Err(error) => log::warn!("cannot remove pins that nothing uses from {}: {error}", dir.display()),
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
        if self.dir.is_dir() && self.retry_lock().is_ok() && self.is_locked() {
            remove_failover(&self.dir)?;
        }
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

    /// As [`BondPins::create`], also if the folders above it were removed, which others are not to open.
    pub fn create_private(&self) -> io::Result<()> {
        if let Some(namespace) = self.dir.parent() {
            namespace.parent().map_or(Ok(()), |all| private_folder(all).map(drop))?;
            private_folder(namespace)?;
        }
        self.create()
    }

    /// Names of all that is pinned; empty if there is no such folder.
    pub fn names(&self) -> io::Result<Vec<String>> {
        names(&self.dir)
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
        self.dir.join(format!("{RX}{}", port.0))
    }

    /// Ids of the maps that are pinned.
    fn maps(&self) -> io::Result<Vec<u32>> {
        let names = names(&self.dir)?.into_iter();
        let maps = names.filter(|name| !name.starts_with(RX));
        // One that cannot be read was unpinned meanwhile.
        Ok(maps
            .filter_map(|name| MapInfo::from_pin(self.map(&name)).ok())
            .map(|map| map.id())
            .collect())
    }

    /// Removes everything; harmless if there is nothing.
    pub fn remove(&self) -> io::Result<()> {
        folder::remove(&self.dir)
    }
}

/// What to log about a sweep of one namespace's folder; nothing if no bond was removed.
fn swept(bonds: usize, namespace: &str) -> Option<String> {
    let pins = match bonds {
        0 => return None,
        1 => "the pins of 1 bond that does not exist any more".to_owned(),
        _ => format!("the pins of {bonds} bonds that do not exist any more"),
    };
    Some(format!("removed {pins} (network namespace {namespace})"))
}

/// Removes the dead bonds of one namespace's folder, and the folder if nothing else is in it. Returns how many there were; 0 if
/// an agent serves the namespace.
fn sweep_namespace(dir: &Path, in_use: &mut MapsInUse) -> io::Result<usize> {
    let dead = dead_bonds(dir, in_use)?;
    if dead.is_empty() && names(dir)?.iter().any(|name| !is_failover(name)) {
        return Ok(0);
    }
    let Ok(_lock) = File::open(dir).and_then(try_lock) else {
        return Ok(0);
    };
    for bond in &dead {
        bond.remove()?;
    }
    remove_failover(dir)?;
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => Err(error),
        _ => Ok(dead.len()),
    }
}

/// Whether that is the folder of what fails over in the kernel, of whichever version.
fn is_failover(name: &str) -> bool {
    name.starts_with(FOLDERS)
}

/// Takes what fails over in the kernel away, if the folder of a namespace has no bond any more.
fn remove_failover(dir: &Path) -> io::Result<()> {
    let all = names(dir)?;
    if !all.iter().all(|name| is_failover(name)) {
        return Ok(());
    }
    all.iter().try_for_each(|name| folder::remove(&dir.join(name)))
}

/// The bonds in a namespace's folder that forward nothing any more.
fn dead_bonds(dir: &Path, in_use: &mut MapsInUse) -> io::Result<Vec<BondPins>> {
    let mut dead = Vec::new();
    for name in names(dir)? {
        let bond = BondPins { dir: dir.join(&name) };
        let tx = bond.tx();
        let is_dead = match name.parse::<u32>() {
            Err(_) => false,
            Ok(_) if tx.exists() => sys::link_interface(&tx)? == 0,
            // Filters have no pins, but their programs use the maps that are pinned.
            Ok(_) => !in_use.any(&bond.maps()?),
        };
        if is_dead {
            dead.push(bond);
        }
    }
    Ok(dead)
}

/// Which maps programs use, in all namespaces; read when first needed.
#[derive(Default)]
struct MapsInUse(Option<Option<BTreeSet<u32>>>);

impl MapsInUse {
    /// Whether any of these is in use; also true if the kernel cannot list programs.
    fn any(&mut self, maps: &[u32]) -> bool {
        match self.0.get_or_insert_with(maps_in_use) {
            Some(used) => maps.iter().any(|map| used.contains(map)),
            None => true,
        }
    }
}

fn maps_in_use() -> Option<BTreeSet<u32>> {
    let mut used = BTreeSet::new();
    for program in loaded_programs() {
        match program.and_then(|program| program.map_ids()).map_err(program_error) {
            Ok(maps) => used.extend(maps?),
            // It was unloaded while we looked.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(used)
}

/// Makes a folder and locks it; none if another agent has it. Waits a moment: an agent that sweeps holds the lock, and may remove
/// the folder.
fn lock(dir: &Path) -> io::Result<Option<Flock<File>>> {
    let deadline = Instant::now() + LONG_FOR_A_SWEEP;
    loop {
        let locked = lock_now(dir);
        let swept_away = |error: &io::Error| error.kind() == ErrorKind::NotFound;
        if matches!(locked, Ok(Some(_))) || locked.as_ref().is_err_and(|error| !swept_away(error)) {
            return locked;
        }
        if Instant::now() >= deadline {
            return locked;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// As [`lock`], without waiting; `NotFound` if the folder was removed meanwhile.
fn lock_now(dir: &Path) -> io::Result<Option<Flock<File>>> {
    // Others could lock a folder that they can open, and many a bpffs is open to all.
    if let Some(all) = dir.parent() {
        private_folder(all)?;
    }
    let file = private_folder(dir)?;
    let found = file.metadata()?.ino();
    match try_lock(file) {
        Ok(lock) if fs::metadata(dir)?.ino() == found => Ok(Some(lock)),
        Ok(_) => Err(ErrorKind::NotFound.into()),
        Err(_) => Ok(None),
    }
}

fn try_lock(file: File) -> io::Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error.into())
}

/// How the names of the links of ports begin.
const RX: &str = "rx-";
/// A sweep that takes longer than this leaves the agent that waits for it without the lock, until it makes its next bond.
const LONG_FOR_A_SWEEP: Duration = Duration::from_millis(500);
/// The folder of all bonds of the machine.
const ALL: &str = "bondd";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locks::tests::unprivileged;

    #[test]
    fn a_process_without_rights_can_neither_lock_the_pins_nor_make_their_folder() {
        // No namespace has such a number.
        let number = (1 << 40) + u64::from(std::process::id());
        let pins = Pins::open(&std::env::temp_dir(), number).unwrap();
        assert!(pins.is_locked());
        // A bpffs of bondd's own is closed to others as a whole, that of the machine is not.
        for dir in [&pins.dir, pins.dir.parent().unwrap()] {
            assert_eq!(fs::metadata(dir).unwrap().mode() & 0o777, 0o700, "{dir:?}");
        }
        let (opened, made) = unprivileged(|| (File::open(&pins.dir), fs::create_dir(pins.dir.with_extension("x"))));
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(made.unwrap_err().kind(), ErrorKind::PermissionDenied);
        pins.release().unwrap();
    }

    /// A namespace that lives may have lost its bonds, or never had any.
    #[test]
    fn a_sweep_is_logged_only_if_it_removed_a_bond_and_says_nothing_of_its_namespace() {
        assert_eq!(swept(0, "4026531840"), None);
        let reports = [1, 2].map(|bonds| swept(bonds, "4026531840").unwrap());
        assert_eq!(
            reports,
            [
                "removed the pins of 1 bond that does not exist any more (network namespace 4026531840)",
                "removed the pins of 2 bonds that do not exist any more (network namespace 4026531840)",
            ]
        );
        let base = std::env::temp_dir().join(format!("bondd-pins-{}", std::process::id()));
        let folder = base.join("4026531840");
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(sweep_namespace(&folder, &mut MapsInUse::default()).unwrap(), 0);
        assert!(!folder.exists(), "an empty folder goes all the same");
        fs::remove_dir(&base).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_after_a_moment() {
        let error = lock(Path::new("/proc/self/no-such-folder/bondd/1")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

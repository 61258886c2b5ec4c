//! How the program gets into the kernel, and how it is taken over.
//!
//! To bring it in takes reading the types of the whole kernel, twice and some hundred milliseconds, and attaching it waits for every
//! task of the kernel to pass by. An agent that finds the program of its own build at the pins does neither. The program of another
//! build goes on with the same maps, and what is prepared stays in force, until the new one is there beside it: what both of them see
//! is done once, as the first of them takes what is prepared out of force.
//!
//! Of bonds and ports that ended while no agent ran, entries are left in the maps; they are removed here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Instant;

use aya::maps::{Array, HashMap, Map, MapData, MapError, RingBuf};
use aya::programs::FEntry;
use aya::programs::links::{FdLink, PinnedLink};
use aya::{Btf, BtfError, Ebpf, EbpfLoader, include_bytes_aligned};
use bond_modes::PortId;

use super::layout::{ARMED, Armed, FOLDERS, LOSSES, MAPS, MISSED, PortKey, RULES_OF, TRANSMITS};
use crate::dataplane::tc::errors::{gone_is_fine, in_words, load_error, map_error, pin_error, program_error};
use crate::dataplane::tc::folder::{names, remove, unpin};
use crate::dataplane::tc::object::{fingerprint, raise_memlock};
use crate::dataplane::tc::sys::MapOfMaps;
use crate::text::chain;

/// What is open of it.
pub struct Opened {
    /// Cookie of this network namespace.
    netns: u64,
    pub armed: HashMap<MapData, PortKey, Armed>,
    pub losses: RingBuf<MapData>,
    missed: Array<MapData, u32>,
    /// As many are known.
    known_missed: u32,
    /// Ports of bonds that had entries when it was opened.
    pub found: BTreeMap<u32, BTreeSet<PortId>>,
    /// When the program of another build is to be exchanged; none if it is of this one, or cannot be.
    pub exchange: Option<Instant>,
    /// Keeps the program attached while this process runs, even if someone removes the pins.
    _link: FdLink,
}

impl Opened {
    /// With pins in this folder. The program of another build that is pinned on these maps stays: see [`Opened::exchange`].
    pub fn open(folder: &Path) -> io::Result<Opened> {
        let netns = netns_cookie()?;
        fs::create_dir_all(folder)?;
        if let Some(all) = folder.parent() {
            // The program of another layout would act on what this one is told to do.
            remove_others(all, Some(folder))?;
        }
        let pin = match found(folder) {
            Some(pin) => pin,
            None => {
                let pin = pin(folder);
                bring_in(folder, &pin).inspect_err(|_| drop(remove_unused(folder)))?;
                pin
            }
        };
        let missed: Array<MapData, u32> = pinned(folder, MISSED).and_then(Array::try_from).map_err(map_error)?;
        let known_missed = missed.get(&0, 0).map_err(map_error)?;
        let mut opened = Opened {
            netns,
            armed: armed(folder)?,
            losses: pinned(folder, LOSSES).and_then(RingBuf::try_from).map_err(map_error)?,
            missed,
            // Bonds are read anew when they are taken over.
            known_missed,
            found: BTreeMap::new(),
            exchange: None,
            _link: link(&pin)?,
        };
        match is_of_this_build(folder) {
            true => unpin_others(folder)?,
            false => opened.exchange = Some(Instant::now()),
        }
        Ok(opened)
    }

    /// Keeps the program of this build, which [`exchange`] has put in the place of another one's.
    pub fn exchanged(&mut self, link: FdLink) {
        self._link = link;
        self.exchange = None;
    }

    /// The key of a port.
    pub fn key(&self, port: PortId) -> PortKey {
        PortKey {
            netns: self.netns,
            ifindex: port.0,
            unused: 0,
        }
    }

    /// Whether notes have been missed since the last call. To be asked when all that are there have been read.
    pub fn has_missed(&mut self) -> io::Result<bool> {
        let missed = self.missed.get(&0, 0).map_err(map_error)?;
        Ok(std::mem::replace(&mut self.known_missed, missed) != missed)
    }

    /// Readable while there are notes.
    pub fn ring(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns the descriptor and lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.losses.as_raw_fd()) }
    }
}

/// Whether a program is there to be taken over.
pub fn is_there(folder: &Path) -> bool {
    found(folder).is_some()
}

/// Where the program that is there is pinned: the one of this build, or else of another.
fn found(folder: &Path) -> Option<PathBuf> {
    let names = names(folder).unwrap_or_default();
    if !MAPS.iter().all(|map| names.iter().any(|name| name == map)) {
        return None;
    }
    let another = || names.iter().find(|name| name.starts_with(LINK));
    match is_of_this_build(folder) {
        true => Some(pin(folder)),
        false => another().map(|name| folder.join(name)),
    }
}

fn is_of_this_build(folder: &Path) -> bool {
    pin(folder).exists()
}

/// Brings the program of this build in beside another one's on the same maps, and then takes that out.
pub fn exchange(folder: &Path) -> io::Result<FdLink> {
    let pin = pin(folder);
    bring_in(folder, &pin)?;
    unpin_others(folder)?;
    link(&pin)
}

/// Of other builds.
fn unpin_others(folder: &Path) -> io::Result<()> {
    let pin = pin(folder);
    let links = names(folder)?.into_iter().filter(|name| name.starts_with(LINK));
    let mut others = links.map(|name| folder.join(name)).filter(|path| *path != pin);
    others.try_for_each(|path| unpin(&path))
}

fn link(pin: &Path) -> io::Result<FdLink> {
    let link = PinnedLink::from_pin(pin).map_err(|error| in_words(chain(&error), error))?;
    Ok(link.into())
}

fn pin(folder: &Path) -> PathBuf {
    folder.join(format!("{LINK}{:016x}", *BUILD))
}

fn armed(folder: &Path) -> io::Result<HashMap<MapData, PortKey, Armed>> {
    pinned(folder, ARMED).and_then(HashMap::try_from).map_err(map_error)
}

fn pinned(folder: &Path, name: &str) -> Result<Map, MapError> {
    MapData::from_pin(folder.join(name)).and_then(Map::from_map_data)
}

/// Whether a bond's map is entered in the map of this name.
pub fn is_entered(folder: &Path, name: &str, bond: u32, map: &MapData) -> io::Result<bool> {
    let id = map.info().map_err(map_error)?.id();
    Ok(MapOfMaps::pinned(&folder.join(name))?.id(bond)? == Some(id))
}

/// Enters it, unless it is there.
pub fn enter(folder: &Path, name: &str, bond: u32, map: &MapData) -> io::Result<()> {
    match is_entered(folder, name, bond, map)? {
        true => Ok(()),
        false => MapOfMaps::pinned(&folder.join(name))?.set(bond, map.fd().as_fd()),
    }
}

/// Forgets a bond.
pub fn forget(folder: &Path, bond: u32) -> io::Result<()> {
    for name in [TRANSMITS, RULES_OF] {
        let all = MapOfMaps::pinned(&folder.join(name))?;
        if all.id(bond)?.is_some() {
            all.remove(bond)?;
        }
    }
    Ok(())
}

/// Forgets bonds that have no pins any more, and their ports, and what is of a network namespace that had the number of this one before.
/// Returns the ports of the others. May wait for a grace period of the kernel.
pub fn sweep(folder: &Path) -> io::Result<BTreeMap<u32, BTreeSet<PortId>>> {
    let (netns, mut armed) = (netns_cookie()?, armed(folder)?);
    let all = folder.parent().map_or(Ok(Vec::new()), names)?;
    let bonds: BTreeSet<u32> = all.iter().filter_map(|name| name.parse().ok()).collect();
    let (mut gone, mut found) = (Vec::new(), BTreeMap::<u32, BTreeSet<PortId>>::new());
    for key in armed.keys() {
        let key = key.map_err(map_error)?;
        match armed.get(&key, 0).map_err(map_error) {
            Ok(entry) if key.netns == netns && bonds.contains(&entry.bond) => {
                found.entry(entry.bond).or_default().insert(PortId(key.ifindex));
            }
            Ok(_) => gone.push(key),
            // Another thread has just removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    for key in gone {
        gone_is_fine(armed.remove(&key))?;
    }
    let mut known = BTreeSet::new();
    for name in [TRANSMITS, RULES_OF] {
        let all = MapOfMaps::pinned(&folder.join(name))?;
        let mut last = None;
        while let Some(bond) = all.next_key(last)? {
            known.insert(bond);
            last = Some(bond);
        }
    }
    known.difference(&bonds).try_for_each(|bond| forget(folder, *bond))?;
    Ok(found)
}

/// Removes what fails over in the kernel from the folder of a network namespace, but not this.
pub fn remove_others(all: &Path, but: Option<&Path>) -> io::Result<()> {
    let folders = names(all)?.into_iter().filter(|name| name.starts_with(FOLDERS));
    let mut folders = folders.map(|name| all.join(name));
    folders.try_for_each(|folder| if Some(&*folder) == but { Ok(()) } else { remove(&folder) })
}

/// Loads and attaches the program, on the maps that are pinned, and pins all of it.
fn bring_in(folder: &Path, pin: &Path) -> io::Result<()> {
    raise_memlock();
    let mut programs = load(folder)?;
    let program: &mut FEntry = programs
        .program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok())
        .expect("the object file, compiled into this binary, has a program of that name");
    #[cfg(test)]
    if let Some((_, errno)) = REFUSED.lock().unwrap().take_if(|(at, _)| at == folder) {
        return Err(refused("attaching it", io::Error::from_raw_os_error(errno)));
    }
    let id = program
        .attach()
        .map_err(|error| refused("attaching it", program_error(error)))?;
    let link = FdLink::from(program.take_link(id).map_err(program_error)?);
    unpin(pin)?;
    link.pin(pin).map_err(pin_error).map(drop)
}

fn load(folder: &Path) -> io::Result<Ebpf> {
    let no_types = |error: BtfError| {
        let text = format!(
            "the kernel's types cannot be read (CONFIG_DEBUG_INFO_BTF): {}",
            chain(&error)
        );
        in_words(text, error)
    };
    let types = Btf::from_sys_fs().map_err(no_types)?;
    let mut loader = EbpfLoader::new();
    for name in MAPS {
        loader.map_pin_path(name, folder.join(name));
    }
    #[cfg(test)]
    loader.map_max_entries(LOSSES, NOTES_OF_TESTS * 32);
    let mut programs = loader.load(OBJECT).map_err(load_error)?;
    let program: &mut FEntry = programs
        .program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok())
        .expect("the object file, compiled into this binary, has a program of that name");
    program
        .load(HOOK, &types)
        .map_err(|error| refused("loading it", program_error(error)))?;
    Ok(programs)
}

fn refused(doing: &str, error: io::Error) -> io::Error {
    let why = match error.raw_os_error() {
        // [kernel/bpf/trampoline.c: BPF_MAX_TRAMP_LINKS]
        Some(libc::E2BIG) => format!("other programs trace {HOOK} already, as many as the kernel allows"),
        Some(ENOTSUPP | libc::EOPNOTSUPP) => {
            "it needs the JIT and CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS, which this kernel or its processor lacks"
                .to_owned()
        }
        _ => error.to_string(),
    };
    in_words(format!("the kernel refuses a tracing program: {doing}: {why}"), error)
}

/// Without that option the kernel is older than 5.14, and its `struct net` may be another as well.
fn no_cookie(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => io::Error::other("the kernel is older than Linux 5.14"),
        _ => in_words(
            format!("cannot read the number of the network namespace: {error}"),
            error,
        ),
    }
}

/// Removes the folder if no program is pinned there: what is left of an attempt.
fn remove_unused(folder: &Path) -> io::Result<()> {
    match names(folder)?.iter().any(|name| name.starts_with(LINK)) {
        true => Ok(()),
        false => remove(folder),
    }
}

/// The number by which programs know this network namespace. [socket(7): SO_NETNS_COOKIE, since 5.14]
fn netns_cookie() -> io::Result<u64> {
    use std::net::UdpSocket;
    let socket = UdpSocket::bind(("::", 0)).or_else(|_| UdpSocket::bind(("0.0.0.0", 0)))?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the pointers are to live values of the sizes that are given.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if done == 0 {
        Ok(cookie)
    } else {
        Err(no_cookie(io::Error::last_os_error()))
    }
}

/// What the program of this build is known by.
static BUILD: LazyLock<u64> = LazyLock::new(|| fingerprint(OBJECT.iter().copied()));

/// The function at whose entry it runs, and its name. [carrier_off.bpf.c]
const HOOK: &str = "linkwatch_fire_event";
const PROGRAM: &str = "carrier_off";
/// How the name of the pin of its link begins; the number of the build follows.
const LINK: &str = "link-";
/// [asm-generic/socket.h]
const SO_NETNS_COOKIE: libc::c_int = 71;
/// Of the kernel's own numbers. [linux/errno.h]
const ENOTSUPP: i32 = 524;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/carrier_off.bpf.o"));

/// Notes for which the ring has room in tests, which fill it.
#[cfg(test)]
pub const NOTES_OF_TESTS: u32 = 128;

/// What the kernel answers when the program is attached with pins in this folder next.
#[cfg(test)]
pub static REFUSED: std::sync::Mutex<Option<(PathBuf, i32)>> = std::sync::Mutex::new(None);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refuses_is_said_in_words_that_tell_what_it_lacks() {
        for (errno, words) in [
            (libc::E2BIG, "other programs trace linkwatch_fire_event"),
            (ENOTSUPP, "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"),
            (libc::EBUSY, "busy"),
        ] {
            let text = refused("attaching it", io::Error::from_raw_os_error(errno)).to_string();
            assert!(text.contains(words) && text.contains("attaching it"), "{text}");
        }
        let old = no_cookie(io::Error::from_raw_os_error(libc::ENOPROTOOPT)).to_string();
        assert_eq!(old, "the kernel is older than Linux 5.14");
    }
}

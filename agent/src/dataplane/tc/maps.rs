//! The maps of one bond, made or found at their pins.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapInfo, PerCpuArray, PerCpuHashMap, PerCpuValues};
use aya::programs::{ProgramInfo, loaded_programs};
use aya::util::nr_cpus;

use super::errors::map_error;
use super::layout::{
    FIRST_STATE, LAYOUT, LISTS, MAPS, NEAR, Near, OWN, PORTS, Port, QUEUES, RULES, STATE, Shape, State, TRANSMIT,
    Transmit, WITHOUT_NEAR,
};
use super::lists::List;
use super::object::{Loaded, Way};
use super::pins::BondPins;
use super::sys;

/// The maps of one bond. Dropping them leaves them in force as far as they are pinned or in use.
///
/// A descriptor is kept of those that a failover reads or writes. The others are opened when they are needed, at their pins, and
/// closed by [`Maps::close_spare`].
pub struct Maps {
    all: BTreeMap<&'static str, OnceCell<Map>>,
    /// Where they are pinned. Without pins, all of them are open and stay so.
    pins: Option<BondPins>,
}

impl Maps {
    /// Those that a program was loaded with. They are open and stay so until it is told where they are pinned.
    pub fn of(program: &mut Loaded) -> io::Result<Maps> {
        let all: io::Result<_> = MAPS
            .into_iter()
            .map(|(name, _)| Ok((name, OnceCell::from(program.take_map(name)?))))
            .collect();
        Ok(Maps { all: all?, pins: None })
    }

    /// Those that are pinned, if all of them are.
    pub fn pinned(pins: &BondPins) -> io::Result<Option<Maps>> {
        let there = pins.names()?;
        let all = MAPS.map(|(name, _)| (name, OnceCell::new()));
        let pinned = MAPS.iter().all(|(name, _)| there.iter().any(|pin| pin == name));
        Ok(pinned.then(|| Maps {
            all: all.into(),
            pins: Some(pins.clone()),
        }))
    }

    /// From now on those that are not always needed are found here.
    pub fn found_at(&mut self, pins: &BondPins) {
        self.pins = Some(pins.clone());
    }

    /// Closes those that can be opened again without harm to a failover, which needs `needed` besides those that it always needs.
    pub fn close_spare(&mut self, needed: &[&str]) {
        if self.pins.is_some() {
            for (name, map) in &mut self.all {
                if !KEPT.contains(name) && !needed.contains(name) {
                    map.take();
                }
            }
        }
    }

    /// Another handle of the map of this name.
    pub fn copy_of(&self, name: &str) -> io::Result<MapData> {
        MapData::from_fd(self.data(name)?.fd().as_fd().try_clone_to_owned()?).map_err(map_error)
    }

    fn data(&self, name: &str) -> io::Result<&MapData> {
        data(self.get(name)?)
    }

    /// What each program for the wire reads: the selector, and which senders it remembers.
    pub fn transmit(&self) -> io::Result<Array<&MapData, Transmit>> {
        self.get(TRANSMIT)?.try_into().map_err(map_error)
    }

    /// As [`Maps::transmit`], to write to.
    pub fn transmit_mut(&mut self) -> io::Result<Array<&mut MapData, Transmit>> {
        self.get_mut(TRANSMIT)?.try_into().map_err(map_error)
    }

    /// Lists of ports.
    pub fn lists(&self) -> io::Result<Array<&MapData, List>> {
        self.get(LISTS)?.try_into().map_err(map_error)
    }

    /// As [`Maps::lists`], to write to.
    pub fn lists_mut(&mut self) -> io::Result<Array<&mut MapData, List>> {
        self.get_mut(LISTS)?.try_into().map_err(map_error)
    }

    /// The attached ports that have a slot.
    pub fn near(&self) -> io::Result<PerCpuArray<&MapData, Near>> {
        self.get(NEAR)?.try_into().map_err(map_error)
    }

    /// As [`Maps::near`], to write to.
    pub fn near_mut(&mut self) -> io::Result<PerCpuArray<&mut MapData, Near>> {
        self.get_mut(NEAR)?.try_into().map_err(map_error)
    }

    /// The other attached ports.
    pub fn ports(&self) -> io::Result<PerCpuHashMap<&MapData, u32, Port>> {
        self.get(PORTS)?.try_into().map_err(map_error)
    }

    /// As [`Maps::ports`], to write to.
    pub fn ports_mut(&mut self) -> io::Result<PerCpuHashMap<&mut MapData, u32, Port>> {
        self.get_mut(PORTS)?.try_into().map_err(map_error)
    }

    /// Which frames are accepted from ports.
    pub fn rules(&self) -> io::Result<Array<&MapData, u32>> {
        self.get(RULES)?.try_into().map_err(map_error)
    }

    /// As [`Maps::rules`], to write to.
    pub fn rules_mut(&mut self) -> io::Result<Array<&mut MapData, u32>> {
        self.get_mut(RULES)?.try_into().map_err(map_error)
    }

    /// Where marked frames leave.
    pub fn queues(&self) -> io::Result<Array<&MapData, u32>> {
        self.get(QUEUES)?.try_into().map_err(map_error)
    }

    /// What that map says of each queue, in one request where the kernel can do that. (5.6)
    pub fn queue_ports(&self) -> io::Result<Vec<u32>> {
        let queues = self.queues()?;
        let mut ports = vec![0; queues.len() as usize];
        match sys::look_up_all(self.data(QUEUES)?.fd().as_fd(), &mut ports) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP)) => {
                for (queue, port) in (0..).zip(&mut ports) {
                    *port = queues.get(&queue, 0).map_err(map_error)?;
                }
            }
            done => done?,
        }
        Ok(ports)
    }

    /// As [`Maps::queues`], to write to.
    pub fn queues_mut(&mut self) -> io::Result<Array<&mut MapData, u32>> {
        self.get_mut(QUEUES)?.try_into().map_err(map_error)
    }

    /// Addresses of the bond and its ports.
    pub fn own(&self) -> io::Result<HashMap<&MapData, [u8; 6], u32>> {
        self.get(OWN)?.try_into().map_err(map_error)
    }

    /// As [`Maps::own`], to write to.
    pub fn own_mut(&mut self) -> io::Result<HashMap<&mut MapData, [u8; 6], u32>> {
        self.get_mut(OWN)?.try_into().map_err(map_error)
    }

    /// What the agent keeps for the next one.
    pub fn state(&self) -> io::Result<State> {
        let state: Array<&MapData, State> = self.get(STATE)?.try_into().map_err(map_error)?;
        state.get(&0, 0).map_err(map_error)
    }

    /// Replaces the state that the agent keeps for the next one. If the map is gone with its pin, no next one finds it.
    pub fn set_state(&mut self, value: State) -> io::Result<()> {
        if let Err(error) = self.get(STATE)
            && error.kind() == io::ErrorKind::NotFound
        {
            return Ok(());
        }
        let mut state: Array<&mut MapData, State> = self.get_mut(STATE)?.try_into().map_err(map_error)?;
        state.set(0, value, 0).map_err(map_error)
    }

    /// The way of spreading whose program is on the wire.
    pub fn way(&self) -> io::Result<Way> {
        let number = self.state()?.program;
        Way::from_number(number).ok_or_else(|| io::Error::other(format!("there is no program number {number}")))
    }

    fn get(&self, name: &str) -> io::Result<&Map> {
        let place = self.all.get(name).expect("all maps are there once this exists");
        match place.get() {
            Some(map) => Ok(map),
            None => {
                let map = self.open(name)?;
                Ok(place.get_or_init(|| map))
            }
        }
    }

    fn get_mut(&mut self, name: &str) -> io::Result<&mut Map> {
        self.get(name)?;
        let place = self.all.get_mut(name).and_then(OnceCell::get_mut);
        Ok(place.expect("it was opened"))
    }

    fn open(&self, name: &str) -> io::Result<Map> {
        let pins = self.pins.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let found = match MapData::from_pin(pins.map(name)).map_err(map_error) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.find_in_use(name)?,
            found => found?,
        };
        Map::from_map_data(found).map_err(map_error)
    }

    /// A map whose pin another program removed: that of a program which uses others of this bond too.
    fn find_in_use(&self, name: &str) -> io::Result<MapData> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, format!("the pin of the map {name} is gone"));
        let open = self.all.values().filter_map(OnceCell::get);
        let known: BTreeSet<u32> = open.filter_map(|map| Some(data(map).ok()?.info().ok()?.id())).collect();
        let its_maps = |program: ProgramInfo| program.map_ids().ok().flatten();
        let programs = loaded_programs().filter_map(|program| its_maps(program.ok()?));
        // Neither the one for the wire nor the one for ports uses all of them.
        let ours = programs.filter(|maps| maps.iter().any(|id| known.contains(id)));
        let opened = ours.flatten().filter_map(|id| MapData::from_id(id).ok());
        let named = |map: &MapData| map.info().is_ok_and(|info| info.name_as_str() == Some(name));
        opened.into_iter().find(named).ok_or_else(gone)
    }
}

fn data(map: &Map) -> io::Result<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data) => Ok(data),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// What a failover reads and writes.
const KEPT: [&str; 3] = [TRANSMIT, NEAR, RULES];

/// The same value on each CPU.
pub fn on_all_cpus<T: Pod>(value: T) -> io::Result<PerCpuValues<T>> {
    let cpus = nr_cpus().map_err(|(_, error)| error)?;
    PerCpuValues::try_from(vec![value; cpus])
}

/// Whether the maps that are pinned have the layout of this version; an error if it is one that this version does not know. True
/// where there is none.
pub fn check_layout(pins: &BondPins) -> io::Result<bool> {
    let mut ours = true;
    for (name, shape) in MAPS {
        let path = pins.map(name);
        if !path.exists() || has_shape(&path, shape)? {
            continue;
        }
        if (name, true) != (STATE, has_shape(&path, FIRST_STATE)?) {
            return Err(foreign(&path));
        }
        ours = false;
    }
    if ours && pins.map(STATE).exists() {
        let state: Array<MapData, State> = MapData::from_pin(pins.map(STATE))
            .and_then(|data| Map::from_map_data(data)?.try_into())
            .map_err(map_error)?;
        let layout = state.get(&0, 0).map_err(map_error)?.layout;
        if ![0, WITHOUT_NEAR, LAYOUT].contains(&layout) {
            return Err(foreign(&pins.map(STATE)));
        }
    }
    Ok(ours)
}

/// A map that a very different version pinned must not be taken for ours.
pub fn has_shape(path: &Path, (map_type, key_size, value_size): Shape) -> io::Result<bool> {
    let info = MapInfo::from_pin(path).map_err(map_error)?;
    Ok(info.map_type().is_ok_and(|found| found == map_type)
        && info.key_size() as usize == key_size
        && info.value_size() as usize == value_size)
}

/// The error for a pin whose layout this version does not know.
pub fn foreign(path: &Path) -> io::Error {
    io::Error::other(format!(
        "{} was pinned by another version of bondd; delete the bond with that version first",
        path.display()
    ))
}

/// The kernel's answer where a kind of map cannot do what others can. [linux/errno.h]
const ENOTSUPP: i32 = 524;

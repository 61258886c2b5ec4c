//! Takes over a bond from an agent with the first layout of the maps, which had no version, while its programs forward.
//!
//! `lists`, `turns`, `own`, `sent` and `queues` are the same; `state`, `accept`, `counters` and `heard` are in `state`,
//! `transmit`, `ports` and `rules` now. The values of `sent` are times now; what older programs wrote there counts as long ago,
//! until the sender's next frame. In order:
//!
//! 1. the new maps are made beside the old ones, the new `state` under a name of its own, and filled from them;
//! 2. the new programs are loaded on them, and exchanged for the old ones through their links, one after the other: both say the
//!    same, as the plan does not change meanwhile;
//! 3. the new `state` gets its name, and the old maps are unpinned.
//!
//! An agent that dies before the third step leaves an old `state`, so the next one begins anew. An agent of the first layout
//! refuses what the third step leaves.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem::size_of;
use std::path::PathBuf;

use aya::maps::{Array, HashMap, Map, MapData, MapError, MapType, PerCpuHashMap, PerCpuValues};
use bond_modes::PortId;

use super::errors::map_error;
use super::layout::{
    Counters, FIRST_STATE, INDEX, PORTS, Port, RULES, STATE, Shape, Stamps, State, TRANSMIT, Transmit, WITHOUT_NEAR,
};
use super::lists::{Lists, is_list};
use super::maps::{Maps, foreign, has_shape};
use super::object::{Kind, Loaded, Loader, Way};
use super::pins::{BondPins, unpin};

/// The maps that are only in the first layout.
pub struct FirstLayout {
    state: Array<MapData, u32>,
    accept: HashMap<MapData, u32, u32>,
    counters: PerCpuHashMap<MapData, u32, Counters>,
    /// Early agents had no stamps.
    heard: Option<PerCpuHashMap<MapData, u32, Stamps>>,
    /// Slots in the new `rules`.
    rules: BTreeMap<PortId, u32>,
    wire: u32,
}

impl FirstLayout {
    /// Makes the new maps, with a program for the wire on them. Nothing uses them yet.
    pub fn take_over(pins: &BondPins, loader: &mut Loader, wire: u32) -> io::Result<(FirstLayout, Maps, Loaded)> {
        let mut before = FirstLayout::open(pins, wire)?;
        let selector = before.state.get(&SLOT_TX, 0).map_err(map_error)?;
        let way = match is_list(selector) {
            true => {
                let lists: Array<MapData, _> = pinned(pins, "lists")?;
                Way::of(&Lists::tx(&lists, selector)?)
            }
            false => None,
        };
        let way = way.unwrap_or(Way::One);
        // Those of an agent that died half-way.
        for name in [PORTS, RULES, TRANSMIT] {
            unpin(&pins.map(name))?;
        }
        unpin(&FirstLayout::place(pins, STATE))?;
        let at = |name: &str| FirstLayout::place(pins, name);
        let mut tx = loader.load(Kind::Tx(way), Some(&at))?;
        let mut maps = Maps::of(&mut tx)?;

        let remember_all = 0;
        let mine = Transmit { selector, remember_all };
        maps.transmit_mut()?.set(way.number(), mine, 0).map_err(map_error)?;
        let known: Result<Vec<u32>, MapError> = before.counters.keys().collect();
        for (slot, port) in (0..).zip(known.map_err(map_error)?) {
            let rule = match before.accept.get(&port, 0) {
                Err(MapError::KeyNotFound) => 0,
                rule => rule.map_err(map_error)?,
            };
            maps.rules_mut()?.set(slot, rule, 0).map_err(map_error)?;
            before.rules.insert(PortId(port), slot);
        }
        before.copy_counts(&mut maps)?;
        maps.set_state(State {
            // As long as programs of the first layout write their own maps, what they counted is copied to `ports`.
            layout: WITHOUT_NEAR,
            program: way.number(),
            build: 0,
        })?;
        Ok((before, maps, tx))
    }

    fn open(pins: &BondPins, wire: u32) -> io::Result<FirstLayout> {
        for (name, shape) in SHAPES {
            let path = pins.map(name);
            if path.exists() && !has_shape(&path, shape)? {
                return Err(foreign(&path));
            }
        }
        let heard = match pinned(pins, "heard") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            heard => Some(heard?),
        };
        Ok(FirstLayout {
            state: pinned(pins, STATE)?,
            accept: pinned(pins, "accept")?,
            counters: pinned(pins, "counters")?,
            heard,
            rules: BTreeMap::new(),
            wire,
        })
    }

    /// Writes what the old programs counted and heard into the new maps. Only right before the exchange: what the new programs
    /// have counted is lost by it, as is what the old ones count from here on.
    pub fn copy_counts(&self, maps: &mut Maps) -> io::Result<()> {
        let mut ports = maps.ports_mut()?;
        for (port, &rule) in &self.rules {
            let counters = self.counters.get(&port.0, 0).map_err(map_error)?;
            let stamps = match self.heard.as_ref().map(|heard| heard.get(&port.0, 0)) {
                None | Some(Err(MapError::KeyNotFound)) => vec![Stamps::default(); counters.len()],
                Some(stamps) => stamps.map_err(map_error)?.to_vec(),
            };
            let values = counters.iter().zip(stamps).map(|(&counters, stamps)| Port {
                rule,
                wire: self.wire,
                counters,
                stamps,
            });
            let values = PerCpuValues::try_from(values.collect::<Vec<_>>())?;
            ports.insert(port.0, values, 0).map_err(map_error)?;
        }
        Ok(())
    }

    /// Where the maps of the new layout are pinned meanwhile.
    pub fn place(pins: &BondPins, name: &str) -> PathBuf {
        match name {
            STATE => pins.map("state-next"),
            name => pins.map(name),
        }
    }

    /// The last step, when no program uses the old maps.
    pub fn leave(self, pins: &BondPins) -> io::Result<()> {
        fs::rename(FirstLayout::place(pins, STATE), pins.map(STATE))?;
        for (name, _) in SHAPES {
            if name != STATE {
                unpin(&pins.map(name))?;
            }
        }
        Ok(())
    }
}

fn pinned<T: TryFrom<Map, Error = MapError>>(pins: &BondPins, name: &str) -> io::Result<T> {
    let data = MapData::from_pin(pins.map(name)).map_err(map_error)?;
    Map::from_map_data(data).and_then(T::try_from).map_err(map_error)
}

const SHAPES: [(&str, Shape); 4] = [
    (STATE, FIRST_STATE),
    ("accept", (MapType::Hash, INDEX, size_of::<u32>())),
    ("counters", (MapType::PerCpuHash, INDEX, size_of::<Counters>())),
    ("heard", (MapType::PerCpuHash, INDEX, size_of::<Stamps>())),
];
/// Where the old `state` had the selector.
const SLOT_TX: u32 = 0;

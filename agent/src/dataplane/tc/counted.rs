//! What the programs count of each port, and where in the maps that is.
//!
//! The programs look for a port in `near` first, in the slot that the lowest bits of its index name, and then search `ports`. The
//! search takes as long as the rest of a program, so the first port that asks for a slot of `near` gets it. `near` is small because
//! each slot takes memory on each processor.

use std::collections::BTreeMap;
use std::io;

use aya::maps::PerCpuValues;
use bond_modes::PortId;

use super::errors::{gone_is_fine, map_error};
use super::layout::{NEAR_SLOTS, Near, Port};
use super::maps::{Maps, on_all_cpus};

/// Which ports have slots of `near`.
#[derive(Default)]
pub struct Counted {
    near: [Option<PortId>; NEAR_SLOTS],
}

impl Counted {
    /// As the maps have it, with each port's slot in `rules`.
    pub fn read(maps: &mut Maps) -> io::Result<(Counted, BTreeMap<PortId, u32>)> {
        let mut counted = Counted::default();
        let mut rules = BTreeMap::new();
        for (slot, place) in (0..).zip(&mut counted.near) {
            let values = maps.near()?.get(&slot, 0).map_err(map_error)?;
            if let Some(first) = values.iter().find(|cpu| cpu.ifindex != 0) {
                *place = Some(PortId(first.ifindex));
                rules.insert(PortId(first.ifindex), first.port.rule);
            }
        }
        let mut twice = Vec::new();
        for entry in maps.ports()?.iter() {
            let (port, values) = entry.map_err(map_error)?;
            match counted.is_near(PortId(port)) {
                true => twice.push(port),
                false => {
                    let rule = values.iter().next().map_or(0, |cpu| cpu.rule);
                    rules.insert(PortId(port), rule);
                }
            }
        }
        // Of an agent that ended while it moved them.
        for port in twice {
            gone_is_fine(maps.ports_mut()?.remove(&port))?;
        }
        Ok((counted, rules))
    }

    /// On each processor.
    pub fn values(&self, maps: &Maps, port: PortId) -> io::Result<Vec<Port>> {
        if self.is_near(port) {
            let values = maps.near()?.get(&slot_of(port), 0).map_err(map_error)?;
            return Ok(values.iter().map(|cpu| cpu.port).collect());
        }
        let values = maps.ports()?.get(&port.0, 0).map_err(map_error)?;
        Ok(values.iter().copied().collect())
    }

    /// Starts to count a port, from this value on each processor; `near` says whether all programs look there.
    pub fn add(&mut self, maps: &mut Maps, port: PortId, value: Port, near: bool) -> io::Result<()> {
        let values = on_all_cpus(value)?;
        match near && self.has_place(port) {
            true => self.put_near(maps, port, &values),
            false => maps.ports_mut()?.insert(port.0, values, 0).map_err(map_error),
        }
    }

    /// The bond's wire has this index now. What is counted just now may be lost.
    pub fn set_wire<'a>(
        &self,
        maps: &mut Maps,
        wire: u32,
        mut ports: impl Iterator<Item = &'a PortId>,
    ) -> io::Result<()> {
        ports.try_for_each(|port| {
            let values = self.values(maps, *port)?;
            let moved = values.into_iter().map(|value| Port { wire, ..value });
            let near = |value| Near {
                port: value,
                ifindex: port.0,
                unused: 0,
            };
            if self.is_near(*port) {
                let values = PerCpuValues::try_from(moved.map(near).collect::<Vec<_>>())?;
                return maps.near_mut()?.set(slot_of(*port), values, 0).map_err(map_error);
            }
            let values = PerCpuValues::try_from(moved.collect::<Vec<_>>())?;
            maps.ports_mut()?.insert(port.0, values, 0).map_err(map_error)
        })
    }

    /// Nothing goes through a port any more. It need not be there.
    pub fn remove(&mut self, maps: &mut Maps, port: PortId) -> io::Result<()> {
        if self.is_near(port) {
            let nobody = on_all_cpus(Near::default())?;
            maps.near_mut()?.set(slot_of(port), nobody, 0).map_err(map_error)?;
            self.near[slot_of(port) as usize] = None;
        }
        gone_is_fine(maps.ports_mut()?.remove(&port.0))
    }

    /// Gives free slots to ports that have none. All attached programs must know `near`. What is counted of such a port just now
    /// may be lost.
    pub fn move_near(&mut self, maps: &mut Maps) -> io::Result<()> {
        let far: Result<Vec<u32>, _> = maps.ports()?.keys().collect();
        for port in far.map_err(map_error)?.into_iter().map(PortId) {
            if self.has_place(port) {
                let values = maps.ports()?.get(&port.0, 0).map_err(map_error)?;
                self.put_near(maps, port, &values)?;
                gone_is_fine(maps.ports_mut()?.remove(&port.0))?;
            }
        }
        Ok(())
    }

    /// Whether all ports have slots.
    pub fn all_near<'a>(&self, mut ports: impl Iterator<Item = &'a PortId>) -> bool {
        ports.all(|port| self.is_near(*port))
    }

    fn is_near(&self, port: PortId) -> bool {
        self.near[slot_of(port) as usize] == Some(port)
    }

    fn has_place(&self, port: PortId) -> bool {
        self.near[slot_of(port) as usize].is_none_or(|there| there == port)
    }

    /// In two writes: the programs must not find a port before the rest of its value is there.
    fn put_near(&mut self, maps: &mut Maps, port: PortId, values: &PerCpuValues<Port>) -> io::Result<()> {
        for ifindex in [0, port.0] {
            let near = values.iter().map(|&port| Near {
                port,
                ifindex,
                unused: 0,
            });
            let near = PerCpuValues::try_from(near.collect::<Vec<_>>())?;
            maps.near_mut()?.set(slot_of(port), near, 0).map_err(map_error)?;
        }
        self.near[slot_of(port) as usize] = Some(port);
        Ok(())
    }
}

fn slot_of(port: PortId) -> u32 {
    port.0 % NEAR_SLOTS as u32
}

//! The entries of one bond's ports, as the program reads them, and what counts for them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bond_modes::PortId;
use bond_modes::plan::Failover;

use super::in_kernel::InKernel;
use super::layout::{Armed, LOSSES_COUNTED, PREPARED};
use crate::dataplane::tc::bpf::BondBpf;
use crate::dataplane::tc::layout::Transmit;

/// What the program knows of one bond.
pub struct Prepared {
    pub in_kernel: InKernel,
    /// Index of the bond.
    pub bond: u32,
    /// The last number.
    pub number: u32,
    /// The entries of its ports.
    pub entries: BTreeMap<PortId, Armed>,
    /// What was put in force.
    pub in_force: BTreeMap<PortId, Failover>,
    /// What was read of carriers; none if that is to be done first.
    pub known: Option<Known>,
    /// Why what the last plan prepares could not be put in force.
    pub failed: Option<String>,
}

/// Carriers of a bond's ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// So many losses had been counted before they were read.
    pub losses: u32,
    /// Ports without.
    pub off: BTreeSet<PortId>,
}

/// What the program goes by: a number, in force as long as so many losses are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// 0 if nothing is in force.
    pub number: u32,
    /// Losses.
    pub losses: u32,
}

impl Standing {
    /// As it is written.
    pub fn read(bpf: &BondBpf) -> io::Result<Standing> {
        let value = bpf.transmit(PREPARED)?;
        Ok(Standing {
            number: value.selector,
            losses: value.remember_all,
        })
    }

    /// Writes it.
    pub fn write(self, bpf: &mut BondBpf) -> io::Result<()> {
        let value = Transmit {
            selector: self.number,
            remember_all: self.losses,
        };
        bpf.set_transmit(PREPARED, value)
    }
}

/// Losses that the program has counted.
pub fn losses(bpf: &BondBpf) -> io::Result<u32> {
    Ok(bpf.transmit(LOSSES_COUNTED)?.selector)
}

impl Prepared {
    /// Nothing yet for this bond.
    pub fn new(in_kernel: &InKernel, bond: u32) -> Prepared {
        Prepared {
            in_kernel: in_kernel.clone(),
            bond,
            number: 0,
            entries: BTreeMap::new(),
            in_force: BTreeMap::new(),
            known: None,
            failed: None,
        }
    }

    /// A port leaves.
    pub fn forget_port(&mut self, port: PortId) -> io::Result<()> {
        self.entries.remove(&port);
        self.in_kernel.forget_port(port)
    }

    /// The bond is about to go.
    pub fn forget_ports(&mut self) -> io::Result<()> {
        let mut ports = std::mem::take(&mut self.entries).into_keys();
        ports.try_for_each(|port| self.in_kernel.forget_port(port))
    }

    /// The entry of a port for whose loss nothing is prepared.
    pub fn blank(&self, port: PortId) -> Armed {
        Armed {
            ifindex: port.0,
            bond: self.bond,
            ..Armed::default()
        }
        .sealed()
    }

    /// Whether the losses of these ports are counted.
    pub fn counts(&self, mut ports: impl Iterator<Item = PortId>) -> bool {
        ports.all(|port| self.entries.contains_key(&port))
    }

    /// Writes the entry of a port, unless it is there.
    pub fn enter(&mut self, port: PortId, entry: Armed) -> io::Result<()> {
        if self.entries.get(&port) != Some(&entry) {
            self.in_kernel.arm(port, entry)?;
            self.entries.insert(port, entry);
        }
        Ok(())
    }

    /// Another number than any that an entry has.
    pub fn next_number(&mut self) -> u32 {
        self.number = self.number.checked_add(1).unwrap_or(1);
        self.number
    }
}

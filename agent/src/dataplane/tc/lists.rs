//! Lists of ports: prepared aside in a slot, put in force by one write of the selector in the map `state`.
//!
//! No run of `bond_tx` ever sees a slot being written. A run takes the slot's number from the selector and is done with the slot
//! when it ends; the kernel lets no run outlive an RCU grace period. So a slot that no selector has named since before a grace
//! period began has no reader. Such slots are *clean*:
//! - all slots of a new map;
//! - all but the one in force after [`grace_period`], which is waited for when a map of an earlier agent is taken over, and when
//!   the clean slots are used up.
//!
//! A slot is written only while it is clean, and is not clean from then on. A slot's words reach memory before the selector that
//! names it: there is a fence between the two system calls.

use std::io;
use std::sync::atomic::{Ordering, fence};
use std::thread;
use std::time::Duration;

use aya::maps::{Array, MapData};
use bond_modes::{PortId, TxPolicy, XmitHashPolicy};

use super::bpf::map_error;

/// `struct list` of bond.bpf.c.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct List {
    kind: u32,
    setting: u32,
    igmp: u32,
    count: u32,
    ports: [u32; MAX_PORTS],
}

// SAFETY: integers without padding; every bit pattern is a value.
unsafe impl aya::Pod for List {}

/// The map `lists` and which of its slots are clean.
pub struct Lists {
    slots: Array<MapData, List>,
    clean: Vec<u32>,
}

impl Lists {
    /// Takes the map over. `used`: an earlier agent may have left a slot a moment ago. `selector` is the one in force.
    pub fn new(slots: Array<MapData, List>, used: bool, selector: u32) -> Lists {
        let mut lists = Lists {
            slots,
            clean: Vec::new(),
        };
        if used {
            lists.wait_for_readers(selector);
        } else {
            lists.clean = (FIRST_SLOT..lists.slots.len()).collect();
        }
        lists
    }

    /// Writes the list of a policy that has one into a clean slot. Returns the selector that puts it in force, to be written at
    /// once. `in_force` is the selector that it will replace.
    pub fn prepare(&mut self, policy: &TxPolicy, in_force: u32) -> io::Result<u32> {
        let list = List::encode(policy)?;
        if self.clean.is_empty() {
            self.wait_for_readers(in_force);
        }
        // Not empty: at most one slot is in force, and there are more.
        let slot = self.clean.pop().ok_or(io::ErrorKind::StorageFull)?;
        self.slots.set(slot, list, 0).map_err(map_error)?;
        fence(Ordering::SeqCst);
        Ok(IS_LIST | slot << SLOT_SHIFT)
    }

    /// The policy that a selector with a list stands for.
    pub fn policy(&self, selector: u32) -> io::Result<TxPolicy> {
        let list = self.slots.get(&slot_of(selector), 0).map_err(map_error)?;
        Ok(list.decode())
    }

    fn wait_for_readers(&mut self, in_force: u32) {
        grace_period();
        let kept = is_list(in_force).then(|| slot_of(in_force));
        self.clean = (FIRST_SLOT..self.slots.len())
            .filter(|slot| Some(*slot) != kept)
            .collect();
    }
}

impl List {
    fn encode(policy: &TxPolicy) -> io::Result<List> {
        let (kind, setting, igmp, ports) = match policy {
            TxPolicy::RoundRobin {
                ports,
                packets_per_port,
                igmp,
            } => (ROUND_ROBIN, *packets_per_port, igmp.0, ports),
            TxPolicy::Hash { ports, policy } => (HASH, policy.number().into(), 0, ports),
            TxPolicy::All(ports) => (ALL, 0, 0, ports),
            TxPolicy::Drop | TxPolicy::One(_) => return Err(io::Error::other("not a list of ports")),
        };
        if ports.len() > MAX_PORTS {
            return Err(io::Error::other(format!(
                "a list can have {MAX_PORTS} ports, not {}",
                ports.len()
            )));
        }
        let mut list = List {
            kind,
            setting,
            igmp,
            count: ports.len() as u32,
            ports: [0; MAX_PORTS],
        };
        for (place, port) in list.ports.iter_mut().zip(ports) {
            *place = port.0;
        }
        Ok(list)
    }

    /// What the program makes of this list; nothing of one that it does not know.
    fn decode(&self) -> TxPolicy {
        let ports = self.ports.iter().take(self.count as usize).copied().map(PortId);
        let ports: Vec<PortId> = ports.collect();
        let named = |(_, _, number): &&(_, _, u8)| u32::from(*number) == self.setting;
        let policy = XmitHashPolicy::VALUES.iter().find(named);
        match (self.kind, policy) {
            _ if ports.is_empty() => TxPolicy::Drop,
            (ROUND_ROBIN, _) => TxPolicy::RoundRobin {
                ports,
                packets_per_port: self.setting,
                igmp: PortId(self.igmp),
            },
            (HASH, Some(&(policy, _, _))) => TxPolicy::Hash { ports, policy },
            (ALL, _) => TxPolicy::All(ports),
            _ => TxPolicy::Drop,
        }
    }
}

/// Whether a selector names a list and not a port.
pub fn is_list(selector: u32) -> bool {
    selector & IS_LIST != 0
}

fn slot_of(selector: u32) -> u32 {
    (selector & !IS_LIST) >> SLOT_SHIFT
}

/// Returns when every program that was running at the call has ended. [membarrier(2)]
fn grace_period() {
    // SAFETY: passes three integers.
    let waited = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if waited != 0 {
        // Refused where a processor runs without ticks. (nohz_full) Programs run in soft interrupts, for microseconds.
        thread::sleep(LONG_FOR_A_SOFTIRQ);
    }
}

/// Ports of one list, as many as a bond can have. [bond.bpf.c: MAX_PORTS]
const MAX_PORTS: usize = 256;
/// The slots before are never filled. [bond.bpf.c: LIST_SLOTS]
const FIRST_SLOT: u32 = 1;
/// Bit of a selector that names a list. [bond.bpf.c: IS_LIST]
const IS_LIST: u32 = 1 << 31;
/// Where in it the slot's number begins: in the highest byte, the only one that differs between lists. [bond.bpf.c: LIST_SLOT]
const SLOT_SHIFT: u32 = 24;
/// Kinds of lists. [bond.bpf.c: LIST_ROUND_ROBIN]
const ROUND_ROBIN: u32 = 1;
const HASH: u32 = 2;
const ALL: u32 = 3;
const LONG_FOR_A_SOFTIRQ: Duration = Duration::from_millis(100);

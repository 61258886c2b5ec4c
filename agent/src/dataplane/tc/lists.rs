//! Lists of ports: prepared aside in a slot, put in force by one write of the selector in the map `transmit`.
//!
//! No run of a sending program ever sees a slot being written. A run takes the slot's number from the selector and is done with
//! the slot when it ends; the kernel lets no run outlive an RCU grace period. So a slot that no selector has named since before a
//! grace period began has no reader. Such slots are *clean*: all slots of a new map, and after a grace period all but the one in force.
//!
//! Nothing here waits for a grace period, which takes some milliseconds, or a tenth of a second. Who may wait does it before: for the
//! list of an earlier agent, which may have left other slots a moment ago, when it is taken over; and in time for the next lists, see
//! [`restock`](super::restock). Without a clean slot no list is prepared, and the traffic stays as it is until there is one.
//!
//! A slot is written only while it is clean, and is not clean from then on. A slot's words reach memory before the selector that
//! names it: there is a fence between the two system calls.

use std::borrow::{Borrow, BorrowMut};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{Ordering, fence};
use std::thread;
use std::time::Duration;

use aya::maps::{Array, MapData};
use bond_modes::plan::{Spread, Tx};
use bond_modes::{PortId, XmitHashPolicy};

use super::errors::map_error;

/// `struct list` of maps.bpf.h.
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

/// Which slots of the map `lists` are clean.
#[derive(Default)]
pub struct Lists {
    /// Nothing is known before a list is taken over, or a grace period has passed.
    clean: Option<Vec<u32>>,
    /// How many lists were prepared.
    prepared: u64,
    /// By slot, the number of the last list that was prepared there.
    last: BTreeMap<u32, u64>,
}

/// Slots that no selector names, while their grace period is waited for.
pub struct Left {
    slots: Vec<u32>,
    /// How many lists had been prepared by then.
    prepared: u64,
}

impl Lists {
    /// Those of a new map.
    pub fn of_new_map(slots: &Array<impl Borrow<MapData>, List>) -> Lists {
        Lists {
            clean: Some((FIRST_SLOT..slots.len()).collect()),
            ..Lists::default()
        }
    }

    /// Whether it is unknown which slots are clean.
    pub fn are_unknown(&self) -> bool {
        self.clean.is_none()
    }

    /// Takes over the map of an earlier agent, with the list that it left in force if there is one. It may have left other slots a
    /// moment before it ended: to be called when a grace period has passed since, which is not to be waited for when the traffic moves.
    pub fn take_over(&mut self, slots: &Array<impl Borrow<MapData>, List>, selector: u32) {
        self.clean = Some(all_but(slots, &[selector]));
    }

    /// Writes the ports that send, and how they take turns, into a clean slot. Returns the selector that puts it in force, to be
    /// written at once. `in_force` are the selectors that it may replace.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: no slot is clean.
    pub fn prepare(
        &mut self,
        slots: &mut Array<impl BorrowMut<MapData>, List>,
        tx: &Tx,
        in_force: &[u32],
    ) -> io::Result<u32> {
        let list = List::encode(tx)?;
        let clean = self.clean.as_mut().ok_or(io::ErrorKind::WouldBlock)?;
        // One that the kernel has put in force by itself since the slots were counted is none of them.
        clean.retain(|slot| !names(in_force, *slot));
        let slot = clean.pop().ok_or(io::ErrorKind::WouldBlock)?;
        self.prepared += 1;
        self.last.insert(slot, self.prepared);
        slots.set(slot, list, 0).map_err(map_error)?;
        fence(Ordering::SeqCst);
        Ok(IS_LIST | slot << SLOT_SHIFT)
    }

    /// How many lists can be prepared, as far as is known.
    pub fn clean(&self) -> usize {
        self.clean.as_ref().map_or(0, Vec::len)
    }

    /// All slots but those in force. They are clean after a grace period.
    pub fn left(&self, slots: &Array<impl Borrow<MapData>, List>, in_force: &[u32]) -> Left {
        Left {
            slots: all_but(slots, in_force),
            prepared: self.prepared,
        }
    }

    /// A grace period has passed since [`Lists::left`]. A slot that was used meanwhile may have readers, even if it was left again.
    /// Several threads may wait at the same time.
    pub fn note_clean(&mut self, mut left: Left) {
        let is_used = |slot: &u32| self.last.get(slot).is_some_and(|last| *last > left.prepared);
        left.slots.retain(|slot| !is_used(slot));
        let clean = self.clean.get_or_insert_default();
        clean.retain(|slot| !left.slots.contains(slot));
        clean.append(&mut left.slots);
    }

    /// What a selector with a list stands for.
    pub fn tx(slots: &Array<impl Borrow<MapData>, List>, selector: u32) -> io::Result<Tx> {
        let list = slots.get(&slot_of(selector), 0).map_err(map_error)?;
        Ok(list.decode())
    }
}

fn all_but(slots: &Array<impl Borrow<MapData>, List>, in_force: &[u32]) -> Vec<u32> {
    (FIRST_SLOT..slots.len())
        .filter(|slot| !names(in_force, *slot))
        .collect()
}

/// Whether one of these selectors names a slot.
fn names(selectors: &[u32], slot: u32) -> bool {
    selectors.iter().any(|named| is_list(*named) && slot_of(*named) == slot)
}

impl List {
    pub(super) fn encode(tx: &Tx) -> io::Result<List> {
        let ports = &tx.ports;
        let (kind, setting, igmp) = match (&tx.kind, ports.first()) {
            (Spread::RoundRobin { packets_per_port, igmp }, Some(first)) => {
                (ROUND_ROBIN, *packets_per_port, igmp.unwrap_or(*first).0)
            }
            (Spread::Hash(policy), Some(_)) => (HASH, policy.number().into(), 0),
            (Spread::All, Some(_)) => (ALL, 0, 0),
            (_, None) | (Spread::One | Spread::Buckets { .. }, _) => {
                return Err(io::Error::other("not a list of ports"));
            }
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
    fn decode(&self) -> Tx {
        let ports = self.ports.iter().take(self.count as usize).copied().map(PortId);
        let ports: Vec<PortId> = ports.collect();
        let named = |(_, _, number): &&(_, _, u8)| u32::from(*number) == self.setting;
        let policy = XmitHashPolicy::VALUES.iter().find(named);
        let kind = match (self.kind, policy) {
            _ if ports.is_empty() => return Tx::one(None),
            (ROUND_ROBIN, _) => Spread::RoundRobin {
                packets_per_port: self.setting,
                igmp: Some(PortId(self.igmp)),
            },
            (HASH, Some(&(policy, _, _))) => Spread::Hash(policy),
            (ALL, _) => Spread::All,
            _ => return Tx::one(None),
        };
        Tx::new(kind, ports)
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
pub fn grace_period() {
    #[cfg(test)]
    {
        crate::netlink::tests::asks::may_wait();
        GRACE_PERIODS.set(GRACE_PERIODS.get() + 1);
    }
    // SAFETY: passes three integers.
    let waited = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if waited != 0 {
        // Refused where a processor runs without ticks. (nohz_full) Programs run in soft interrupts, for microseconds.
        thread::sleep(LONG_FOR_A_SOFTIRQ);
    }
}

#[cfg(test)]
thread_local! {
    /// How many this thread has waited for.
    pub(super) static GRACE_PERIODS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Ports of one list, as many as a bond can have. [maps.bpf.h: MAX_PORTS]
const MAX_PORTS: usize = 256;
/// The slots before are never filled. [maps.bpf.h: LIST_SLOTS]
const FIRST_SLOT: u32 = 1;
/// Bit of a selector that names a list. [maps.bpf.h: IS_LIST]
const IS_LIST: u32 = 1 << 31;
/// Where in it the slot's number begins: in the highest byte, the only one that differs between lists. [maps.bpf.h: LIST_SLOT]
const SLOT_SHIFT: u32 = 24;
/// Kinds of lists: for the agent, which reads back what it wrote. The programs do not look at them.
const ROUND_ROBIN: u32 = 1;
const HASH: u32 = 2;
const ALL: u32 = 3;
const LONG_FOR_A_SOFTIRQ: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::tc::bpf::tests::new;

    fn all(ports: std::ops::Range<u32>) -> Tx {
        Tx::new(Spread::All, ports.map(PortId).collect())
    }

    #[test]
    fn a_list_of_any_length_is_read_back_as_written() {
        let (mut bpf, _) = new();
        for count in [1, 2, 64, MAX_PORTS as u32] {
            let ports: Vec<PortId> = (1000..1000 + count).map(PortId).collect();
            let hashes = XmitHashPolicy::VALUES
                .iter()
                .map(|(policy, _, _)| Spread::Hash(*policy));
            let round_robin = Spread::RoundRobin {
                packets_per_port: 65535,
                igmp: Some(PortId(7)),
            };
            for kind in hashes.chain([round_robin, Spread::All]) {
                let list = Tx::new(kind, ports.clone());
                bpf.set_any_tx(&list).unwrap();
                assert_eq!(bpf.tx().unwrap(), list);
            }
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_refused_and_changes_nothing() {
        let (mut bpf, _) = new();
        bpf.set_any_tx(&all(1..3)).unwrap();
        let refused = bpf.set_any_tx(&all(0..MAX_PORTS as u32 + 1)).unwrap_err();
        assert_eq!(refused.to_string(), "a list can have 256 ports, not 257");
        assert_eq!(bpf.tx().unwrap(), all(1..3));
    }

    #[test]
    fn a_list_of_a_kind_from_the_future_sends_nowhere() {
        let mut list = List::encode(&all(1..3)).unwrap();
        list.kind = 99;
        assert_eq!(list.decode(), Tx::one(None));
        list.kind = HASH;
        list.setting = 99;
        assert_eq!(list.decode(), Tx::one(None));
    }

    /// None of the slots that a selector has named is used again before a grace period has passed since it was left.
    #[test]
    fn a_slot_rests_until_nobody_can_read_it() {
        let (mut bpf, _) = new();
        let (lists, mut slots) = bpf.lists();
        let mut in_force = 0;
        for _ in 0..3 {
            let before = lists.clean.clone().unwrap();
            assert!(!before.contains(&slot_of(in_force)) && !before.contains(&0));
            for left in (0..before.len()).rev() {
                let next = lists.prepare(&mut slots, &all(1..3), &[in_force]).unwrap();
                let clean = lists.clean.clone().unwrap();
                assert_eq!((next | 0xff << SLOT_SHIFT, clean.len()), (0xff << SLOT_SHIFT, left));
                assert!(is_list(next) && before.contains(&slot_of(next)) && !clean.contains(&slot_of(next)));
                in_force = next;
            }
            let left = lists.left(&slots, &[in_force]);
            grace_period();
            lists.note_clean(left);
        }
        assert_eq!(lists.clean.as_ref().unwrap().len() as u32, slots.len() - 1 - FIRST_SLOT);
    }

    #[test]
    fn a_slot_that_was_taken_during_a_grace_period_is_not_clean_after_it() {
        let (mut bpf, _) = new();
        let (lists, mut slots) = bpf.lists();
        let mut in_force = 0;
        while lists.clean() > 1 {
            in_force = lists.prepare(&mut slots, &all(1..3), &[in_force]).unwrap();
        }
        let left = lists.left(&slots, &[in_force]);
        let taken = lists.prepare(&mut slots, &all(1..3), &[in_force]).unwrap();
        let refused = lists.prepare(&mut slots, &all(1..3), &[taken]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        lists.note_clean(left);
        assert!(!lists.clean.as_ref().unwrap().contains(&slot_of(taken)));
        assert!(lists.clean() > 10, "but the others are");
    }

    #[test]
    fn of_two_grace_periods_that_overlap_each_frees_what_was_left_before_it() {
        let (mut bpf, _) = new();
        let (lists, mut slots) = bpf.lists();
        let first = lists.left(&slots, &[0]);
        let taken = lists.prepare(&mut slots, &all(1..3), &[0]).unwrap();
        let next = lists.prepare(&mut slots, &all(1..3), &[taken]).unwrap();
        let second = lists.left(&slots, &[next]);
        lists.note_clean(first);
        assert!(
            !lists.clean.as_ref().unwrap().contains(&slot_of(taken)),
            "it was left later"
        );
        lists.note_clean(second);
        assert!(lists.clean.as_ref().unwrap().contains(&slot_of(taken)));
        assert_eq!(lists.clean() as u32, slots.len() - 1 - FIRST_SLOT);
    }

    #[test]
    fn a_clean_slot_that_was_taken_and_left_during_a_grace_period_is_not_clean_after_it() {
        let (mut bpf, _) = new();
        let (lists, mut slots) = bpf.lists();
        let first = lists.prepare(&mut slots, &all(1..3), &[0]).unwrap();
        let left = lists.left(&slots, &[first]);
        let taken = lists.prepare(&mut slots, &all(1..3), &[first]).unwrap();
        let next = lists.prepare(&mut slots, &all(1..3), &[taken]).unwrap();
        lists.note_clean(left);
        let clean = lists.clean.clone().unwrap();
        assert!(!clean.contains(&slot_of(taken)), "a program may still read it");
        assert!(!clean.contains(&slot_of(next)) && !clean.is_empty());
    }
}

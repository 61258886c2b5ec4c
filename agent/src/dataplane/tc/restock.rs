//! Room for the next lists of ports, made by a thread of its own.
//!
//! A slot for a list is used again only after a grace period; see [`lists`]. The loop waits for none, as it holds up all
//! bonds, and the kernel thread may be waiting for RTNL. So a bond that has used half of its slots asks this thread, which waits for a
//! grace period and for nothing else: one for all bonds that ask. As many changes as there are slots left can follow each other
//! meanwhile. If there are more, the traffic stays as it is, and this thread lets it follow the newest plan as soon as there is room.
//! It is no more than one grace period late then, whoever holds RTNL.
//!
//! Those who may wait make room themselves before they need it, without the lock of the bond.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use super::failover::{LISTS_LEFT, MOST_PREPARED};
use super::forwarding::{Forwarding, InForce, Short};
use super::lists::{self, Left};
use super::traffic;
use crate::{priority, vital_thread};

/// Starts the thread. It ends when nobody can ask it any more.
///
/// # Errors
/// The thread cannot be made.
pub fn start() -> io::Result<Sender<Short>> {
    let (asked, short) = mpsc::channel();
    vital_thread::start("bondd-lists", move || restock(&short))?;
    Ok(asked)
}

impl Forwarding {
    /// Asks the thread for room, if this bond needs it soon.
    pub(super) fn ask_for_room(&self, now: &mut InForce) {
        if now.bpf.is_short_of_lists(RESTOCKED_BELOW) && !now.restocking.asked {
            now.restocking.asked = true;
            // It ends only with the agent.
            let _ = now.restocking.by.send(Arc::downgrade(&self.0));
        }
    }

    /// Makes room at once. Waits for a grace period, not locked. If that fails, so does what needs the room.
    pub fn make_room(&self) {
        if let Ok(left) = self.with(|now| now.bpf.left_lists()) {
            lists::grace_period();
            self.with(|now| now.bpf.note_clean(left));
        }
    }
}

fn restock(short: &Receiver<Short>) {
    priority::raise(priority::KERNEL);
    while let Ok(first) = short.recv() {
        let mut all = Vec::new();
        for bond in std::iter::once(first).chain(short.try_iter()) {
            if let Some(there) = bond.upgrade() {
                let left = Forwarding(there).with(|now| now.bpf.left_lists());
                all.push((bond, left));
            }
        }
        lists::grace_period();
        if all.iter().any(|(_, left)| left.is_err()) {
            thread::sleep(RETRY);
        }
        for (bond, left) in all {
            if let Some(bond) = bond.upgrade() {
                Forwarding(bond).with(|now| restocked(now, left));
            }
        }
    }
}

fn restocked(now: &mut InForce, left: io::Result<Left>) {
    // From now on it may ask again, and does if this failed.
    now.restocking.asked = false;
    match left {
        Ok(left) => now.bpf.note_clean(left),
        Err(error) => return log::debug!("{}: cannot make room for lists: {error}", now.name),
    }
    if let Some(plan) = now.wanted.take() {
        traffic::catch_up(now, &plan);
        now.wanted = Some(plan);
    }
}

/// A bond with fewer clean slots is restocked: half of them, and as many as what is prepared for the loss of its ports may take.
pub(super) const RESTOCKED_BELOW: usize = MOST_PREPARED + LISTS_LEFT;
const RETRY: Duration = Duration::from_millis(100);

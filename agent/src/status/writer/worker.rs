//! The thread's side.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

use bond_monitors::Time;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::publish::Publisher;
use super::orders::{Note, Order, Orders, Place, Task, Urgency};
use super::progress::{Outcome, Progress};
use crate::clock;
use crate::may_wait::MayWait;
use crate::saved::replace::replace;

pub(super) struct Worker {
    unread: Receiver<Note>,
    orders: Orders,
    outcomes: Sender<Outcome>,
    /// Files with saved states that could not be written the last time.
    failing: BTreeSet<PathBuf>,
    progress: Arc<Progress>,
    wake: UnixStream,
    publisher: Publisher,
    release: String,
}

/// Nothing waits for this thread.
impl MayWait for Worker {}

impl Worker {
    pub(super) fn new(
        (unread, outcomes): (Receiver<Note>, Sender<Outcome>),
        progress: Arc<Progress>,
        wake: UnixStream,
        run_dir: PathBuf,
        release: String,
    ) -> Worker {
        Worker {
            unread,
            orders: Orders::default(),
            outcomes,
            failing: BTreeSet::new(),
            progress,
            wake,
            publisher: Publisher::new(run_dir),
            release,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            self.obey_test();
            let ended = self.read_notes();
            match self.orders.next() {
                Some(task) => {
                    self.carry_out(task);
                    self.progress.steps.fetch_add(1, Ordering::SeqCst);
                }
                None if ended => return,
                None => self.wait(),
            }
        }
    }

    /// Reads everything that was handed over; whether nothing more can come.
    fn read_notes(&mut self) -> bool {
        let ended = loop {
            match self.unread.try_recv() {
                Ok(note) => self.orders.add(note),
                Err(error) => break error == TryRecvError::Disconnected,
            }
        };
        self.report();
        if self.progress.refused.swap(false, Ordering::SeqCst) {
            self.poke();
        }
        ended
    }

    fn carry_out(&mut self, task: Task) {
        let now = clock::now();
        match task {
            Task::Save(path, text) => {
                let written = replace(&path, &text, self);
                let failed_before = match written.is_ok() {
                    true => self.failing.remove(&path),
                    false => !self.failing.insert(path.clone()),
                };
                if failed_before || written.is_err() {
                    // The loop is gone if this fails.
                    let _ = self.outcomes.send((path, written));
                    self.poke();
                }
                self.report();
            }
            Task::Bond(place, order) => {
                self.write(now, place, order);
                if place.0 == Urgency::Awaited {
                    self.report();
                    self.poke();
                }
            }
            Task::Prune => self.publisher.prune(now),
            Task::Settle(settles) => {
                let steps = &self.progress.steps;
                self.publisher.flush_all(now, || {
                    steps.fetch_add(1, Ordering::SeqCst);
                });
                for settled in settles {
                    // The loop may have given up.
                    let _ = settled.try_send(());
                }
                self.poke();
            }
        }
    }

    fn write(&mut self, now: Time, Place(urgency, _): Place, order: Order) {
        if order.remove {
            self.publisher.remove(now, &order.bond);
        }
        let Some(page) = order.page else { return };
        let (age, tree) = (page.age, page.render(&self.release));
        match urgency {
            Urgency::Awaited => self.publisher.update_now(now, &order.bond, age, tree),
            Urgency::Usual => {
                self.publisher.update(&order.bond, age, tree);
                self.publisher.flush(now);
            }
        }
    }

    /// Waits until something was handed over, or files that were put off are due, and writes them.
    fn wait(&mut self) {
        let due = self.publisher.poll_timeout();
        let wait = due.map_or(PollTimeout::NONE, |due| {
            let millis = due.since(clock::now()).as_millis() + 1;
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
        });
        // A failure is that of a signal: it is time to look.
        let _ = poll(&mut [PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)], wait);
        let mut pokes = [0; 64];
        while self.wake.read(&mut pokes).is_ok_and(|count| count == pokes.len()) {}
        self.publisher.flush(clock::now());
    }

    fn report(&self) {
        self.progress.done.store(self.orders.done(), Ordering::SeqCst);
    }

    /// Wakes the loop up.
    fn poke(&mut self) {
        // If it is full, the loop is going to look anyway.
        let _ = self.wake.write(&[0]);
    }

    #[cfg(not(test))]
    fn obey_test(&self) {}

    #[cfg(test)]
    fn obey_test(&self) {
        while self.progress.held.load(Ordering::SeqCst) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(!self.progress.panics.load(Ordering::SeqCst), "a test wants it");
    }
}

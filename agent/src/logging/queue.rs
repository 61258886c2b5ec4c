//! Lines on their way to standard error. Whoever reads it may be slow: the loop hands lines over, and a thread with ordinary
//! priority writes them.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Whole lines that are not written yet, in their order. Its lock is held for a copy or a swap only, never while something is written.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Lines after these for which there was no room.
    dropped: u64,
    /// Lines before these are being written.
    writing: bool,
}

impl Queue {
    /// Adds a line, if there is room. After one that was dropped, all are until the thread has taken what is there: so it knows where
    /// they are missing.
    pub(super) fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.dropped > 0 || waiting.lines.len() + line.len() > ROOM {
            waiting.dropped += 1;
        } else {
            waiting.lines.extend_from_slice(line);
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// Writes lines one by one, for ever. `missing` makes the line that stands for so many dropped ones.
    pub(super) fn write_all(&self, mut write: impl FnMut(&[u8]), missing: impl Fn(u64) -> String) {
        let mut lines = Vec::new();
        loop {
            let dropped = self.take(&mut lines);
            lines.split_inclusive(|byte| *byte == b'\n').for_each(&mut write);
            if dropped > 0 {
                write(missing(dropped).as_bytes());
            }
            lines.clear();
            lines.shrink_to(KEPT);
        }
    }

    /// Waits for lines, and takes all in exchange for an empty buffer; how many are missing after them. Those that were taken before
    /// are written.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let mut waiting = self.lock();
        waiting.writing = false;
        let nothing = |waiting: &mut Waiting| waiting.lines.is_empty() && waiting.dropped == 0;
        let waited = self.news.wait_while(waiting, nothing);
        let mut waiting = waited.unwrap_or_else(PoisonError::into_inner);
        waiting.writing = true;
        mem::swap(&mut waiting.lines, lines);
        mem::take(&mut waiting.dropped)
    }

    /// Waits until everything is written, but not longer than this.
    pub(super) fn flush(&self, limit: Duration) {
        let end = Instant::now() + limit;
        while !self.is_written() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_written(&self) -> bool {
        let waiting = self.lock();
        !waiting.writing && waiting.lines.is_empty() && waiting.dropped == 0
    }

    /// Nothing that holds the lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of lines that wait. As many may be in the hands of the thread.
const ROOM: usize = 128 << 10;

/// Bytes of a buffer that stay after many lines.
const KEPT: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    /// A queue whose thread hands each line to the receiver, and waits until it is taken.
    fn read_by_hand() -> (Arc<Queue>, mpsc::Receiver<String>) {
        let queue = Arc::new(Queue::default());
        let (written, read) = mpsc::sync_channel(0);
        let writer = Arc::clone(&queue);
        thread::spawn(move || {
            let write = |line: &[u8]| drop(written.send(String::from_utf8_lossy(line).into_owned()));
            writer.write_all(write, |count| format!("{count} are missing\n"));
        });
        (queue, read)
    }

    fn next(read: &mpsc::Receiver<String>) -> String {
        read.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    #[test]
    fn lines_come_in_their_order_and_those_without_room_are_counted_where_they_are_missing() {
        let (queue, read) = read_by_hand();
        let line = |number: usize| format!("{number:0>99}\n");
        queue.push(line(0).as_bytes());
        while !queue.lock().writing {
            thread::yield_now();
        }
        let (fit, all) = (ROOM / 100, 2000);
        (1..=all).for_each(|number| queue.push(line(number).as_bytes()));
        queue.push(b"short\n");
        queue.flush(Duration::from_millis(5));
        assert!(!queue.is_written(), "nobody reads");
        for number in 0..=fit {
            assert_eq!(next(&read), line(number));
        }
        assert_eq!(next(&read), format!("{} are missing\n", all - fit + 1));
        queue.push(b"later\n");
        assert_eq!(next(&read), "later\n");
        queue.flush(Duration::from_secs(10));
        assert!(queue.is_written());
    }
}

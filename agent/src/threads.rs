//! The threads to which the loop leaves what takes long.
//!
//! The kernel thread waits for the kernel's RTNL lock. Others hold that lock for seconds: while thousands of interfaces are
//! deleted, or a firmware is slow. A request to rtnetlink, ethtool or a driver waits as long, so the loop, which decides, makes
//! none before a failover. It reads sockets and writes maps. What takes the lock is a job of that thread, and its answer comes back
//! to the loop as a fact like others.
//!
//! The reader reads files of `/proc/net`, which needs no such lock, but takes longer the more interfaces there are: so it rests.
//!
//! The examiner finds out for `doctor` what this kernel can do. It makes devices and loads programs, which takes long, with sockets of
//! its own: it shares no lock with the others, and is behind them where they want the processor. It also gives ports back that were
//! moved to another network namespace, which it looks for among those of all processes.
//!
//! Sockets that receive the frames of a port are closed by a thread of [`instances`](crate::instances): closing one waits for all
//! processors, ten milliseconds or more. Nothing waits for that thread, so it is none of those here.
//!
//! Changes, for clients, for option files and because interfaces came or went, are made by one more thread; see
//! [`instances::Changer`](crate::instances::Changer). It has the planes, and shares the instances with the loop: it gives them back
//! whenever it waits.
//!
//! A plane may have threads of its own. One of `tc` waits for grace periods of the kernel, without RTNL, so that lists of ports can be
//! put in force by the loop at any time; another one tells the kernel which bonds it is to fail over by itself.
//!
//! Lines of the log are written by a thread of [`logging`](crate::logging), because whoever reads them may be slow.
//!
//! These take the kernel's RTNL lock:
//! - the kernel thread, with most of its jobs;
//! - the changer, as it makes and removes devices, takes ports in and gives them back, all of that without the instances;
//! - the examiner, as it makes devices to try them, and sets ports that were moved;
//! - the thread that closes sockets, where they receive slow protocols, such as LACP;
//! - whoever has the instances, so also the loop, but only as it begins or ends to receive slow protocols on a port: where a bond of
//!   mode 802.3ad goes up or down, gets a port, or changes its mode.
//!
//! The reader, the threads of `tc`, and those that write the log and the status files never do. The thread of `tc` that tells the
//! kernel of bonds may wait for a lock of the plane that the changer has meanwhile.
//!
//! So but for that the loop waits for nothing but its turn to have the instances. It cannot use a plane or a bond's plane, which other
//! threads may have locked while they wait: that takes a [`MayWait`](crate::may_wait::MayWait), which it has not. It leaves work with
//! them instead, which whoever has the plane next does first. Until the loop begins, the start reads all interfaces.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use mio::Waker;

use crate::clock;
use crate::descriptors::cannot;
use crate::netlink::RouteSocket;
use crate::netlink::carriers::CarrierSocket;
use crate::worker::{Answer, Urgency, Worker};

/// What jobs of the kernel thread ask.
pub struct Kernel {
    /// For requests about single interfaces, and dumps.
    pub links: RouteSocket,
    /// For rounds of polls.
    pub carriers: CarrierSocket,
}

/// Work that takes a fifth of a processor at most: at real-time priority more would keep other programs from it.
pub struct Reader {
    rests_until: Instant,
}

/// The loop's side of these threads. `S` is the state of the loop that answers change.
pub struct Threads<S> {
    /// For what waits for the RTNL lock.
    pub kernel: Worker<Kernel, S>,
    /// For what only takes long.
    pub reader: Worker<Reader, S>,
    /// For what only a client waits for, or nobody.
    pub examiner: Worker<(), S>,
}

impl Kernel {
    /// Opens its sockets in the network namespace of the calling thread.
    pub fn open() -> io::Result<Kernel> {
        Ok(Kernel {
            links: RouteSocket::open().map_err(cannot("open a socket for requests to the kernel"))?,
            carriers: CarrierSocket::open().map_err(cannot("open a socket that polls carriers"))?,
        })
    }
}

impl Reader {
    fn new() -> Reader {
        Reader {
            rests_until: Instant::now(),
        }
    }

    /// Does some work, after a rest that is [`REST`] times as long as the work before.
    pub fn read<T>(&mut self, work: impl FnOnce() -> T) -> T {
        std::thread::sleep(self.rests_until.saturating_duration_since(Instant::now()));
        let before = clock::worked();
        let read = work();
        self.rests_until = Instant::now() + (clock::worked() - before) * REST;
        read
    }
}

/// What the reader rests after work, in times of that work.
const REST: u32 = 4;

impl<S: 'static> Threads<S> {
    /// Starts them, in the network namespace of the calling thread. `waker` wakes the loop for answers.
    ///
    /// # Errors
    /// The sockets or a thread cannot be made.
    pub fn start(waker: Arc<Waker>) -> io::Result<Threads<S>> {
        let wake = || {
            let waker = Arc::clone(&waker);
            move || waker.wake()
        };
        Ok(Threads {
            kernel: Worker::start("bondd-kernel", Urgency::Failover, Kernel::open()?, wake())?,
            reader: Worker::start("bondd-reader", Urgency::Change, Reader::new(), wake())?,
            examiner: Worker::start("bondd-examiner", Urgency::None, (), wake())?,
        })
    }

    /// The next answer, if there is one.
    pub fn answer(&mut self) -> Option<Answer<S>> {
        let answer = self.kernel.answer().or_else(|| self.reader.answer());
        answer.or_else(|| self.examiner.answer())
    }

    /// Whether the kernel and the reader have answered all that they were asked.
    pub fn are_idle(&self) -> bool {
        self.kernel.is_idle() && self.reader.is_idle()
    }

    /// Asks the kernel and the reader nothing more, and waits until `limit` for the next answer to what they were asked; `None` if
    /// there is none or it is too late. The examiner is left alone: nobody takes its answer any more.
    pub fn last_answer(&mut self, limit: Instant) -> Option<Answer<S>> {
        let answer = self.kernel.last_answer(limit);
        answer.or_else(|| self.reader.last_answer(limit))
    }
}

#[cfg(test)]
impl<S: 'static> Threads<S> {
    /// Without threads.
    pub fn at_once() -> Threads<S> {
        Threads {
            kernel: Worker::at_once(Kernel::open().unwrap()),
            reader: Worker::at_once(Reader::new()),
            examiner: Worker::at_once(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use bond_monitors::Time;
    use mio::{Poll, Token};

    use super::*;

    #[test]
    fn the_reader_takes_a_fifth_of_a_processor_at_most() {
        let mut reader = Reader::new();
        let begun = Instant::now();
        let before = clock::worked();
        let work = || {
            let before = clock::worked();
            while clock::worked() - before < Duration::from_millis(5) {}
        };
        for _ in 0..4 {
            reader.read(work);
        }
        reader.read(|| {});
        let worked = clock::worked() - before;
        assert!(begun.elapsed() >= worked * REST, "{worked:?} of {:?}", begun.elapsed());
    }

    #[test]
    fn what_was_asked_of_the_kernel_is_waited_for_at_a_stop_and_an_examination_is_not() {
        let poll = Poll::new().unwrap();
        let mut threads: Threads<usize> =
            Threads::start(Arc::new(Waker::new(poll.registry(), Token(0)).unwrap())).unwrap();
        let (let_go, wait) = mpsc::channel::<()>();
        threads.examiner.ask(move |()| {
            let _ = wait.recv();
            Box::new(|_, _| {})
        });
        threads.kernel.ask(|_| Box::new(|answers, _| *answers += 1));
        threads.reader.ask(|_| Box::new(|answers, _| *answers += 1));
        let limit = Instant::now() + Duration::from_secs(20);
        let mut answers = 0;
        while let Some(answer) = threads.last_answer(limit) {
            answer(&mut answers, Time::ZERO);
        }
        assert_eq!(answers, 2);
        assert!(Instant::now() < limit, "it waited for the examination");
        drop(let_go);
    }
}

//! The thread that waits for the kernel's RTNL lock.
//!
//! Others hold that lock for seconds: while thousands of interfaces are deleted, or a firmware is slow. Whoever asks rtnetlink,
//! ethtool or a driver waits as long, so the loop, which decides, asks none of them before a failover. It reads sockets and writes
//! maps. What takes the lock is a job of this thread, and its answer comes back to the loop as a fact like others.
//!
//! Some things still wait for the kernel in the loop: what somebody asked for (a client, an option file, a wanted port that
//! appeared or is tried again), the return of ports that left, new names of bonds, and all that the team plane does.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Instant;

use bond_monitors::Time;
use mio::Waker;

use crate::netlink::RouteSocket;
use crate::netlink::carriers::CarrierSocket;
use crate::priority;

/// What jobs ask.
pub struct Kernel {
    /// For requests about single interfaces, and dumps.
    pub links: RouteSocket,
    /// For rounds of polls.
    pub carriers: CarrierSocket,
}

/// What the loop does with the outcome of a job, at the time when it takes it.
pub type Answer<S> = Box<dyn FnOnce(&mut S, Time) + Send>;

/// A question, with what is to be done with the answer.
type Job<S> = Box<dyn FnOnce(&mut Kernel) -> Answer<S> + Send>;

/// The loop's side of the thread. `S` is the state of the loop that answers change.
pub struct KernelThread<S> {
    jobs: Jobs<S>,
    answers: Receiver<Answer<S>>,
}

enum Jobs<S> {
    /// Done by a thread, in their order.
    Queue(Sender<Job<S>>),
    /// Not done any more: the agent stops.
    Closed,
    /// Done at once by whoever asks, for tests that count and fail requests.
    #[cfg(test)]
    AtOnce(Box<Kernel>, Sender<Answer<S>>),
}

impl Kernel {
    /// Opens its sockets in the network namespace of the calling thread.
    pub fn open() -> io::Result<Kernel> {
        Ok(Kernel {
            links: RouteSocket::open()?,
            carriers: CarrierSocket::open()?,
        })
    }
}

impl<S: 'static> KernelThread<S> {
    /// Starts the thread, with real-time priority. When this value is dropped, it finishes its jobs and ends. `waker` wakes
    /// the loop for answers.
    ///
    /// # Errors
    /// The sockets or the thread cannot be made.
    pub fn start(waker: Waker) -> io::Result<KernelThread<S>> {
        let mut kernel = Kernel::open()?;
        let (jobs, to_do) = mpsc::channel::<Job<S>>();
        let (done, answers) = mpsc::channel();
        let work = move || {
            priority::raise(priority::KERNEL);
            for job in to_do {
                // The loop has ended if it does not take the answer.
                if done.send(job(&mut kernel)).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        };
        // A panic ends the agent as one of the loop does: without answers bonds would be blind.
        let or_abort = move || {
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
                std::process::abort();
            }
        };
        thread::Builder::new().name("bondd-kernel".to_owned()).spawn(or_abort)?;
        Ok(KernelThread {
            jobs: Jobs::Queue(jobs),
            answers,
        })
    }

    /// Leaves a question to the thread. Its answer is among those of a later [`KernelThread::answer`].
    pub fn ask(&mut self, job: impl FnOnce(&mut Kernel) -> Answer<S> + Send + 'static) {
        match &mut self.jobs {
            // It ends only with the agent.
            Jobs::Queue(jobs) => drop(jobs.send(Box::new(job))),
            Jobs::Closed => {}
            #[cfg(test)]
            Jobs::AtOnce(kernel, done) => drop(done.send(job(kernel))),
        }
    }

    /// The next answer, if there is one.
    pub fn answer(&mut self) -> Option<Answer<S>> {
        self.answers.try_recv().ok()
    }

    /// Asks nothing more, and waits until `limit` for the next answer to what was asked; `None` if there is none or it is too late.
    pub fn last_answer(&mut self, limit: Instant) -> Option<Answer<S>> {
        self.jobs = Jobs::Closed;
        self.answers
            .recv_timeout(limit.saturating_duration_since(Instant::now()))
            .ok()
    }
}

#[cfg(test)]
impl<S: 'static> KernelThread<S> {
    /// Without a thread.
    pub fn at_once() -> KernelThread<S> {
        let (done, answers) = mpsc::channel();
        KernelThread {
            jobs: Jobs::AtOnce(Box::new(Kernel::open().unwrap()), done),
            answers,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Poll, Token};

    use super::*;
    use crate::netlink::tests::in_netns;

    #[test]
    fn questions_are_answered_in_their_order_and_what_was_asked_before_a_stop_is_done() {
        in_netns(|| {
            let mut poll = Poll::new().unwrap();
            let waker = Waker::new(poll.registry(), Token(7)).unwrap();
            let mut thread: KernelThread<Vec<u32>> = KernelThread::start(waker).unwrap();
            let ask = |thread: &mut KernelThread<Vec<u32>>, number| {
                thread.ask(move |kernel| {
                    let loopback = kernel.links.by_index(1).unwrap().unwrap();
                    Box::new(move |told: &mut Vec<u32>, _| told.push(loopback.ifindex + number))
                });
            };
            let mut told = Vec::new();
            ask(&mut thread, 0);
            let mut events = mio::Events::with_capacity(1);
            let answer = loop {
                if let Some(answer) = thread.answer() {
                    break answer;
                }
                poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
                assert!(
                    events.iter().any(|event| event.token() == Token(7)),
                    "the loop is woken"
                );
            };
            answer(&mut told, Time::ZERO);
            (1..5).for_each(|number| ask(&mut thread, number));
            let limit = Instant::now() + Duration::from_secs(10);
            while let Some(answer) = thread.last_answer(limit) {
                answer(&mut told, Time::ZERO);
            }
            assert_eq!(told, [1, 2, 3, 4, 5]);
            assert!(Instant::now() < limit, "it ends when all is done");
            ask(&mut thread, 9);
            assert!(thread.answer().is_none(), "nothing more is asked");
        });
    }
}

//! A thread that answers questions of the loop, so that the loop does not wait.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use bond_monitors::Time;

use crate::{priority, vital_thread};

/// What the loop does with the outcome of a job, at the time when it takes it.
pub type Answer<S> = Box<dyn FnOnce(&mut S, Time) + Send>;

/// A question, with what is to be done with the answer.
type Job<T, S> = Box<dyn FnOnce(&mut T) -> Answer<S> + Send>;

/// Where a question stands among those that the thread has not begun with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Behind those that came first as well.
    First,
    /// Behind all.
    Last,
}

/// The loop's side of the thread. `T` is what the thread's jobs work with, `S` the state of the loop that answers change.
pub struct Worker<T, S> {
    jobs: Jobs<T, S>,
    answers: Receiver<Answer<S>>,
    /// Questions without an answer that was taken.
    open: usize,
}

/// How much hangs on the answers of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A failover may need them: it has real-time priority.
    Failover,
    /// None does, but the loop needs what it has, or others wait for what it finds: it has real-time priority, below the others.
    Change,
    /// None does.
    None,
}

enum Jobs<T, S> {
    /// Done by a thread, in the order of their places.
    Queue(Sender<(Place, Job<T, S>)>),
    /// Not done any more: the agent stops.
    Closed,
    /// Done at once, in the thread that asks, for tests that count and fail requests.
    #[cfg(test)]
    AtOnce(Box<T>, Sender<Answer<S>>),
}

impl<T: Send + 'static, S: 'static> Worker<T, S> {
    /// Starts a thread of this name for jobs that work with `tools`. When this value is dropped, the thread finishes its jobs and
    /// ends. `wake` wakes the loop for answers; the agent ends if it fails, because bonds whose answers nobody takes are blind.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(
        name: &str,
        urgency: Urgency,
        mut tools: T,
        wake: impl Fn() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Worker<T, S>> {
        let (jobs, asked) = mpsc::channel::<(Place, Job<T, S>)>();
        let (done, answers) = mpsc::channel();
        let work = move || {
            match urgency {
                Urgency::Failover => priority::raise(priority::KERNEL),
                Urgency::Change => priority::raise(priority::CHANGER),
                Urgency::None => {}
            }
            for job in Row::of(asked) {
                // The loop has ended if it does not take the answer.
                if done.send(job(&mut tools)).is_err() {
                    return;
                }
                wake().expect("a loop that runs can be woken");
            }
        };
        vital_thread::start(name, work)?;
        Ok(Worker {
            jobs: Jobs::Queue(jobs),
            answers,
            open: 0,
        })
    }

    /// Leaves a question to the thread. Its answer is among those of a later [`Worker::answer`].
    pub fn ask(&mut self, job: impl FnOnce(&mut T) -> Answer<S> + Send + 'static) {
        self.ask_at(Place::Last, job);
    }

    /// As [`Worker::ask`], before all that was asked by that and is not begun.
    pub fn ask_first(&mut self, job: impl FnOnce(&mut T) -> Answer<S> + Send + 'static) {
        self.ask_at(Place::First, job);
    }

    fn ask_at(&mut self, place: Place, job: impl FnOnce(&mut T) -> Answer<S> + Send + 'static) {
        self.open += 1;
        match &mut self.jobs {
            // It ends only with the agent.
            Jobs::Queue(jobs) => drop(jobs.send((place, Box::new(job)))),
            Jobs::Closed => {}
            #[cfg(test)]
            Jobs::AtOnce(tools, done) => drop(done.send(job(tools))),
        }
    }

    /// The next answer, if there is one.
    pub fn answer(&mut self) -> Option<Answer<S>> {
        let answer = self.answers.try_recv().ok()?;
        self.open -= 1;
        Some(answer)
    }

    /// Whether all answers were taken.
    pub fn is_idle(&self) -> bool {
        self.open == 0
    }

    /// Asks nothing more, and waits until `limit` for the next answer to what was asked; `None` if there is none or it is too late.
    pub fn last_answer(&mut self, limit: Instant) -> Option<Answer<S>> {
        self.jobs = Jobs::Closed;
        self.answers
            .recv_timeout(limit.saturating_duration_since(Instant::now()))
            .ok()
    }
}

/// Jobs in the order in which the thread does them; it ends with the agent.
struct Row<J> {
    asked: Receiver<(Place, J)>,
    first: VecDeque<J>,
    last: VecDeque<J>,
}

impl<J> Row<J> {
    fn of(asked: Receiver<(Place, J)>) -> Row<J> {
        Row {
            asked,
            first: VecDeque::new(),
            last: VecDeque::new(),
        }
    }

    fn take(&mut self, (place, job): (Place, J)) {
        match place {
            Place::First => self.first.push_back(job),
            Place::Last => self.last.push_back(job),
        }
    }
}

impl<J> Iterator for Row<J> {
    type Item = J;

    fn next(&mut self) -> Option<J> {
        while let Ok(asked) = self.asked.try_recv() {
            self.take(asked);
        }
        if self.first.is_empty() && self.last.is_empty() {
            let asked = self.asked.recv().ok()?;
            self.take(asked);
        }
        self.first.pop_front().or_else(|| self.last.pop_front())
    }
}

#[cfg(test)]
impl<T, S: 'static> Worker<T, S> {
    /// Without a thread.
    pub fn at_once(tools: T) -> Worker<T, S> {
        let (done, answers) = mpsc::channel();
        Worker {
            jobs: Jobs::AtOnce(Box::new(tools), done),
            answers,
            open: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Poll, Token, Waker};

    use super::*;
    use crate::vital_thread::tests::{aborted, wait_for_abort};

    #[test]
    fn questions_are_answered_in_their_order_and_what_was_asked_before_a_stop_is_done() {
        let mut poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(7)).unwrap();
        let mut worker: Worker<u32, Vec<u32>> =
            Worker::start("worker", Urgency::None, 1, move || waker.wake()).unwrap();
        let ask = |worker: &mut Worker<u32, Vec<u32>>, number| {
            worker.ask(move |first| {
                let answer = *first + number;
                Box::new(move |told: &mut Vec<u32>, _| told.push(answer))
            });
        };
        let mut told = Vec::new();
        ask(&mut worker, 0);
        let mut events = mio::Events::with_capacity(1);
        let answer = loop {
            if let Some(answer) = worker.answer() {
                break answer;
            }
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert!(
                events.iter().any(|event| event.token() == Token(7)),
                "the loop is woken"
            );
        };
        answer(&mut told, Time::ZERO);
        (1..5).for_each(|number| ask(&mut worker, number));
        let limit = Instant::now() + Duration::from_secs(10);
        while let Some(answer) = worker.last_answer(limit) {
            answer(&mut told, Time::ZERO);
        }
        assert_eq!(told, [1, 2, 3, 4, 5]);
        assert!(Instant::now() < limit, "it ends when all is done");
        ask(&mut worker, 9);
        assert!(worker.answer().is_none(), "nothing more is asked");
    }

    #[test]
    fn what_is_to_be_first_comes_before_all_that_is_not_begun() {
        let (jobs, asked) = mpsc::channel();
        let mut row = Row::of(asked);
        let ask = |place, job: u8| jobs.send((place, job)).unwrap();
        (0..3).for_each(|job| ask(Place::Last, job));
        assert_eq!(row.next(), Some(0));
        ask(Place::First, 10);
        ask(Place::Last, 3);
        ask(Place::First, 11);
        drop(jobs);
        assert_eq!(row.collect::<Vec<_>>(), [10, 11, 1, 2, 3]);
    }

    #[test]
    fn an_agent_whose_loop_cannot_be_woken_for_answers_ends() {
        let test = concat!(module_path!(), "::an_agent_whose_loop_cannot_be_woken_for_answers_ends");
        let printed = aborted(test, || {
            let cannot = || Err(io::Error::from_raw_os_error(libc::EBADF));
            let mut worker: Worker<(), ()> = Worker::start("worker", Urgency::None, (), cannot).unwrap();
            worker.ask(|()| Box::new(|(), _| {}));
            wait_for_abort();
        });
        assert!(printed.contains("a loop that runs can be woken"), "{printed}");
    }
}

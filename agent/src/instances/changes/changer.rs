//! The thread that makes changes, one after the other, and the loop's side of it.

use std::io;

use bond_monitors::Time;
use serde_json::Value;

use super::super::task::Task;
use super::change::Desk;
use crate::control::proto::{Call, ControlError};
use crate::priority;
use crate::worker::{Urgency, Worker};

/// What became of a change.
#[derive(Debug)]
pub enum Outcome {
    /// A task of the agent's own was carried out. The log says what is to be said.
    Task,
    /// The answer to a client's call.
    Call(Result<Value, ControlError>),
}

/// Makes changes in a thread of its own.
pub struct Changer {
    worker: Worker<Desk, Option<Outcome>>,
    busy: bool,
    /// Taken from the worker, and not yet by the loop.
    last: Option<Outcome>,
}

impl Changer {
    /// Starts the thread. `wake` wakes the loop for outcomes.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(mut desk: Desk, wake: impl Fn() -> io::Result<()> + Send + 'static) -> io::Result<Changer> {
        desk.tools.priority = Some(priority::CHANGER);
        Ok(Changer {
            worker: Worker::start("bondd-changer", Urgency::Change, desk, wake)?,
            busy: false,
            last: None,
        })
    }

    /// Whether a change is at work, or its outcome is still to be taken. There is one at a time.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Begins a task. The loop must not have the instances locked.
    pub fn begin_task(&mut self, task: Task) {
        self.begin(move |desk| {
            desk.change().carry_out(task);
            Outcome::Task
        });
    }

    /// Begins a change for a client. The loop must not have the instances locked.
    pub fn begin_call(&mut self, call: Call) {
        self.begin(move |desk| Outcome::Call(desk.change().call(&call)));
    }

    /// What became of the last change, once.
    pub fn take_outcome(&mut self) -> Option<Outcome> {
        if self.last.is_none() {
            self.worker.answer()?(&mut self.last, Time::ZERO);
            self.busy = false;
        }
        self.last.take()
    }

    /// Begins the last change of an agent that stops. There is none at work.
    pub fn begin_last(&mut self, last: impl FnOnce(&mut Desk) + Send + 'static) {
        self.begin(move |desk| {
            last(desk);
            Outcome::Task
        });
    }

    fn begin(&mut self, change: impl FnOnce(&mut Desk) -> Outcome + Send + 'static) {
        self.busy = true;
        self.worker.ask(move |desk| {
            let outcome = change(desk);
            desk.tools.end_with_instances();
            Box::new(move |taken, _| *taken = Some(outcome))
        });
    }
}

#[cfg(test)]
impl Changer {
    /// Makes each change at once, in the thread that begins it.
    pub fn at_once(desk: Desk) -> Changer {
        Changer {
            worker: Worker::at_once(desk),
            busy: false,
            last: None,
        }
    }
}

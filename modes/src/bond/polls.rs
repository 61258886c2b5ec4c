//! Polls of carriers and of the bond's own interface, for changes whose events are late or missing.

use std::time::Duration;

use bond_monitors::Time;

use crate::action::Action;
use crate::outbox::Outbox;
use crate::port::Ports;

/// The regular reading of carriers.
#[derive(Clone, Debug)]
pub(crate) struct Polls {
    next: Time,
    next_device: Time,
    /// Until then the answer to a poll counts before any delay ends; none if it has been answered.
    unanswered: Option<Time>,
}

impl Polls {
    /// Begins at that time.
    pub fn new(first: Time) -> Self {
        Polls {
            next: first,
            next_device: first,
            unanswered: None,
        }
    }

    /// When the next poll is due.
    pub fn next(&self) -> Time {
        self.next
    }

    /// The next poll is due at that time.
    pub fn restart(&mut self, at: Time) {
        self.next = at;
    }

    /// Polls not before this time.
    pub fn hold(&mut self, until: Time) {
        self.next = self.next.max(until);
    }

    /// A poll was answered.
    pub fn answered(&mut self) {
        self.unanswered = None;
    }

    /// Until when a poll's answer is waited for, if one is.
    pub fn unanswered(&self, now: Time) -> Option<Time> {
        self.unanswered.filter(|until| now < *until)
    }

    /// When a delay with this deadline may end.
    pub fn end_of_delay(&self, due: Time) -> Time {
        self.unanswered.map_or(due, |until| due.max(until))
    }

    /// Asks for the carrier of every port, and now and then for the bond's own interface, if it is time; returns whether it
    /// was.
    pub fn run(&mut self, now: Time, interval: Duration, ports: &Ports, out: &mut Outbox) -> bool {
        if now < self.next {
            return false;
        }
        if self.next >= self.next_device {
            self.next_device = self.next + DEVICE_POLL;
            out.act(Action::PollDevice);
        }
        out.act(Action::PollCarriers {
            ports: ports.iter().map(|port| port.id).collect(),
        });
        self.unanswered = Some(now + interval);
        let regular = self.next + interval;
        self.next = if regular > now { regular } else { now + interval };
        true
    }
}

/// The bond's own interface is polled this often at most.
const DEVICE_POLL: Duration = Duration::from_millis(100);

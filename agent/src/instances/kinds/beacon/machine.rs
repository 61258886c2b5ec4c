//! One beacon as a value.

use std::time::Duration;

use bond_modes::Machine;
use bond_monitors::Time;

/// Sends a frame each second while its interface is up.
#[derive(Debug, Default)]
pub(super) struct Beacon {
    due: Option<Time>,
    to_send: u32,
    sent: u64,
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Its interface is up, or not.
    Link { up: bool },
}

/// What it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Send this frame.
    Transmit { frame: Vec<u8> },
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) up: bool,
    /// Frames so far.
    pub(super) sent: u64,
}

impl Machine for Beacon {
    type Event = Event;
    type Action = Action;
    type Saved = u64;
    type Status = Status;

    fn handle_event(&mut self, now: Time, event: Event) {
        match event {
            Event::Link { up: true } => drop(self.due.get_or_insert(now)),
            Event::Link { up: false } => self.due = None,
        }
        self.handle_timeout(now);
    }

    fn handle_timeout(&mut self, now: Time) {
        if self.due.is_some_and(|due| due <= now) {
            self.due = Some(now + INTERVAL);
            self.to_send += 1;
        }
    }

    fn held_up(&mut self, _since: Time, until: Time) {
        // One that is late is sent once.
        self.due = self.due.map(|due| due.max(until));
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.to_send = self.to_send.checked_sub(1)?;
        self.sent += 1;
        Some(Action::Transmit { frame: FRAME.to_vec() })
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.due
    }

    fn saved(&self) -> u64 {
        self.sent
    }

    fn status(&self, _now: Time) -> Status {
        Status {
            up: self.due.is_some(),
            sent: self.sent,
        }
    }
}

const INTERVAL: Duration = Duration::from_secs(1);

/// To all hosts, of a type for experiments [IEEE 802: local experimental EtherType 1].
const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    let mut at = 0;
    while at < 6 {
        frame[at] = 0xff;
        at += 1;
    }
    frame[6] = 2;
    (frame[12], frame[13]) = (0x88, 0xb5);
    frame
};

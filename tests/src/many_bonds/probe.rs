//! The cable of one bond, pulled again and again while the agent has other work.

use std::time::{Duration, Instant};

use super::CLOSE;
use super::watch::LinkEvent;
use crate::netns::Hands;

/// Pulls the active cable of the first bond, waits until the traffic has moved, plugs it in, waits until the traffic is back.
pub struct Probe {
    state: State,
    waits: Vec<Duration>,
    /// When the traffic moved for the first time.
    moved: Option<Instant>,
}

enum State {
    /// The bond does not forward yet.
    Absent,
    /// Traffic has taken the first port since then.
    Settled(Instant),
    /// The first port's cable is pulled; when the kernel told it.
    Pulled(Option<Instant>),
    /// Traffic has taken the second port since then.
    Moved(Instant),
    /// The cable is plugged in again.
    Plugged,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Pulls {
    /// From the link event until the traffic had moved, in their order.
    pub waits: Vec<Duration>,
    /// From the start of the agent until traffic moved for the first time.
    pub first: Option<Duration>,
    /// A cable was pulled, and the traffic did not move.
    pub unanswered: bool,
}

impl Probe {
    /// Of a bond that is to be made.
    pub fn new() -> Probe {
        Probe::in_state(State::Absent)
    }

    /// Of a bond that forwards: its cable is pulled at once.
    pub fn settled() -> Probe {
        Probe::in_state(State::Settled(Instant::now() - PAUSE))
    }

    fn in_state(state: State) -> Probe {
        Probe {
            state,
            waits: Vec::new(),
            moved: None,
        }
    }

    /// How long to wait for link events before the next step.
    pub fn patience(&self) -> Duration {
        match self.state {
            State::Pulled(_) => CLOSE,
            _ => PAUSE / 10,
        }
    }

    /// Goes on: `port` is where frames leave now, `events` what the kernel told since the last step. No cable is pulled once
    /// `is_over`.
    pub fn step(&mut self, port: u32, [first, second]: [u32; 2], events: &[LinkEvent], is_over: bool, far: &mut Hands) {
        let now = Instant::now();
        if let State::Pulled(event @ None) = &mut self.state {
            let mine = |event: &&LinkEvent| event.ifindex == first && !event.carrier;
            *event = events.iter().find(mine).map(|event| event.at);
        }
        self.state = match self.state {
            State::Absent | State::Plugged if port == first => State::Settled(now),
            State::Settled(since) if now - since >= PAUSE && !is_over => {
                far.tell("link set a0 down");
                State::Pulled(None)
            }
            State::Pulled(event) if port == second => {
                self.waits
                    .push(event.map_or(Duration::ZERO, |event| now.saturating_duration_since(event)));
                self.moved.get_or_insert(now);
                State::Moved(now)
            }
            State::Moved(since) if now - since >= PAUSE => {
                far.tell("link set a0 up");
                State::Plugged
            }
            _ => return,
        };
    }

    /// Whether the next step pulls the cable.
    pub fn is_about_to_pull(&self) -> bool {
        matches!(self.state, State::Settled(since) if since.elapsed() >= PAUSE)
    }

    /// Whether nothing is under way.
    pub fn is_settled(&self) -> bool {
        matches!(self.state, State::Absent | State::Settled(_))
    }

    /// The last wait.
    pub fn last(&self) -> Option<Duration> {
        self.waits.last().copied()
    }

    /// All that came of it since the agent was started.
    pub fn pulls(self, begun: Instant) -> Pulls {
        Pulls {
            unanswered: matches!(self.state, State::Pulled(_)),
            first: self.moved.map(|moved| moved - begun),
            waits: self.waits,
        }
    }
}

/// Between a move and the next deed.
const PAUSE: Duration = Duration::from_millis(20);

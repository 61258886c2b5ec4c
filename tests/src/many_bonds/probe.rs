//! The cable of one bond, pulled again and again while the agent has other work.

use std::time::{Duration, Instant};

use super::CLOSE;
use super::watch::LinkEvent;
use crate::netns::Hands;

/// Pulls the active cable of a bond, waits until the traffic has moved, plugs it in, waits until the traffic is back.
pub struct Probe {
    /// The number of the bond.
    bond: usize,
    state: State,
    pulls: Vec<Pull>,
}

enum State {
    /// The bond does not forward yet.
    Absent,
    /// Traffic has taken the first port since then.
    Settled(Instant),
    /// The first port's cable is pulled: when that was asked for, and when the kernel told it.
    Pulled(Instant, Option<Instant>),
    /// Traffic has taken the second port since then.
    Moved(Instant),
    /// The cable is plugged in again.
    Plugged,
}

/// A cable that was pulled, and the traffic moved.
#[derive(Clone, Copy, Debug)]
pub struct Pull {
    /// When it was asked for.
    pub pulled: Instant,
    /// When the kernel told it, or the traffic had moved, whichever was first.
    pub reported: Instant,
    /// When the traffic had moved.
    pub moved: Instant,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Pulls {
    /// In their order.
    pub all: Vec<Pull>,
    /// From the start of the agent until traffic moved for the first time.
    pub first: Option<Duration>,
    /// A cable was pulled, and the traffic did not move.
    pub unanswered: bool,
}

impl Pull {
    /// From the link event until the traffic had moved.
    pub fn wait(&self) -> Duration {
        self.moved - self.reported
    }
}

impl Probe {
    /// Of a bond that is to be made.
    pub fn new(bond: usize) -> Probe {
        Probe::in_state(bond, State::Absent)
    }

    /// Of a bond that forwards: its cable is pulled at once.
    pub fn settled(bond: usize) -> Probe {
        Probe::in_state(bond, State::Settled(Instant::now() - PAUSE))
    }

    fn in_state(bond: usize, state: State) -> Probe {
        Probe {
            bond,
            state,
            pulls: Vec::new(),
        }
    }

    /// How long to wait for link events before the next step.
    pub fn patience(&self) -> Duration {
        match self.state {
            State::Pulled(..) => CLOSE,
            _ => PAUSE / 10,
        }
    }

    /// Goes on: `port` is where frames leave now, `events` what the kernel told since the last step. No cable is pulled once
    /// `is_over`.
    pub fn step(&mut self, port: u32, [first, second]: [u32; 2], events: &[LinkEvent], is_over: bool, far: &mut Hands) {
        let now = Instant::now();
        if let State::Pulled(_, event @ None) = &mut self.state {
            let mine = |event: &&LinkEvent| event.ifindex == first && !event.carrier;
            *event = events.iter().find(mine).map(|event| event.at);
        }
        self.state = match self.state {
            State::Absent | State::Plugged if port == first => State::Settled(now),
            State::Settled(since) if now - since >= PAUSE && !is_over => {
                far.tell(&format!("link set a{} down", self.bond));
                State::Pulled(now, None)
            }
            State::Pulled(pulled, event) if port == second => {
                self.pulls.push(Pull {
                    pulled,
                    reported: event.unwrap_or(now),
                    moved: now,
                });
                State::Moved(now)
            }
            State::Moved(since) if now - since >= PAUSE => {
                far.tell(&format!("link set a{} up", self.bond));
                State::Plugged
            }
            _ => return,
        };
    }

    /// Whether the next step pulls the cable.
    pub fn is_about_to_pull(&self) -> bool {
        matches!(self.state, State::Settled(since) if since.elapsed() >= PAUSE)
    }

    /// Whether the kernel has yet to tell that the cable is pulled: when it does, it has to be read at once.
    pub fn awaits_report(&self) -> bool {
        matches!(self.state, State::Pulled(_, None))
    }

    /// Whether nothing is under way.
    pub fn is_settled(&self) -> bool {
        matches!(self.state, State::Absent | State::Settled(_))
    }

    /// The pulls after which the traffic has moved.
    pub fn so_far(&self) -> &[Pull] {
        &self.pulls
    }

    /// All that came of it since the agent was started.
    pub fn pulls(self, begun: Instant) -> Pulls {
        Pulls {
            unanswered: matches!(self.state, State::Pulled(..)),
            first: self.pulls.first().map(|pull| pull.moved - begun),
            all: self.pulls,
        }
    }
}

/// Between a move and the next deed.
const PAUSE: Duration = Duration::from_millis(20);

//! updelay and downdelay: from raw carrier to the link state that a mode acts on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::link::Carrier;
use crate::time::Time;

/// Verdict about a link. A port that is going down still carries traffic, one that is going back does not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Used.
    Up,
    /// Carrier lost; `Down` at `until` unless it comes back.
    GoingDown {
        /// When downdelay ends.
        until: Time,
    },
    /// Not used.
    Down,
    /// Carrier back; `Up` at `until` unless it is lost again.
    GoingBack {
        /// When updelay ends.
        until: Time,
    },
}

impl LinkState {
    /// Whether the port may carry traffic.
    pub fn is_usable(self) -> bool {
        matches!(self, LinkState::Up | LinkState::GoingDown { .. })
    }

    /// When the state changes by itself.
    pub fn deadline(self) -> Option<Time> {
        match self {
            LinkState::GoingDown { until } | LinkState::GoingBack { until } => Some(until),
            LinkState::Up | LinkState::Down => None,
        }
    }
}

/// The two delays of one port and where it stands in them. [bonding.rst: updelay, downdelay]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Debounce {
    state: LinkState,
}

impl Debounce {
    /// A port that was just attached: in use at once if no updelay is set, else it waits. [bond_main.c: bond_enslave]
    pub fn attached(now: Time, carrier: Carrier, updelay: Duration) -> Self {
        let mut debounce = Debounce { state: LinkState::Down };
        debounce.observe(now, carrier, updelay, Duration::ZERO);
        debounce
    }

    /// A port in a known state: one that forwarded before the agent started, or one that nobody watches.
    pub fn in_state(state: LinkState) -> Self {
        Debounce { state }
    }

    /// Where it stands.
    pub fn state(&self) -> LinkState {
        self.state
    }

    /// Takes the carrier at `now` in; the new state if it changed.
    ///
    /// A running delay keeps the deadline it was started with when the options change.
    pub fn observe(
        &mut self,
        now: Time,
        carrier: Carrier,
        updelay: Duration,
        downdelay: Duration,
    ) -> Option<LinkState> {
        use Carrier::{Off, On};
        use LinkState::{Down, GoingBack, GoingDown, Up};
        self.state = match (self.state, carrier) {
            (Up, Off) if downdelay.is_zero() => Down,
            (Up, Off) => GoingDown { until: now + downdelay },
            (GoingDown { .. }, On) => Up,
            (GoingDown { until }, Off) if now >= until => Down,
            (Down, On) if updelay.is_zero() => Up,
            (Down, On) => GoingBack { until: now + updelay },
            (GoingBack { .. }, Off) => Down,
            (GoingBack { until }, On) if now >= until => Up,
            _ => return None,
        };
        Some(self.state)
    }

    /// Ends a running updelay, because no other port is usable. [bonding.rst: updelay]
    pub fn hurry(&mut self) {
        if let LinkState::GoingBack { .. } = self.state {
            self.state = LinkState::Up;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn without_delays_the_state_follows_the_carrier() {
        let mut d = Debounce::attached(at(0), Carrier::On, MS(0));
        assert_eq!(d.state(), LinkState::Up);
        assert_eq!(d.observe(at(1), Carrier::Off, MS(0), MS(0)), Some(LinkState::Down));
        assert_eq!(d.observe(at(2), Carrier::Off, MS(0), MS(0)), None);
        assert_eq!(d.observe(at(3), Carrier::On, MS(0), MS(0)), Some(LinkState::Up));
    }

    #[test]
    fn a_link_that_comes_back_within_downdelay_never_goes_down() {
        let mut d = Debounce::in_state(LinkState::Up);
        assert_eq!(
            d.observe(at(0), Carrier::Off, MS(0), MS(200)),
            Some(LinkState::GoingDown { until: at(200) })
        );
        assert_eq!(d.observe(at(199), Carrier::Off, MS(0), MS(200)), None);
        assert_eq!(d.observe(at(199), Carrier::On, MS(0), MS(200)), Some(LinkState::Up));
    }

    #[test]
    fn delays_end_at_their_deadline_and_not_before() {
        let mut d = Debounce::in_state(LinkState::Up);
        d.observe(at(0), Carrier::Off, MS(300), MS(200));
        assert_eq!(
            d.observe(at(200), Carrier::Off, MS(300), MS(200)),
            Some(LinkState::Down)
        );
        assert_eq!(
            d.observe(at(500), Carrier::On, MS(300), MS(200)),
            Some(LinkState::GoingBack { until: at(800) })
        );
        assert_eq!(d.observe(at(799), Carrier::On, MS(300), MS(200)), None);
        assert_eq!(d.observe(at(800), Carrier::On, MS(300), MS(200)), Some(LinkState::Up));
    }

    #[test]
    fn hurry_ends_updelay_only() {
        let mut d = Debounce::attached(at(0), Carrier::On, MS(300));
        d.hurry();
        assert_eq!(d.state(), LinkState::Up);
        let mut down = Debounce::in_state(LinkState::Down);
        down.hurry();
        assert_eq!(down.state(), LinkState::Down);
    }
}

//! updelay and downdelay: derives the link state that a mode uses from raw carrier.

use std::time::Duration;

use crate::link::Carrier;
use crate::time::Time;

/// Verdict about a link. A port that is going down carries traffic, one that is going back does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// When the delay ends.
    pub fn deadline(self) -> Option<Time> {
        match self {
            LinkState::GoingDown { until } | LinkState::GoingBack { until } => Some(until),
            LinkState::Up | LinkState::Down => None,
        }
    }
}

/// Durations for which a change must last before it counts. [bonding.rst: updelay, downdelay]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// How long a port must work before it is used.
    pub up: Duration,
    /// How long it must have failed before it is no longer used.
    pub down: Duration,
}

/// State of one port's delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debounce {
    state: LinkState,
}

impl Debounce {
    /// A port that was just attached: in use at once if no updelay is set, else it waits. [bond_main.c: bond_enslave]
    pub fn attached(now: Time, carrier: Carrier, delays: Delays) -> Self {
        let mut debounce = Debounce { state: LinkState::Down };
        debounce.observe(now, carrier, delays);
        debounce
    }

    /// A port in a known state: it forwarded before the agent started, or has no monitor.
    pub fn in_state(state: LinkState) -> Self {
        Debounce { state }
    }

    /// The state.
    pub fn state(&self) -> LinkState {
        self.state
    }

    /// Sets whether the port works at `now`; returns the new state if it changed.
    ///
    /// A running delay keeps its deadline when the options change. It does not end here: see
    /// [`Debounce::end`].
    pub fn observe(&mut self, now: Time, carrier: Carrier, delays: Delays) -> Option<LinkState> {
        use Carrier::{Off, On};
        use LinkState::{Down, GoingBack, GoingDown, Up};
        self.state = match (self.state, carrier) {
            (Up, Off) if delays.down.is_zero() => Down,
            (Up, Off) => GoingDown {
                until: now + delays.down,
            },
            (GoingDown { .. }, On) => Up,
            (Down, On) if delays.up.is_zero() => Up,
            (Down, On) => GoingBack { until: now + delays.up },
            (GoingBack { .. }, Off) => Down,
            _ => return None,
        };
        Some(self.state)
    }

    /// Ends a delay whose time has come; returns the new state if one ended. To be called after all facts up to `now` were
    /// passed in, because an unread event may change the result.
    pub fn end(&mut self, now: Time) -> Option<LinkState> {
        self.state = match self.state {
            LinkState::GoingDown { until } if now >= until => LinkState::Down,
            LinkState::GoingBack { until } if now >= until => LinkState::Up,
            _ => return None,
        };
        Some(self.state)
    }

    /// Ends a running updelay before its time, because no other port is usable. [bonding.rst: updelay]
    pub fn skip_updelay(&mut self) {
        if let LinkState::GoingBack { .. } = self.state {
            self.state = LinkState::Up;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn delays(up: u64, down: u64) -> Delays {
        Delays {
            up: MS(up),
            down: MS(down),
        }
    }

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn without_delays_the_state_follows_the_carrier() {
        let mut d = Debounce::attached(at(0), Carrier::On, delays(0, 0));
        assert_eq!(d.state(), LinkState::Up);
        assert_eq!(d.observe(at(1), Carrier::Off, delays(0, 0)), Some(LinkState::Down));
        assert_eq!(d.observe(at(2), Carrier::Off, delays(0, 0)), None);
        assert_eq!(d.observe(at(3), Carrier::On, delays(0, 0)), Some(LinkState::Up));
    }

    #[test]
    fn a_link_that_comes_back_within_downdelay_never_goes_down() {
        let mut d = Debounce::in_state(LinkState::Up);
        let going = LinkState::GoingDown { until: at(200) };
        assert_eq!(d.observe(at(0), Carrier::Off, delays(0, 200)), Some(going));
        assert_eq!(d.end(at(199)), None);
        assert_eq!(d.observe(at(199), Carrier::On, delays(0, 200)), Some(LinkState::Up));
    }

    #[test]
    fn delays_end_at_their_deadline_and_not_before() {
        let mut d = Debounce::in_state(LinkState::Up);
        d.observe(at(0), Carrier::Off, delays(300, 200));
        assert_eq!(d.end(at(200)), Some(LinkState::Down));
        let back = LinkState::GoingBack { until: at(800) };
        assert_eq!(d.observe(at(500), Carrier::On, delays(300, 200)), Some(back));
        assert_eq!(d.end(at(799)), None);
        assert_eq!(d.end(at(800)), Some(LinkState::Up));
    }

    #[test]
    fn a_delay_that_is_over_ends_only_when_all_is_known() {
        let mut d = Debounce::in_state(LinkState::Up);
        d.observe(at(0), Carrier::Off, delays(0, 200));
        // The agent reads late: first another port's event, then the event that this port is back.
        assert_eq!(d.observe(at(400), Carrier::Off, delays(0, 200)), None);
        assert_eq!(d.observe(at(400), Carrier::On, delays(0, 200)), Some(LinkState::Up));
        assert_eq!(d.end(at(400)), None);
    }

    #[test]
    fn only_a_running_updelay_can_be_skipped() {
        let mut d = Debounce::attached(at(0), Carrier::On, delays(300, 0));
        d.skip_updelay();
        assert_eq!(d.state(), LinkState::Up);
        let mut down = Debounce::in_state(LinkState::Down);
        down.skip_updelay();
        assert_eq!(down.state(), LinkState::Down);
    }
}

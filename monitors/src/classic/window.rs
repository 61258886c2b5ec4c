//! How long a sign of life counts.

use std::time::Duration;

use crate::time::Time;

/// How long a sign of life counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Time between two probes: `arp_interval`.
    pub interval: Duration,
}

impl Window {
    /// Whether `then` is at most `missed` intervals and a half before `now`. [bond_main.c: bond_time_in_interval]
    ///
    /// differs: a `then` after `now` always counts, because stamps are read after the clock and may be newer.
    pub fn contains(self, then: Time, now: Time, missed: u32) -> bool {
        now <= then + (self.interval * missed + self.interval / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window {
        interval: Duration::from_millis(100),
    };

    fn at(ms: u64) -> Time {
        Time::from_millis(10_000 + ms)
    }

    #[test]
    fn a_window_is_its_intervals_and_a_half_and_all_that_is_newer() {
        assert!(WINDOW.contains(at(0), at(250), 2));
        assert!(!WINDOW.contains(at(0), at(251), 2));
        assert!(WINDOW.contains(at(100), at(0), 2));
        assert!(WINDOW.contains(at(101), at(0), 2));
        assert!(WINDOW.contains(at(60_000), at(0), 1), "heard after the clock was read");
    }
}

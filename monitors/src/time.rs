//! A point in time that survives a restart of the agent (not of the machine).

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock that BPF programs also stamp frames with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(u64);

impl Time {
    /// The clock's origin, before all events.
    pub const ZERO: Time = Time(0);

    /// From nanoseconds since the clock's origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Time(nanos)
    }

    /// From milliseconds since the clock's origin.
    pub const fn from_millis(millis: u64) -> Self {
        Time(millis * 1_000_000)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero if it is in the future.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates: an absurd delay means "never", not an overflow.
    fn add(self, by: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A period in which the agent could neither act nor look: it was stopped, or one of its calls took long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    from: Time,
    until: Time,
}

impl Pause {
    /// From `from` to `until`; `None` if no time passed between them.
    pub fn between(from: Time, until: Time) -> Option<Pause> {
        (from < until).then_some(Pause { from, until })
    }

    /// How long it took.
    pub fn length(self) -> Duration {
        self.until.since(self.from)
    }

    /// The part of it before `end`; none if that is before its beginning.
    pub fn before(self, end: Time) -> Option<Pause> {
        Pause::between(self.from, self.until.min(end))
    }

    /// The part of it after a moment within it; none if the moment is not.
    pub fn after(self, moment: Time) -> Option<Pause> {
        (self.from <= moment)
            .then(|| Pause::between(moment, self.until))
            .flatten()
    }

    /// A past moment, moved forward so that the pause does not count into the time that has passed since.
    pub fn leave_out(self, then: Time) -> Time {
        if then < self.from {
            then + self.length()
        } else {
            then.max(self.until)
        }
    }

    /// A deadline that the pause fell before, moved so that as much time is left as there was when the pause began.
    pub fn postpone(self, deadline: Time) -> Time {
        if deadline > self.from {
            deadline + self.length()
        } else {
            deadline
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_time_is_since_zero_before_an_earlier_one() {
        let t = Time::from_millis(5);
        assert_eq!(Time::from_millis(7).since(t), Duration::from_millis(2));
        assert_eq!(t.since(Time::from_millis(7)), Duration::ZERO);
        assert_eq!((t + Duration::MAX).as_nanos(), u64::MAX);
    }

    #[test]
    fn a_pause_counts_neither_as_past_nor_as_waited_time() {
        let at = Time::from_millis;
        let pause = Pause::between(at(100), at(400)).unwrap();
        assert_eq!(pause.length(), Duration::from_millis(300));
        // 20 ms before the pause began and 50 ms after it ended: 70 ms.
        assert_eq!(at(450).since(pause.leave_out(at(80))), Duration::from_millis(70));
        assert_eq!(pause.leave_out(at(100)), at(400));
        assert_eq!(pause.leave_out(at(250)), at(400));
        assert_eq!(pause.leave_out(at(410)), at(410));
        // 30 ms were left when it began.
        assert_eq!(pause.postpone(at(130)), at(430));
        assert_eq!(pause.postpone(at(500)), at(800));
        assert_eq!(pause.postpone(at(100)), at(100), "what was due before it is due");
        assert_eq!(pause.before(at(150)), Pause::between(at(100), at(150)));
        assert_eq!(pause.before(at(500)), Some(pause));
        assert_eq!(pause.before(at(100)), None);
        assert_eq!(pause.after(at(100)), Some(pause));
        assert_eq!(pause.after(at(390)), Pause::between(at(390), at(400)));
        assert_eq!([pause.after(at(99)), pause.after(at(400))], [None, None]);
        assert_eq!(Pause::between(at(5), at(5)), None);
        assert_eq!(Pause::between(at(6), at(5)), None);
    }
}

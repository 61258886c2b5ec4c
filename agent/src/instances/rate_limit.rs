//! A limit on reactions to other programs: five in ten seconds, then none for a minute.

use std::collections::VecDeque;
use std::time::Duration;

use bond_monitors::Time;

/// Times of the last reactions of one kind.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    lately: VecDeque<Time>,
    pub(super) pause_ends: Option<Time>,
}

/// Whether it may be done again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// Yes.
    Given,
    /// Not any more: the first refusal.
    Ended,
    /// No.
    Refused,
}

impl RateLimit {
    /// Asks for a reaction, which counts if it is permitted.
    pub(super) fn permit(&mut self, now: Time) -> Permit {
        if self.pause_ends.is_some() {
            return if self.end_pause(now) {
                Permit::Given
            } else {
                Permit::Refused
            };
        }
        self.lately.retain(|then| now.since(*then) < WINDOW);
        if self.lately.len() >= MOST {
            self.pause_ends = Some(now + PAUSE);
            return Permit::Ended;
        }
        self.lately.push_back(now);
        Permit::Given
    }

    /// Whether a pause is over now, which is a reason for a reaction.
    pub(super) fn end_pause(&mut self, now: Time) -> bool {
        let over = self.pause_ends.is_some_and(|until| until <= now);
        if over {
            *self = RateLimit {
                lately: VecDeque::from([now]),
                pause_ends: None,
            };
        }
        over
    }
}

/// After this many reactions
const MOST: usize = 5;
/// within this time
const WINDOW: Duration = Duration::from_secs(10);
/// there are none for this long.
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_five_reactions_in_ten_seconds_there_is_a_minute_without() {
        let mut limit = RateLimit::default();
        let mut at = |seconds| limit.permit(Time::ZERO + Duration::from_secs(seconds));
        for second in 0..5 {
            assert_eq!(at(second), Permit::Given);
        }
        assert_eq!(at(5), Permit::Ended);
        assert_eq!((at(6), at(64)), (Permit::Refused, Permit::Refused));
        assert_eq!(at(65), Permit::Given);
    }

    #[test]
    fn reactions_that_are_far_apart_go_on_for_ever() {
        let mut limit = RateLimit::default();
        for turn in 0..20 {
            let now = Time::ZERO + Duration::from_secs(turn * 3);
            assert_eq!(limit.permit(now), Permit::Given);
        }
    }
}

//! Changes that other programs make to a bond: they are put back, each with a line in the log, and not without limit.
//!
//! An event only raises a suspicion: it may tell of a state that the agent has changed since. What the kernel says when it is
//! asked decides.

use std::collections::VecDeque;
use std::time::Duration;

use bond_monitors::Time;

use super::Instances;
use crate::text::chain;

impl Instances {
    /// Puts back what somebody else changed about a bond, unless that was done too often lately. `what` completes "someone else
    /// changed".
    pub(super) fn put_back(&mut self, now: Time, at: usize, what: &str) {
        let instance = &mut self.bonds[at];
        let name = instance.name.clone();
        match instance.repairs.permit(now) {
            Permit::Given => {
                log::warn!("{name}: someone else changed {what}, putting it back");
                return self.repair(now, at);
            }
            Permit::Ended => log::error!(
                "{name}: someone else changes {what} again and again, leaving it for a minute; is another program at work on \
                 the bond?"
            ),
            Permit::Refused => {}
        }
        // The next plan, of a failover say, is compared with what there is.
        if let Err(error) = instance.plane.refresh() {
            log::debug!("{name}: {}", chain(&error));
        }
    }

    /// When a bond has been left to others for long enough.
    pub(super) fn repair_timeout(&self) -> Option<Time> {
        self.bonds
            .iter()
            .filter_map(|instance| instance.repairs.pause_ends)
            .min()
    }

    /// Puts back what others did to bonds that were left to them, if that has lasted long enough.
    pub(super) fn repair_after_pause(&mut self, now: Time) {
        for at in 0..self.bonds.len() {
            if self.bonds[at].repairs.end_pause(now) {
                self.repair(now, at);
            }
        }
    }
}

/// How often something was done lately.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    lately: VecDeque<Time>,
    pause_ends: Option<Time>,
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

impl Repairs {
    /// Asks for a repair, which counts if it is permitted.
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

    /// Whether a pause is over now, which is a reason for a repair.
    fn end_pause(&mut self, now: Time) -> bool {
        let over = self.pause_ends.is_some_and(|until| until <= now);
        if over {
            *self = Repairs {
                lately: VecDeque::from([now]),
                pause_ends: None,
            };
        }
        over
    }
}

/// After this many repairs
const MOST: usize = 5;
/// within this time
const WINDOW: Duration = Duration::from_secs(10);
/// there are none for this long.
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_five_repairs_in_ten_seconds_there_is_a_minute_without() {
        let mut repairs = Repairs::default();
        let mut at = |seconds| repairs.permit(Time::ZERO + Duration::from_secs(seconds));
        for second in 0..5 {
            assert_eq!(at(second), Permit::Given);
        }
        assert_eq!(at(5), Permit::Ended);
        assert_eq!((at(6), at(64)), (Permit::Refused, Permit::Refused));
        assert_eq!(at(65), Permit::Given);
    }

    #[test]
    fn repairs_that_are_far_apart_go_on_for_ever() {
        let mut repairs = Repairs::default();
        for turn in 0..20 {
            let now = Time::ZERO + Duration::from_secs(turn * 3);
            assert_eq!(repairs.permit(now), Permit::Given);
        }
    }
}

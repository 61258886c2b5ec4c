//! Options that somebody else changes, such as with teamnl(8).
//!
//! Our own changes are told, too, some time later, and a value may have been changed and changed back. So an event only raises a
//! suspicion; what the driver says when asked decides.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::TeamPlane;
use super::genl::Change;
use crate::dataplane::Touched;
use crate::netlink::Drained;

impl TeamPlane {
    /// The bonds whose options are not those in force any more, by up to `budget` messages. Somebody who insists is left alone for
    /// a while.
    pub(super) fn read_changes(&mut self, budget: usize) -> io::Result<Touched> {
        let mut heard = Vec::new();
        let drained = self.events.read(budget, &mut heard)?;
        let mut touched = Touched {
            more: drained == Drained::More,
            ..Touched::default()
        };
        for (name, bond) in &mut self.bonds {
            let suspicious = |change: &Change| match change {
                Change::Overrun => true,
                Change::Option { team, key, value } => {
                    *team == bond.ifindex && bond.settings.get(key).is_some_and(|known| known != value)
                }
            };
            if !heard.iter().any(suspicious) {
                continue;
            }
            // A device that cannot be asked is going away, and its own event tells.
            let Ok(now) = self.driver.options(bond.ifindex) else {
                continue;
            };
            let differs = |(key, value)| now.get(key).is_some_and(|now| now != value);
            if !bond.settings.iter().any(differs) {
                continue;
            }
            match bond.repairs.permit(Instant::now()) {
                Permit::Given => {
                    touched.bonds.insert(name.clone());
                }
                Permit::Ended => {
                    log::error!(
                        "{name}: someone else changes its options again and again, leaving them for a minute; \
                         is another program (teamd?) at work on it?"
                    );
                    // So that the next plan puts them back.
                    bond.settings = now;
                }
                Permit::Refused => bond.settings = now,
            }
        }
        Ok(touched)
    }
}

/// How often options were put back lately.
#[derive(Debug, Default)]
pub struct Repairs {
    lately: VecDeque<Instant>,
    quiet_until: Option<Instant>,
}

/// Whether options are to be put back.
#[derive(Debug, PartialEq, Eq)]
enum Permit {
    Given,
    /// Not any more: the first refusal.
    Ended,
    Refused,
}

impl Repairs {
    fn permit(&mut self, now: Instant) -> Permit {
        match self.quiet_until {
            Some(until) if now < until => return Permit::Refused,
            Some(_) => *self = Repairs::default(),
            None => {}
        }
        self.lately.retain(|then| now.duration_since(*then) < WINDOW);
        if self.lately.len() >= MOST {
            self.quiet_until = Some(now + PAUSE);
            return Permit::Ended;
        }
        self.lately.push_back(now);
        Permit::Given
    }
}

/// So many repairs
const MOST: usize = 5;
/// in this time are enough
const WINDOW: Duration = Duration::from_secs(10);
/// for this long.
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_five_repairs_in_ten_seconds_there_is_a_minute_of_rest() {
        let start = Instant::now();
        let mut repairs = Repairs::default();
        let mut at = |seconds| repairs.permit(start + Duration::from_secs(seconds));
        for second in 0..5 {
            assert_eq!(at(second), Permit::Given);
        }
        assert_eq!(at(5), Permit::Ended);
        assert_eq!((at(6), at(64)), (Permit::Refused, Permit::Refused));
        assert_eq!(at(65), Permit::Given);
    }

    #[test]
    fn repairs_that_are_far_apart_go_on_for_ever() {
        let start = Instant::now();
        let mut repairs = Repairs::default();
        for turn in 0..20 {
            assert_eq!(repairs.permit(start + Duration::from_secs(turn * 3)), Permit::Given);
        }
    }
}

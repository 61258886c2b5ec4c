//! Options that somebody else changes, such as with teamnl(8).
//!
//! The driver also reports our own changes, some time later, and a value may have been changed and changed back. So a report is
//! only a reason to read the options; what they say then decides.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::time::Duration;

use bond_monitors::Time;

use super::TeamPlane;
use super::genl::Change;
use crate::dataplane::{BondName, Touched};
use crate::netlink::Drained;

impl TeamPlane {
    /// The bonds whose options are not those in force any more, from up to `budget` messages. After five repairs in ten seconds,
    /// a bond is not repaired for a minute.
    pub(super) fn read_changes(&mut self, now: Time, budget: usize) -> io::Result<Touched> {
        let mut heard = Vec::new();
        let drained = self.events.read(budget, &mut heard)?;
        Ok(Touched {
            bonds: self.judge(now, &heard),
            more: drained == Drained::More,
        })
    }

    /// The bonds whose options really differ from those in force, without those whose repair is paused.
    pub(super) fn judge(&mut self, time: Time, heard: &[Change]) -> BTreeSet<BondName> {
        let mut touched = BTreeSet::new();
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
            match bond.repairs.permit(time) {
                Permit::Given => {
                    touched.insert(name.clone());
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
        touched
    }

    /// When the first pause in repairs ends.
    pub(super) fn end_of_rest(&self) -> Option<Time> {
        self.bonds.values().filter_map(|bond| bond.repairs.quiet_until).min()
    }

    /// The bonds whose pause in repairs is over: what others have changed meanwhile is to be put back.
    pub(super) fn rested(&mut self, now: Time) -> BTreeSet<BondName> {
        let rested = self
            .bonds
            .iter_mut()
            .filter_map(|(name, bond)| bond.repairs.end_rest(now).then(|| name.clone()));
        rested.collect()
    }
}

/// How often options were put back lately.
#[derive(Debug, Default)]
pub struct Repairs {
    lately: VecDeque<Time>,
    quiet_until: Option<Time>,
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
    fn permit(&mut self, now: Time) -> Permit {
        if self.quiet_until.is_some() {
            return if self.end_rest(now) {
                Permit::Given
            } else {
                Permit::Refused
            };
        }
        self.lately.retain(|then| now.since(*then) < WINDOW);
        if self.lately.len() >= MOST {
            self.quiet_until = Some(now + PAUSE);
            return Permit::Ended;
        }
        self.lately.push_back(now);
        Permit::Given
    }

    /// Whether a rest is over now, which is a reason for a repair.
    fn end_rest(&mut self, now: Time) -> bool {
        let over = self.quiet_until.is_some_and(|until| until <= now);
        if over {
            *self = Repairs {
                lately: VecDeque::from([now]),
                quiet_until: None,
            };
        }
        over
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

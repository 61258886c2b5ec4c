//! Derives a port's verdict from its evidence.

use super::port::{ArpMonitor, Trial};
use super::window::Window;
use crate::link::Carrier;
use crate::time::Time;

/// Limits of silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// How long a sign of life counts.
    pub window: Window,
    /// How many intervals a port may stay silent: `arp_missed_max`.
    pub missed: u32,
}

/// One port at the moment when it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Its evidence.
    pub port: &'a ArpMonitor,
    /// When it last gave a sign of life that counts in its role.
    pub last_rx: Time,
    /// It is in use.
    pub usable: bool,
    /// Signal on its wire.
    pub carrier: Carrier,
}

/// Change of a port's verdict, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It works again.
    Up,
    /// It was silent for too long.
    Down,
    /// It was tried, without success.
    Failed,
}

impl Rule {
    /// Judges a port of a bond in which every port is in use: each must get answers itself. [bond_main.c:
    /// bond_loadbalance_arp_mon]
    pub fn judge_each(self, now: Time, at: &Standing<'_>) -> Option<Outcome> {
        let answers_in_time = |missed| {
            self.window.contains(at.port.last_tx(), now, missed) && self.window.contains(at.last_rx, now, missed)
        };
        if at.usable {
            (!answers_in_time(self.missed)).then_some(Outcome::Down)
        } else {
            (at.carrier.is_on() && answers_in_time(1)).then_some(Outcome::Up)
        }
    }

    /// Judges a port of a bond in which one port is probed and carries all traffic. A backup port counts as up while it hears
    /// that one, and also while others are tried (`trying`), because then there is no active port to hear. [bond_main.c:
    /// bond_ab_arp_inspect]
    pub fn judge_one_active(self, now: Time, at: &Standing<'_>, probed: bool, trying: bool) -> Option<Outcome> {
        if !at.usable {
            return if at.carrier.is_on() && self.window.contains(at.last_rx, now, 1) {
                Some(Outcome::Up)
            } else {
                (at.port.trial() == Trial::Candidate).then_some(Outcome::Failed)
            };
        }
        if self.window.contains(at.port.became_active_at(), now, GRACE) {
            return None;
        }
        let answers_in_time = if probed {
            self.window.contains(at.port.last_tx(), now, self.missed)
                && self.window.contains(at.last_rx, now, self.missed)
        } else {
            trying || self.window.contains(at.last_rx, now, self.missed + 1)
        };
        (!answers_in_time).then_some(Outcome::Down)
    }
}

/// Intervals without a verdict after a port was taken into use.
const GRACE: u32 = 2;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WINDOW: Window = Window {
        interval: Duration::from_millis(100),
    };
    const RULE: Rule = Rule {
        window: WINDOW,
        missed: 2,
    };

    fn at(ms: u64) -> Time {
        Time::from_millis(10_000 + ms)
    }

    fn standing(port: &ArpMonitor, usable: bool) -> Standing<'_> {
        Standing {
            port,
            last_rx: port.last_rx(),
            usable,
            carrier: Carrier::On,
        }
    }

    #[test]
    fn where_every_port_is_in_use_each_is_given_up_without_answers_of_its_own() {
        let mut port = ArpMonitor::new(at(0), true, WINDOW);
        port.sent(at(200));
        port.heard(at(0));
        assert_eq!(RULE.judge_each(at(250), &standing(&port, true)), None);
        assert_eq!(RULE.judge_each(at(251), &standing(&port, true)), Some(Outcome::Down));
        assert_eq!(RULE.judge_each(at(251), &standing(&port, false)), None);
        port.heard(at(240));
        assert_eq!(RULE.judge_each(at(251), &standing(&port, false)), Some(Outcome::Up));
        let cut = Standing {
            carrier: Carrier::Off,
            ..standing(&port, false)
        };
        assert_eq!(RULE.judge_each(at(251), &cut), None);
    }

    #[test]
    fn a_backup_port_may_miss_one_interval_more_and_all_while_others_are_tried() {
        let mut port = ArpMonitor::new(at(0), true, WINDOW);
        port.heard(at(0));
        port.sent(at(290));
        let judge = |port: &ArpMonitor, ms, probed, trying| {
            RULE.judge_one_active(at(ms), &standing(port, true), probed, trying)
        };
        port.became_active(at(10));
        assert_eq!(judge(&port, 251, true, false), None, "within the time it is left alone");
        port.became_active(Time::from_millis(9_000));
        assert_eq!(judge(&port, 251, true, false), Some(Outcome::Down));
        assert_eq!(judge(&port, 251, false, false), None);
        assert_eq!(judge(&port, 351, false, false), Some(Outcome::Down));
        assert_eq!(judge(&port, 351, false, true), None);
    }

    #[test]
    fn a_candidate_without_answer_has_failed() {
        let mut port = ArpMonitor::new(at(0), false, WINDOW);
        let judge = |port: &ArpMonitor| RULE.judge_one_active(at(100), &standing(port, false), true, true);
        assert_eq!(judge(&port), None);
        port.set_trial(Trial::Candidate);
        assert_eq!(judge(&port), Some(Outcome::Failed));
        port.heard(at(90));
        assert_eq!(judge(&port), Some(Outcome::Up));
    }
}

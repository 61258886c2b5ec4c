//! Damping: a port that fails again and again is left out for a while. [RFC 2439]
//!
//! Each failure adds to a penalty, which halves every `half_life`. A port whose penalty reaches `suppress` counts as down until it
//! has fallen to `reuse`.

use std::time::Duration;

use crate::time::Time;

/// The numbers of damping. Penalties are in thousandths of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DampingRule {
    /// Time in which a penalty halves; not zero.
    pub half_life: Duration,
    /// At this penalty the port is left out.
    pub suppress: u32,
    /// At this penalty it may be used again; below `suppress`, not zero.
    pub reuse: u32,
    /// No port is left out for longer than this after its last failure.
    pub longest: Duration,
}

/// Recent failures of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damping {
    rule: DampingRule,
    /// The penalty at `as_of`.
    penalty: u32,
    as_of: Time,
    /// The port is left out until then.
    until: Option<Time>,
}

impl Damping {
    /// A port that never failed.
    pub fn new(rule: DampingRule) -> Self {
        Damping {
            rule,
            penalty: 0,
            as_of: Time::ZERO,
            until: None,
        }
    }

    /// The port went down.
    pub fn failed(&mut self, now: Time) {
        let most = self.rule.reuse as f64 * (self.rule.longest.div_duration_f64(self.rule.half_life)).exp2();
        let penalty = (f64::from(self.penalty(now)) + FAILURE).min(most);
        self.penalty = penalty.round() as u32;
        self.as_of = now;
        if self.until.is_some() || self.penalty >= self.rule.suppress {
            let half_lives = (penalty / f64::from(self.rule.reuse)).log2().max(0.0);
            self.until = Some(now + self.rule.half_life.mul_f64(half_lives));
        }
    }

    /// Lets time pass, which may end the port's exclusion.
    pub fn on_timeout(&mut self, now: Time) {
        self.until = self.until.filter(|until| now < *until);
    }

    /// When the port may be used again, while it is left out.
    pub fn suppressed_until(&self) -> Option<Time> {
        self.until
    }

    /// The remaining penalty.
    pub fn penalty(&self, now: Time) -> u32 {
        let half_lives = now.since(self.as_of).div_duration_f64(self.rule.half_life);
        (f64::from(self.penalty) * (-half_lives).exp2()).round() as u32
    }
}

/// Penalty of one failure.
const FAILURE: f64 = 1000.0;

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: DampingRule = DampingRule {
        half_life: Duration::from_secs(10),
        suppress: 2500,
        reuse: 1000,
        longest: Duration::from_secs(60),
    };

    fn at(ms: u64) -> Time {
        Time::from_millis(1_000_000 + ms)
    }

    #[test]
    fn the_fourth_failure_four_seconds_apart_leaves_a_port_out_until_its_penalty_has_decayed() {
        let mut port = Damping::new(RULE);
        let mut penalties = Vec::new();
        for failure in 0..4 {
            assert_eq!(port.suppressed_until(), None);
            port.failed(at(4000 * failure));
            penalties.push(port.penalty(at(4000 * failure)));
        }
        assert_eq!(penalties, [1000, 1758, 2332, 2767]);
        let until = port.suppressed_until().unwrap();
        let left_out = until.since(at(12_000));
        assert!((14_600..14_800).contains(&left_out.as_millis()), "{left_out:?}");
        port.on_timeout(until.max(at(26_000)));
        assert_eq!(port.penalty(until), RULE.reuse);
        assert_eq!(port.suppressed_until(), None);
    }

    #[test]
    fn a_port_that_fails_seldom_is_never_left_out() {
        let mut port = Damping::new(RULE);
        for failure in 0..100 {
            port.failed(at(10_000 * failure));
            assert_eq!(
                port.suppressed_until(),
                None,
                "penalty {}",
                port.penalty(at(10_000 * failure))
            );
        }
        assert!(port.penalty(at(990_000)) <= 2000);
        assert_eq!(port.penalty(at(1_990_000)), 0);
    }

    #[test]
    fn a_failure_while_it_is_left_out_prolongs_that_but_never_beyond_the_longest_time() {
        let mut port = Damping::new(RULE);
        for failure in 0..1000 {
            port.failed(at(100 * failure));
            let until = port.suppressed_until();
            assert!(until.is_none_or(|until| until.since(at(100 * failure)) <= RULE.longest));
        }
        let until = port.suppressed_until().unwrap();
        port.on_timeout(until.max(at(0)));
        assert_eq!(port.suppressed_until(), None, "its last failure was long ago");
        port.failed(at(200_000));
        assert_eq!(port.suppressed_until(), None, "the old failures are forgotten");
    }

    #[test]
    fn being_left_out_ends_at_its_time_and_not_before() {
        let mut port = Damping::new(RULE);
        (0..3).for_each(|_| port.failed(at(0)));
        let until = port.suppressed_until().unwrap();
        port.on_timeout(Time::from_nanos(until.as_nanos() - 1));
        assert_eq!(port.suppressed_until(), Some(until));
        port.on_timeout(until);
        assert_eq!(port.suppressed_until(), None);
    }
}

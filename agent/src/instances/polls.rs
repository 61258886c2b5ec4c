//! What bonds asked for in the polls of a turn, and when the next round may begin.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bond_modes::PortId;
use bond_monitors::Time;

use super::id::InstanceId;

/// The polls of a turn, and the rounds that are not answered.
#[derive(Default)]
pub(super) struct Polls {
    /// Bonds that asked for carriers, and of which ports.
    pub(super) asked: Vec<(InstanceId, Vec<PortId>)>,
    /// Bonds that asked for the state of their own interface.
    pub(super) devices: Vec<InstanceId>,
    /// Rounds so far, and those of them that are not answered, with the bonds that wait for them.
    begun: u64,
    unanswered: BTreeMap<u64, BTreeSet<InstanceId>>,
    /// The round that was the last one when the link of a port was told by an event.
    told: BTreeMap<PortId, u64>,
    /// No round begins before. Polls get a limited share of the processor: at real-time priority more would keep other programs
    /// from it, until the kernel stopped the agent.
    rest_until: Time,
}

/// Names a round of polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Round(u64);

impl Polls {
    /// No poll of this bond, which polls at this interval, begins before: its last one is not answered, or polls have taken too
    /// much time.
    pub(super) fn rest_until(&self, now: Time, bond: InstanceId, interval: Duration) -> Time {
        if self.unanswered.values().any(|waiting| waiting.contains(&bond)) {
            now + interval
        } else {
            self.rest_until
        }
    }

    /// A round of polls of these bonds begins.
    pub(super) fn begin(&mut self, bonds: impl IntoIterator<Item = InstanceId>) -> Round {
        self.begun += 1;
        self.unanswered.insert(self.begun, bonds.into_iter().collect());
        Round(self.begun)
    }

    /// An event told of the link of a port, or the port was attached: rounds that have begun before may be older.
    pub(super) fn told(&mut self, port: PortId) {
        if !self.unanswered.is_empty() {
            self.told.insert(port, self.begun);
        }
    }

    /// Whether what a round read of a port is newer than all that events told of it.
    pub(super) fn is_newest(&self, round: Round, port: PortId) -> bool {
        self.told.get(&port).is_none_or(|last| *last < round.0)
    }

    /// A look at carriers outside the rounds was answered.
    pub(super) fn end_look(&mut self, look: Round) {
        self.unanswered.remove(&look.0);
        if self.unanswered.is_empty() {
            self.told.clear();
        }
    }

    /// A round was answered, with this much work of the kernel and of this process.
    pub(super) fn end(&mut self, now: Time, round: Round, work: Duration) {
        self.end_look(round);
        // One that was answered before may have taken longer.
        self.rest_until = self.rest_until.max(now + work * (POLLS_SHARE - 1));
    }
}

/// How often a bond is polled.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// With the interval that it asked for then.
    last: Option<(Time, Duration)>,
    /// Between the last two polls.
    every: Duration,
}

impl Pace {
    /// It is polled now, and asks for this interval.
    pub(super) fn polled(&mut self, now: Time, interval: Duration) {
        let last = self.last.filter(|(_, asked)| *asked == interval);
        self.every = last.map_or(Duration::ZERO, |(last, _)| now.since(last));
        self.last = Some((now, interval));
    }

    /// The time between its polls, if that is more than a quarter longer than the interval that it asks for.
    pub(super) fn stretched(&self, now: Time, interval: Duration) -> Option<Duration> {
        let (last, _) = self.last.filter(|(_, asked)| *asked == interval)?;
        let every = self.every.max(now.since(last));
        (every > interval + interval / 4).then_some(every)
    }
}

/// A round of polls begins at least this many times its work after the one before: polls take an eighth of the processor at most.
pub(super) const POLLS_SHARE: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: InstanceId = InstanceId(1);
    const SECOND: InstanceId = InstanceId(2);

    #[test]
    fn polls_take_an_eighth_of_the_processor_and_a_bond_waits_for_its_own_answer() {
        let at = Time::from_millis;
        let interval = Duration::from_millis(100);
        let mut polls = Polls::default();
        assert_eq!(polls.rest_until(at(5), FIRST, interval), at(0));
        let round = polls.begin([FIRST]);
        assert_eq!(polls.rest_until(at(200), FIRST, interval), at(300), "no answer yet");
        assert_eq!(
            polls.rest_until(at(200), SECOND, interval),
            at(0),
            "that is another bond's"
        );
        polls.end(at(220), round, Duration::from_millis(50));
        for bond in [FIRST, SECOND] {
            assert_eq!(polls.rest_until(at(230), bond, interval), at(570));
        }
    }

    #[test]
    fn a_short_round_does_not_end_the_rest_after_a_long_one() {
        let at = Time::from_millis;
        let mut polls = Polls::default();
        let [long, short] = [FIRST, SECOND].map(|bond| polls.begin([bond]));
        polls.end(at(50), long, Duration::from_millis(50));
        polls.end(at(51), short, Duration::from_millis(1));
        assert_eq!(polls.rest_until(at(60), FIRST, Duration::from_millis(10)), at(400));
    }

    #[test]
    fn polls_that_come_later_than_asked_for_are_told() {
        let at = Time::from_millis;
        let interval = Duration::from_millis(100);
        let mut pace = Pace::default();
        assert_eq!(pace.stretched(at(500), interval), None, "it has not been polled yet");
        for (now, told) in [(500, None), (600, None), (725, None), (905, Some(180)), (1_005, None)] {
            pace.polled(at(now), interval);
            assert_eq!(
                pace.stretched(at(now), interval),
                told.map(Duration::from_millis),
                "{now}"
            );
        }
        assert_eq!(
            pace.stretched(at(4_005), interval),
            Some(Duration::from_secs(3)),
            "it waits"
        );
    }

    #[test]
    fn what_an_event_told_after_a_round_began_is_newer_than_its_answer() {
        let (port, other) = (PortId(7), PortId(8));
        let mut polls = Polls::default();
        polls.told(port);
        let first = polls.begin([FIRST]);
        assert!(polls.is_newest(first, port), "the event was before");
        polls.told(port);
        let second = polls.begin([SECOND]);
        assert!(!polls.is_newest(first, port) && polls.is_newest(first, other));
        assert!(polls.is_newest(second, port));
        polls.end(Time::ZERO, first, Duration::ZERO);
        polls.told(port);
        assert!(!polls.is_newest(second, port));
        polls.end(Time::ZERO, second, Duration::ZERO);
        let third = polls.begin([FIRST]);
        assert!(polls.is_newest(third, port));
    }
}

//! What bonds asked for in the polls of a turn, and when the next round may begin.

use std::time::Duration;

use bond_modes::PortId;
use bond_monitors::Time;

use super::id::InstanceId;

/// The polls of a turn.
#[derive(Default)]
pub(super) struct Polls {
    /// Bonds that asked for carriers, and of which ports.
    pub(super) asked: Vec<(InstanceId, Vec<PortId>)>,
    /// Bonds that asked for the state of their own interface.
    pub(super) devices: Vec<InstanceId>,
    /// Rounds that are not answered yet.
    unanswered: usize,
    /// No round begins before. Polls get a limited share of the processor: at real-time priority more would keep other programs
    /// from it, until the kernel stopped the agent.
    rest_until: Time,
}

impl Polls {
    /// No poll of a bond with this interval is due before: the kernel has not answered the last one, or it was answered just now.
    pub(super) fn rest_until(&self, now: Time, interval: Duration) -> Time {
        if self.unanswered == 0 {
            self.rest_until
        } else {
            now + interval
        }
    }

    /// A round of polls begins.
    pub(super) fn begin(&mut self) {
        self.unanswered += 1;
    }

    /// A round of polls was answered, with this much work of the kernel and of this process.
    pub(super) fn end(&mut self, now: Time, work: Duration) {
        self.unanswered -= 1;
        self.rest_until = now + work * POLLS_SHARE;
    }
}

/// A round of polls begins at least this many times its duration after the one before: polls take a quarter of the processor at
/// most.
const POLLS_SHARE: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_take_a_quarter_of_the_processor_and_wait_for_their_answers() {
        let at = Time::from_millis;
        let interval = Duration::from_millis(100);
        let mut polls = Polls::default();
        assert_eq!(polls.rest_until(at(5), interval), at(0));
        polls.begin();
        polls.begin();
        assert_eq!(polls.rest_until(at(200), interval), at(300), "no answer yet");
        polls.end(at(210), Duration::from_millis(1));
        assert_eq!(polls.rest_until(at(210), interval), at(310), "nor the second one");
        polls.end(at(220), Duration::from_millis(50));
        assert_eq!(polls.rest_until(at(230), interval), at(420));
    }
}

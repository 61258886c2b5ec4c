//! Deadlines that count from an action of the agent.

use std::time::Duration;

use bond_monitors::{Pause, Time};

/// A deadline that counts from an action. The action may have been done only at the end of the turn in which it was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deadline {
    asked: Time,
    due: Time,
}

impl Deadline {
    /// `delay` after an action that is asked for at `now`.
    pub fn after(now: Time, delay: Duration) -> Self {
        Deadline {
            asked: now,
            due: now + delay,
        }
    }

    /// At a fixed time.
    pub fn at(due: Time) -> Self {
        Deadline { asked: Time::ZERO, due }
    }

    /// When it is due.
    pub fn due(self) -> Time {
        self.due
    }

    /// Handles the length of a turn: the turn of the action delays the deadline. Later turns do not, because an agent that is
    /// always busy would never reach it.
    pub fn held_up(&mut self, turn: Pause) {
        if let Some(rest) = turn.after(self.asked) {
            self.due = rest.postpone(self.due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_turn_of_its_action_delays_a_deadline() {
        let at = Time::from_millis;
        let mut deadline = Deadline::after(at(100), Duration::from_millis(50));
        deadline.held_up(Pause::between(at(90), at(120)).unwrap());
        assert_eq!(deadline.due(), at(170), "50 ms after the end of the turn");
        deadline.held_up(Pause::between(at(120), at(150)).unwrap());
        assert_eq!(deadline.due(), at(170));
        let mut fixed = Deadline::at(at(100));
        fixed.held_up(Pause::between(at(50), at(90)).unwrap());
        assert_eq!(fixed.due(), at(100));
        let mut at_once = Deadline::after(at(100), Duration::ZERO);
        at_once.held_up(Pause::between(at(100), at(400)).unwrap());
        assert_eq!(at_once.due(), at(100), "overdue deadlines stay");
    }
}

//! The interface of every machine of this crate for the agent.

use bond_monitors::Time;

/// A machine without socket, clock, thread or logger: facts and time go in, actions come out.
pub trait Machine {
    /// What it is told.
    type Event;
    /// What it asks for.
    type Action;
    /// State for the next start.
    type Saved;
    /// State for people and programs.
    type Status;

    /// Adds a fact. Drain [`Machine::poll_action`] afterwards.
    fn handle_event(&mut self, now: Time, event: Self::Event);

    /// Lets time pass. A call before the time is harmless.
    fn handle_timeout(&mut self, now: Time);

    /// Tells the machine how long a turn of the agent took, from `since`, the time of its inputs, to `until`. Silence during it is
    /// not held against ports, and delayed rounds are not sent in a bunch. Moves only deadlines set in this turn; otherwise an
    /// always busy agent would never reach the others.
    fn held_up(&mut self, since: Time, until: Time);

    /// The next thing to do; drain to `None` after every input.
    fn poll_action(&mut self) -> Option<Self::Action>;

    /// When [`Machine::handle_timeout`] is to be called.
    fn poll_timeout(&self) -> Option<Time>;

    /// The state for the next start.
    fn saved(&self) -> Self::Saved;

    /// The state at `now`.
    fn status(&self, now: Time) -> Self::Status;
}

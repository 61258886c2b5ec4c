//! What every machine of this crate offers to the agent that drives it.

use bond_monitors::Time;

use crate::action::Action;
use crate::event::Event;

/// A machine without socket, clock, thread or logger: facts and time go in, actions come out.
pub trait Machine {
    /// What it keeps for the next start.
    type Saved;
    /// What it shows to people and programs.
    type Status;

    /// Takes a fact in. Drain [`Machine::poll_action`] afterwards.
    fn handle_event(&mut self, now: Time, event: Event);

    /// Lets time pass. A call before the time is harmless.
    fn handle_timeout(&mut self, now: Time);

    /// Reports how long the agent took for what it was last asked to do, whichever machine asked for it: from `since`, the time of
    /// that input, to `until`. Nothing is blamed for what could not be asked or read meanwhile, and nothing that is to come at
    /// intervals comes in a bunch.
    fn held_up(&mut self, since: Time, until: Time);

    /// The next thing to do; drain to `None` after every input.
    fn poll_action(&mut self) -> Option<Action>;

    /// When [`Machine::handle_timeout`] is to be called.
    fn poll_timeout(&self) -> Option<Time>;

    /// What to keep for the next start.
    fn saved(&self) -> Self::Saved;

    /// The state at `now`.
    fn status(&self, now: Time) -> Self::Status;
}

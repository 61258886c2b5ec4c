//! When a bond polls its ports, and when an answer is no news.

use bond_monitors::{Carrier, Time};

use super::Bond;
use crate::ids::PortId;

impl Bond {
    /// Polls not before this time, because the last polls took too much time.
    pub fn hold_polls(&mut self, until: Time) {
        self.polls.hold(until);
    }

    /// When it asks for the carriers of its ports next; `None` if it does not poll.
    pub fn next_poll(&self) -> Option<Time> {
        self.polls().then(|| self.polls.next())
    }

    /// Whether a poll is all that there is to do at this time.
    pub fn only_polls(&self, now: Time) -> bool {
        self.unpolled_timeout().is_none_or(|due| now < due)
    }

    /// Whether an answer to a poll changes nothing: these are the known carriers of its ports, and no delay waits for the answer.
    pub fn is_known(&self, carriers: &[(PortId, Carrier)]) -> bool {
        carriers.iter().all(|(port, carrier)| {
            let port = self.ports.get(*port);
            port.is_some_and(|port| port.carrier() == *carrier && port.health.poll_timeout().is_none())
        })
    }

    /// When anything but a poll is due.
    pub(super) fn unpolled_timeout(&self) -> Option<Time> {
        let speaks = self.device.up && self.mode.speaker().is_some();
        let watched = self.ports.iter().filter(|_| self.view().watched);
        let parts = [
            self.probing.poll_timeout(&self.ports, &self.probe_context()),
            self.mode.poll_timeout(),
            self.announcer.poll_timeout().filter(|_| speaks),
            self.planner.poll_timeout(),
        ];
        let health = watched.filter_map(|port| Some(self.polls.end_of_delay(port.health.poll_timeout()?)));
        health.chain(parts.into_iter().flatten()).min()
    }

    /// Polls at that time already, if the next poll is due later: together with other bonds.
    pub fn poll_at(&mut self, at: Time) {
        if self.polls.next() > at {
            self.polls.restart(at);
        }
    }
}

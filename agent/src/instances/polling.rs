//! Polls of carriers: the bonds' deadlines come together, and a round of polls is one reading.

use std::collections::BTreeMap;

use bond_modes::{Event, PortId};
use bond_monitors::{Carrier, Time};

use super::Instances;
use super::id::InstanceId;
use crate::clock;
use crate::netlink::LinkState;

impl Instances {
    /// The bonds that have something to do now. If one of them polls, those whose poll is due within half an interval poll with it,
    /// and so from then on: many bonds need one reading in each interval.
    pub(super) fn due_with_polls(&mut self, now: Time) -> Vec<InstanceId> {
        let mut due = self.bonds.due(now);
        let polls = |at: &&InstanceId| self.bonds.get(**at).and_then(|instance| instance.bond.next_poll()) <= Some(now);
        let intervals = due
            .iter()
            .filter(polls)
            .filter_map(|at| Some(self.bonds.get(*at)?.bond.options().miimon));
        let Some(interval) = intervals.min().filter(|interval| !interval.is_zero()) else {
            return due;
        };
        let horizon = now + interval / 2;
        for at in self.bonds.due(horizon) {
            let Some(instance) = self.bonds.get(at) else { continue };
            let soon = instance
                .bond
                .next_poll()
                .is_some_and(|next| now < next && next <= horizon);
            if soon && instance.bond.options().miimon == interval {
                self.bonds[at].bond.poll_at(now);
                if !due.contains(&at) {
                    due.push(at);
                }
            }
        }
        due
    }

    /// Reads for all bonds at once what they asked for in this turn.
    pub(super) fn answer_polls(&mut self, now: Time) {
        let before = clock::worked();
        for at in std::mem::take(&mut self.polls.devices) {
            if let Some(event) = self.poll_device(at) {
                self.feed(now, at, event);
            }
        }
        let asked = std::mem::take(&mut self.polls.asked);
        if asked.is_empty() {
            return;
        }
        let by_link = |at: &InstanceId| {
            self.bonds
                .get(*at)
                .is_some_and(|instance| instance.bond.options().use_carrier)
        };
        let wanted = asked.iter().filter(|(at, _)| by_link(at)).flat_map(|(_, ports)| ports);
        let wanted: Vec<u32> = wanted.map(|port| port.0).collect();
        let read = self.polls.socket.read(&wanted).unwrap_or_else(|error| {
            log::debug!("cannot poll: {error}");
            BTreeMap::new()
        });
        for (at, ports) in asked {
            let carriers = ports
                .iter()
                .filter_map(|port| Some((*port, self.polled(at, *port, &read)?)))
                .collect();
            self.feed(now, at, Event::CarriersPolled { carriers });
        }
        self.polls.rest_until = clock::now() + (clock::worked() - before) * POLLS_SHARE;
    }

    /// `None` if the interface is going away, which its event reports.
    fn polled(&mut self, at: InstanceId, port: PortId, read: &BTreeMap<u32, LinkState>) -> Option<Carrier> {
        let bond = &self.bonds[at].bond;
        if bond.options().use_carrier {
            let state = read.get(&port.0)?;
            return Some(self.bonds[at].settled_carrier(port, state.carrier, state.in_service));
        }
        let name = bond.ports().name(port)?;
        self.carrier_by_driver(at, port, &name)
    }
}

/// A round of polls begins at least this many times its duration after the one before: polls take a quarter of the processor at
/// most.
const POLLS_SHARE: u32 = 4;

//! Polls of carriers: the bonds' deadlines come together, and a round of polls is one reading.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bond_modes::{Epoch, Event, Machine, PortId};
use bond_monitors::{Carrier, LinkReport, Time};

use super::Instances;
use super::id::InstanceId;
use super::instance::Instance;
use super::polls::Round;
use crate::clock;
use crate::netlink::{LinkState, mii};

impl Instances {
    /// The bonds that have something to do now. If one of them polls, those whose poll is due within half an interval poll with it,
    /// and so from then on: many bonds need one reading in each interval.
    pub(super) fn due_with_polls(&mut self, now: Time) -> Vec<InstanceId> {
        let mut due = self.bonds.due(now);
        let next_poll = |at: InstanceId| self.bonds.get(at)?.bond.next_poll();
        let polls = |at: &&InstanceId| next_poll(**at).is_some_and(|next| next <= now);
        let intervals = due
            .iter()
            .filter(polls)
            .filter_map(|at| Some(self.bonds.get(*at)?.bond.options().miimon));
        let Some(interval) = intervals.min().filter(|interval| !interval.is_zero()) else {
            return due;
        };
        let horizon = now + interval / 2;
        let due_now: BTreeSet<InstanceId> = due.iter().copied().collect();
        for at in self.bonds.due(horizon) {
            let Some(instance) = self.bonds.get(at) else { continue };
            let soon = instance
                .bond
                .next_poll()
                .is_some_and(|next| now < next && next <= horizon);
            if soon && instance.bond.options().miimon == interval {
                self.bonds[at].bond.poll_at(now);
                if !due_now.contains(&at) {
                    due.push(at);
                }
            }
        }
        due
    }

    /// Asks for all bonds at once what they asked for in this turn.
    pub(super) fn ask_polled(&mut self) {
        let devices = std::mem::take(&mut self.polls.devices).into_iter();
        let devices: Vec<Device> = devices
            // Until a change has done its plan, the interface may be as it was before.
            .filter(|at| self.underway.at_work != Some(*at))
            .filter_map(|at| Some(Device::of(at, self.bonds.get(at)?)))
            .collect();
        let asked = std::mem::take(&mut self.polls.asked);
        if devices.is_empty() && asked.is_empty() {
            return;
        }
        let mut wanted = Vec::new();
        let mut drivers = Vec::new();
        for (at, ports) in &asked {
            let Some(instance) = self.bonds.get(*at) else { continue };
            if instance.bond.options().use_carrier {
                wanted.extend(ports.iter().map(|port| port.0));
            } else {
                let name = |port: &PortId| Some((*port, instance.bond.ports().name(*port)?.to_string()));
                drivers.extend(ports.iter().filter_map(name));
            }
        }
        let round = self.polls.begin(asked.iter().map(|(at, _)| *at));
        self.threads.kernel.ask(move |kernel| {
            let before = clock::worked();
            let links = kernel.carriers.read(&wanted).unwrap_or_else(|error| {
                log::debug!("cannot poll: {error}");
                BTreeMap::new()
            });
            let driver = |(port, name): (PortId, String)| (port, mii::carrier_by_ioctl(&name));
            let mut read =
                |device: Device| Some((device, kernel.links.by_index(device.ifindex).ok().flatten()?.report));
            let polled = Polled {
                round,
                asked,
                links,
                drivers: drivers.into_iter().map(driver).collect(),
                devices: devices.into_iter().filter_map(&mut read).collect(),
                work: clock::worked() - before,
            };
            Box::new(move |instances, now| instances.on_polled(now, polled))
        });
    }

    fn on_polled(&mut self, now: Time, polled: Polled) {
        let before = clock::worked();
        for (device, report) in polled.devices {
            // A state from before a change of plan may be that before our own change.
            let same_plan = |instance: &Instance| instance.bond.epoch() == device.epoch;
            if self.bonds.get(device.of).is_some_and(same_plan) {
                self.feed(now, device.of, Event::BondLink { report });
            }
        }
        for (at, ports) in polled.asked {
            if self.bonds.get(at).is_none() {
                continue;
            }
            let newest = ports.iter().filter(|port| self.polls.is_newest(polled.round, **port));
            let newest: Vec<PortId> = newest.copied().collect();
            let carrier = |port: &PortId| {
                let driver = polled.drivers.get(port).copied();
                Some((*port, self.polled(at, *port, polled.links.get(&port.0), driver)?))
            };
            let carriers: Vec<(PortId, Carrier)> = newest.iter().filter_map(carrier).collect();
            let known = self
                .bonds
                .get(at)
                .is_some_and(|instance| instance.bond.is_known(&carriers));
            carriers.iter().for_each(|(port, _)| self.untold.carrier_told(*port));
            let polled = Event::CarriersPolled { carriers };
            match known {
                true => self.bonds[at].bond.handle_event(now, polled),
                false => self.feed(now, at, polled),
            }
        }
        let work = polled.work + (clock::worked() - before);
        self.polls.end(clock::now(), polled.round, work);
    }

    /// `None` if it was not read: the interface is going away, which its event reports, or the option has changed meanwhile.
    fn polled(
        &mut self,
        at: InstanceId,
        port: PortId,
        link: Option<&LinkState>,
        driver: Option<Option<Carrier>>,
    ) -> Option<Carrier> {
        let bond = &self.bonds[at].bond;
        if bond.options().use_carrier {
            let state = link?;
            return Some(self.bonds[at].settled_carrier(port, state.carrier, state.in_service));
        }
        let name = bond.ports().name(port)?;
        self.carrier_by_driver(at, port, &name, driver?)
    }
}

/// What a round of polls read.
struct Polled {
    round: Round,
    asked: Vec<(InstanceId, Vec<PortId>)>,
    links: BTreeMap<u32, LinkState>,
    /// By ports of bonds with `use_carrier=0`.
    drivers: BTreeMap<PortId, Option<Carrier>>,
    devices: Vec<(Device, LinkReport)>,
    /// What it took.
    work: Duration,
}

/// A bond's own interface that is read, and its plan by then.
#[derive(Clone, Copy)]
struct Device {
    of: InstanceId,
    ifindex: u32,
    epoch: Epoch,
}

impl Device {
    fn of(at: InstanceId, instance: &Instance) -> Device {
        Device {
            of: at,
            ifindex: instance.ifindex,
            epoch: instance.bond.epoch(),
        }
    }
}

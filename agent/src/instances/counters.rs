//! What ports have counted. Where the traffic of a bond can be read without waiting for the kernel, its counters are read at once.
//! Those of another bond are asked for by a thread, and the last answer counts.

use std::collections::BTreeMap;

use bond_modes::{Counters, Event, PortId};
use bond_monitors::Time;

use super::Instances;
use super::id::InstanceId;
use crate::dataplane::{PlaneBond, PlaneError, PortCounters};
use crate::text::chain;

impl Instances {
    /// What the ports of a bond have counted, as far as it is known. A port whose counters cannot be read is left out.
    pub(super) fn counters(&mut self, at: InstanceId) -> BTreeMap<PortId, PortCounters> {
        let instance = &mut self.bonds[at];
        let Some(traffic) = &mut instance.traffic else {
            return instance.counted.clone();
        };
        let ports = instance.bond.ports().iter();
        readable(&instance.name, ports.map(|port| (port.id, traffic.counters(port.id))))
    }

    /// Has the ports of these bonds counted, where that has to be asked for. The last count stays for one that a change is at work
    /// with.
    pub(super) fn count(&mut self, bonds: impl IntoIterator<Item = InstanceId>) {
        for at in bonds
            .into_iter()
            .filter(|at| self.underway.at_work != Some(*at))
            .collect::<Vec<_>>()
        {
            if self.bonds.get(at).is_some_and(|instance| instance.traffic.is_none()) && self.counting.open.insert(at) {
                self.counting.asked.add(at);
            }
        }
    }

    /// Whether the counters of a bond were asked for and are not there yet.
    pub(super) fn is_counting(&self, at: InstanceId) -> bool {
        self.counting.open.contains(&at)
    }

    /// The answer that a mode waits for, now or later.
    pub(super) fn counters_for_mode(&mut self, at: InstanceId) -> Option<Event> {
        if self.bonds[at].traffic.is_none() && self.underway.at_work != Some(at) {
            self.counting.by_mode.insert(at);
            self.count([at]);
            return None;
        }
        Some(for_mode(self.counters(at)))
    }

    /// Has the bonds counted that are to be.
    pub(super) fn ask_counters(&mut self) {
        let at_work = self.underway.at_work;
        let Some(asked) = self.counting.asked.begin_with(usize::MAX, |at| Some(*at) != at_work) else {
            return;
        };
        let mut jobs = Vec::new();
        for at in asked {
            match self.bonds.get(at) {
                Some(instance) => {
                    let ports: Vec<PortId> = instance.bond.ports().iter().map(|port| port.id).collect();
                    jobs.push((at, instance.name.clone(), instance.plane.clone(), ports));
                }
                None => drop(self.counting.open.remove(&at)),
            }
        }
        self.threads.kernel.ask(move |kernel| {
            let mut counted = Vec::new();
            for (at, name, forwarder, ports) in jobs {
                let read = |plane: &mut dyn PlaneBond| {
                    let read = ports.into_iter().map(|port| (port, plane.counters(port)));
                    readable(&name, read)
                };
                counted.push((at, forwarder.if_there(kernel, read).unwrap_or_default()));
            }
            Box::new(move |instances, now| instances.on_counted(now, counted))
        });
    }

    fn on_counted(&mut self, now: Time, counted: Vec<(InstanceId, BTreeMap<PortId, PortCounters>)>) {
        self.counting.asked.end();
        for (at, counted) in counted {
            self.counting.open.remove(&at);
            let by_mode = self.counting.by_mode.remove(&at);
            if self.bonds.get(at).is_none() {
                continue;
            }
            if by_mode {
                self.feed(now, at, for_mode(counted.clone()));
            }
            self.bonds[at].counted = counted;
        }
    }
}

fn readable(
    bond: &str,
    read: impl Iterator<Item = (PortId, Result<PortCounters, PlaneError>)>,
) -> BTreeMap<PortId, PortCounters> {
    let readable = read.filter_map(|(port, counters)| match counters {
        Ok(counters) => Some((port, counters)),
        Err(error) => {
            log::debug!("{bond}: {}", chain(&error));
            None
        }
    });
    readable.collect()
}

fn for_mode(counted: BTreeMap<PortId, PortCounters>) -> Event {
    let of = |(port, counters): (PortId, PortCounters)| {
        let counters = Counters {
            tx_frames: counters.tx_frames,
            tx_bytes: counters.tx_bytes,
            rx_frames: counters.rx_frames,
            rx_bytes: counters.rx_bytes,
        };
        (port, counters)
    };
    Event::Counters {
        ports: counted.into_iter().map(of).collect(),
    }
}

//! What the data plane is to do by itself, at once, when a port loses its carrier; and what to make of it when it has.
//!
//! It is found by letting copies of the ports and of the mode lose that carrier. So it is what the bond itself would want: the plane
//! does the same a little earlier, or while no agent is there.

use std::collections::BTreeMap;

use bond_monitors::{Carrier, Fact, Time};

use super::{Bond, planner};
use crate::action::{Action, Notice};
use crate::delays::{self, Ends};
use crate::ids::PortId;
use crate::mode::{Change, View};
use crate::outbox::Outbox;
use crate::plan::{Failover, ForwardingPlan};
use crate::watch;

impl Bond {
    /// Whether the data plane can move the traffic by itself when a port loses its carrier. It cannot as long as nobody says so.
    /// Returns whether that is news.
    pub fn set_plane_fails_over(&mut self, now: Time, can: bool) -> bool {
        let is_news = self.plane_fails_over != can;
        if is_news {
            self.plane_fails_over = can;
            self.conclude(now, Vec::new());
        }
        is_news
    }

    /// The plane may have nothing prepared any more, although it was not told of a loss: the last plan is published again.
    pub fn prepare_anew(&mut self, now: Time) {
        self.planner.overtaken();
        self.conclude(now, Vec::new());
    }

    /// Why nothing is prepared for the loss of any port, whatever the plane can do; `None` if something is.
    pub fn why_no_failover(&self) -> Option<NoFailover> {
        if !self.plan().if_lost.is_empty() {
            return None;
        }
        Some(if self.options.asks_targets() {
            NoFailover::ArpMonitor
        } else if !self.options.polls_carrier() {
            NoFailover::NoMonitor
        } else if !self.options.use_carrier {
            NoFailover::UseCarrier
        } else if !self.device.up {
            NoFailover::BondDown
        } else if self.ports.iter().filter(|port| port.carrier().is_on()).count() < 2 {
            NoFailover::NoOtherPort
        } else if self.plan().tx.ports.len() > MOST {
            NoFailover::ManyPorts
        } else if !self.options.delays().down.is_zero() {
            NoFailover::Downdelay
        } else {
            NoFailover::Otherwise
        })
    }

    /// The plan that follows from the state, with what is prepared.
    pub(super) fn wanted(&self, now: Time) -> ForwardingPlan {
        let plan = planner::wanted(&self.mode, &self.view());
        let if_lost = self.failovers(now, &plan);
        ForwardingPlan { if_lost, ..plan }
    }

    /// Carrier has to be what decides about links. A loss at one of many ports costs few frames, and each prepared one costs time
    /// at every plan.
    fn failovers(&self, now: Time, plan: &ForwardingPlan) -> BTreeMap<PortId, Failover> {
        let by_carrier = self.options.polls_carrier() && self.options.use_carrier;
        if !self.plane_fails_over || !self.view().watched || !by_carrier || plan.tx.ports.len() > MOST {
            return BTreeMap::new();
        }
        let senders = plan.tx.ports.iter();
        let failovers = senders.filter_map(|port| Some((*port, self.failover(now, *port, plan)?)));
        failovers.collect()
    }

    /// What follows if a port loses its carrier now; `None` if the traffic stays, or has nowhere to go, or if anything else changes with
    /// it, such as an address, which takes more than a plane can do by itself.
    fn failover(&self, now: Time, lost: PortId, plan: &ForwardingPlan) -> Option<Failover> {
        let (mut ports, mut mode, mut out) = (self.ports.clone(), self.mode.clone(), Outbox::default());
        let port = ports.get_mut(lost).filter(|port| port.carrier().is_on())?;
        watch::pass_fact(now, port, Fact::Carrier(Carrier::Off), &mut out);
        let active = mode.roles().active();
        let found = delays::inspect(now, &mut ports, active, &self.options, Ends::None);
        let view = View::new(&ports, &self.options, &self.device);
        let came_up = &found.came_up;
        mode.on_change(now, &Change::Judged { came_up }, &view, &mut out);
        let next = planner::wanted(&mode, &view);
        if !out.take_moves().is_empty() || next.tx.is_nowhere() || next.tx.sends_as(&plan.tx) {
            return None;
        }
        let accept = next.ports.iter().map(|(id, port)| (*id, port.accept));
        let differs = |id: &PortId, accept| plan.ports.get(id).map(|now| now.accept) != Some(accept);
        let failover = Failover {
            accept: accept.filter(|(id, accept)| differs(id, *accept)).collect(),
            tx: next.tx.clone(),
        };
        (failover.after(plan) == next).then_some(failover)
    }

    /// The plane saw the loss of a carrier. That is a fact like others, unless the bond has learned of it already, or of what came after
    /// it. The carrier may be back, and the event that says so may have been handled, so it is asked for at once. What the plane does
    /// now is not the last plan, so there is another one in any case, which prepares anew.
    pub(super) fn on_carrier_lost(&mut self, now: Time, id: PortId, at: Time, failed_over: bool) {
        self.planner.overtaken();
        let Some(port) = self.ports.get_mut(id) else { return };
        if failed_over {
            self.out.notify(Notice::FailedOver {
                port: port.name.clone(),
                ago: now.since(at),
            });
        }
        if port.loss_seen < at {
            watch::pass_fact(now, port, Fact::Carrier(Carrier::Off), &mut self.out);
            self.out.act(Action::PollCarriers { ports: vec![id] });
        }
    }
}

/// Why nothing is prepared for the loss of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFailover {
    /// Answers of targets decide, not carrier.
    ArpMonitor,
    /// Nothing decides.
    NoMonitor,
    /// The driver is asked instead of the interface.
    UseCarrier,
    /// The links of a bond that is down are not judged.
    BondDown,
    /// No other port could take over.
    NoOtherPort,
    /// The traffic is spread over many ports.
    ManyPorts,
    /// A port that lost its carrier stays in use for a while.
    Downdelay,
    /// More than the traffic would have to change, or no port that has its carrier may be used yet.
    Otherwise,
}

/// Ports that send, at most, in a bond whose plane fails over by itself.
const MOST: usize = 4;

//! The plan in force or being programmed, and the time of the next attempt after a failure.

use std::collections::BTreeMap;
use std::time::Duration;

use bond_monitors::Time;

use crate::action::{Action, Notice};
use crate::ids::Epoch;
use crate::mode::{AnyMode, View};
use crate::options::FailOverMac;
use crate::outbox::Outbox;
use crate::plan::{Accept, ForwardingPlan, PortPlan};
use crate::port::Port;

/// The last plan that was published.
#[derive(Clone, Debug)]
pub(crate) struct Planner {
    plan: ForwardingPlan,
    epoch: Epoch,
    retry_at: Option<Time>,
    /// Number of failures of this plan.
    failures: u32,
}

impl Planner {
    /// With the plan that is in force already.
    pub fn new(plan: ForwardingPlan) -> Self {
        Planner {
            plan,
            epoch: Epoch::default(),
            retry_at: None,
            failures: 0,
        }
    }

    /// The last plan.
    pub fn plan(&self) -> &ForwardingPlan {
        &self.plan
    }

    /// Its number.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// When the last plan is to be tried again.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.retry_at
    }

    /// Records a failure of the plan with this number; returns whether it is the last one.
    pub fn failed(&mut self, now: Time, epoch: Epoch, may_pass: bool) -> bool {
        if epoch != self.epoch {
            return false;
        }
        if may_pass {
            self.retry_at = Some(now + backoff(self.failures));
            self.failures = self.failures.saturating_add(1);
        }
        true
    }

    /// The kernel does not do the last plan any more: the next one is published even if it is the same.
    pub fn overtaken(&mut self) {
        self.retry_at = Some(Time::ZERO);
    }

    /// Publishes a plan that differs at once, and a failed one when its time has come; returns whether it did.
    pub fn publish(&mut self, now: Time, wanted: ForwardingPlan, out: &mut Outbox) -> bool {
        if wanted != self.plan {
            self.failures = 0;
        } else if self.retry_at.is_none_or(|at| now < at) {
            return false;
        }
        self.retry_at = None;
        if wanted.carrier != self.plan.carrier {
            out.notify(Notice::Carrier {
                carrier: wanted.carrier,
            });
        }
        self.plan = wanted;
        self.epoch.0 += 1;
        out.act(Action::Program {
            epoch: self.epoch,
            plan: self.plan.clone(),
        });
        true
    }
}

/// The plan that follows from the state of a bond, without what is prepared for the loss of a port.
pub(super) fn wanted(mode: &AnyMode, view: &View<'_>) -> ForwardingPlan {
    let device = view.device;
    let moving = mode.moving_macs(view.options);
    let forwarding = mode.forwarding(view);
    let port_plan = |port: &Port| PortPlan {
        mac: match moving {
            FailOverMac::None => device.mac,
            FailOverMac::Active | FailOverMac::Follow => port.own_mac,
        },
        mtu: device.mtu,
        promisc: device.promisc,
        allmulti: device.allmulti,
        accept: forwarding.accept.get(&port.id).copied().unwrap_or(Accept::Nothing),
        source: forwarding.source,
    };
    ForwardingPlan {
        carrier: forwarding.carrier,
        mac: device.mac,
        ports: view.ports.iter().map(|port| (port.id, port_plan(port))).collect(),
        tx: forwarding.tx,
        steer: forwarding.steer,
        rewrite: forwarding.rewrite,
        without_agent: forwarding.without_agent,
        if_lost: BTreeMap::new(),
    }
}

/// 10 ms, doubled up to about a second.
fn backoff(failures: u32) -> Duration {
    Duration::from_millis(10 << failures.min(7))
}

//! The part of the agent: does what the bond asks for, and answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use bond_modes::{Action, Epoch, Event, ForwardingPlan, Machine, PortId, Reach, TargetPath};
use bond_monitors::{ReceiveStamps, Time};

use super::{Sent, World};
use crate::sim::kernel::Nic;

impl World {
    pub(super) fn timers(&mut self) {
        let turn = self.now;
        self.bond.handle_timeout(turn);
        self.drain();
        let next = self.bond.poll_timeout();
        assert!(
            next.is_none_or(|next| next > turn),
            "a deadline at {next:?} is left after {turn}"
        );
    }

    /// Time passes for the network while a call of the agent blocks.
    fn block(&mut self, takes: Duration) {
        self.now = self.now + takes;
        self.held_up += takes;
        if self.printed {
            println!("{:>9} ms  the agent was held up for {takes:?}", self.ms(self.now));
        }
        self.pass();
    }

    pub(super) fn pass(&mut self) {
        let connected = self.connected();
        self.net.pass(self.now, &connected);
    }

    /// Does all that the bond asks for. That is one turn of the agent, which reads its clock at the beginning only.
    pub(super) fn drain(&mut self) {
        let turn = self.now;
        self.pass();
        let slow = self.slow.take();
        let operator = self.operator.take();
        let mut done = 0;
        loop {
            if let Some(slow) = slow.filter(|slow| slow.after == done) {
                self.block(slow.takes);
            }
            if let Some(set) = operator.filter(|set| set.after == done) {
                self.kernel.device.mac = set.mac;
            }
            let Some(action) = self.bond.poll_action() else { break };
            self.act(turn, action);
            done += 1;
        }
        if let Some(slow) = slow.filter(|slow| slow.after > done) {
            // What blocked came after all that this bond wanted.
            self.block(slow.takes);
        }
        if self.now > turn {
            self.bond.held_up(turn, self.now);
            self.deliver();
        }
        if let Some(set) = operator {
            if set.after > done {
                self.kernel.device.mac = set.mac;
            }
            // Its event is read in the next turn.
            self.bond_link();
        }
    }

    /// Programs a plan. Returns the event that reports a failure.
    fn program(&mut self, epoch: Epoch, plan: &ForwardingPlan) -> Option<Event> {
        let result = self.kernel.program(plan);
        self.programmed = result.is_ok();
        let failed = result.err()?;
        Some(Event::ProgramFailed {
            epoch,
            retry: failed.retry,
            mac: failed.mac_left,
        })
    }

    /// Puts back what another program changed.
    pub(super) fn put_back(&mut self) {
        self.kernel.refresh();
        let (epoch, plan) = (self.bond.epoch(), self.bond.plan().clone());
        if let Some(failed) = self.program(epoch, &plan) {
            self.feed(failed);
        }
    }

    fn act(&mut self, turn: Time, action: Action) {
        self.record(&action);
        let answer = match action {
            Action::Program { epoch, plan } => {
                let failed = self.program(epoch, &plan);
                self.plans.push((self.now, plan));
                failed
            }
            Action::Transmit { port, frame } => {
                let at = self.now;
                self.sent.push(Sent { at, port, frame });
                None
            }
            Action::Probe { port, frame } => {
                let (at, plugged) = (self.now, self.connected());
                self.net.probe(at, port, &plugged, &frame);
                self.probes.push(Sent { at, port, frame });
                None
            }
            Action::PollDevice => {
                self.looks += 1;
                Some(Event::BondLink {
                    report: self.kernel.device.clone(),
                })
            }
            Action::ReadReceiveStamps => Some(Event::ReceiveStamps { ports: self.stamps() }),
            Action::FindPaths { targets } => Some(Event::Paths {
                paths: targets.into_iter().map(|target| self.path(target)).collect(),
            }),
            Action::ReadHostsBehind => Some(Event::HostsBehind {
                hosts: self.hosts_behind.clone(),
            }),
            Action::ReportMemberships { port } => {
                self.rejoined.push((self.now, port));
                None
            }
            Action::PollCarriers { ports } => {
                self.polls += ports.len() as u64;
                let stack = self.bond.options().use_carrier;
                let carrier = |nic: &Nic| if stack { nic.report.carrier } else { nic.driver };
                let read = |port: PortId| Some((port, carrier(self.kernel.nics.get(&port)?)));
                Some(Event::CarriersPolled {
                    carriers: ports.into_iter().filter_map(read).collect(),
                })
            }
            Action::ReadCounters => Some(Event::Counters { ports: BTreeMap::new() }),
            Action::Notify(notice) => {
                self.notices.push((self.now, notice));
                None
            }
        };
        if let Some(event) = answer {
            self.bond.handle_event(turn, event);
        }
    }

    /// What is known of when ports were heard.
    fn stamps(&self) -> Vec<(PortId, ReceiveStamps)> {
        let attached = self.kernel.nics.values().filter(|nic| nic.attached).map(|nic| nic.id);
        let read = attached.filter(|port| !self.unread.contains(port));
        read.map(|port| (port, self.net.heard.get(&port).copied().unwrap_or_default()))
            .collect()
    }

    /// Ports with carrier, at which the switch may deliver.
    pub(super) fn connected(&self) -> Vec<PortId> {
        let attached = self
            .kernel
            .nics
            .values()
            .filter(|nic| nic.attached && nic.report.carrier.is_on());
        attached.map(|nic| nic.id).collect()
    }

    /// Targets are neighbours unless the test says otherwise.
    fn path(&self, target: IpAddr) -> TargetPath {
        let source = match target {
            IpAddr::V4(_) => IpAddr::from([10, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]),
        };
        let neighbour = Reach::Through {
            source: Some(source),
            tags: Vec::new(),
        };
        TargetPath {
            target,
            reach: self.routes.get(&target).cloned().unwrap_or(neighbour),
        }
    }

    fn record(&mut self, action: &Action) {
        self.trace.write_u64(self.now.as_nanos());
        match action {
            // The bulk of a long run.
            Action::PollCarriers { ports } => ports.iter().for_each(|port| self.trace.write_u32(port.0)),
            Action::Probe { port, .. } => self.trace.write_u32(port.0),
            Action::PollDevice | Action::ReadReceiveStamps => {}
            other => write!(HashText(&mut self.trace), "{other:?}").expect("hashing does not fail"),
        }
        if self.printed {
            println!("{:>9} ms  {action:?}", self.ms(self.now));
        }
    }
}

struct HashText<'a>(&'a mut DefaultHasher);

impl std::fmt::Write for HashText<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

//! Carries out the actions of the bond machines.

use std::mem;

use bond_modes::{Action, Epoch, Event, ForwardingPlan, Machine, Notice, PortId, Warning};
use bond_monitors::{Carrier, ReceiveStamps, Time};

use super::Instances;
use super::forwarder::Programmed;
use super::id::InstanceId;
use super::instance::Instance;
use super::logged_failures::Subject;
use super::polls::Pace;
use crate::dataplane::{Applied, Followed, PlaneBond, PlaneError};
use crate::netlink::mii;
use crate::text::chain;

impl Instances {
    /// Does what a bond wants done after an event that may have changed its state.
    pub(super) fn drain(&mut self, now: Time, at: InstanceId) {
        self.carry_out_actions(now, at);
        self.listen(at);
        let instance = &mut self.bonds[at];
        instance.touch();
        if instance.bond.next_poll().is_none() {
            // How long it was not polled is no pace.
            instance.pace = Pace::default();
        }
        instance.attempts.bond_changed(now, &instance.bond);
    }

    /// As [`Instances::drain`], after something that has changed no state.
    pub(super) fn carry_out_actions(&mut self, now: Time, at: InstanceId) {
        let mut frames = Vec::new();
        while let Some(action) = self.bonds[at].bond.poll_action() {
            // The saved state counts the announcements to come, which the files do not show.
            self.bonds[at].dirty |= matches!(
                action,
                Action::Program { .. } | Action::Transmit { .. } | Action::ReportMemberships { .. } | Action::Notify(_)
            );
            let answer = match action {
                Action::Transmit { port, frame } | Action::Probe { port, frame } => {
                    frames.push((port.0, frame));
                    continue;
                }
                Action::Program { epoch, plan } => {
                    let failed = match self.program(now, at, epoch, &plan) {
                        Progress::Done(failed) => failed,
                        Progress::Later => None,
                    };
                    // Another agent on this processor may have to move its traffic too, such as that of the cable's other end in
                    // another namespace; all else can wait for it. Programs of lower priority do not run. [sched_yield(2)]
                    std::thread::yield_now();
                    failed
                }
                Action::PollCarriers { ports } => {
                    let instance = &mut self.bonds[at];
                    instance.pace.polled(now, instance.bond.options().miimon);
                    self.polls.asked.push((at, ports));
                    None
                }
                Action::ReadCounters => self.counters_for_mode(at),
                Action::PollDevice => {
                    self.polls.devices.push(at);
                    None
                }
                Action::ReadReceiveStamps => Some(self.read_receive_stamps(at)),
                Action::FindPaths { targets } => self.find_paths(at, &targets),
                Action::ReadHostsBehind => {
                    self.hosts_behind.add(at);
                    None
                }
                Action::ReportMemberships { port } => {
                    self.reports.add((at, port));
                    None
                }
                Action::Notify(notice) => {
                    self.notify(at, notice);
                    None
                }
            };
            // In the order of the actions: frames after a change of plan are sent under the new plan.
            self.send(at, mem::take(&mut frames));
            if let Some(event) = answer {
                self.bonds[at].bond.handle_event(now, event);
            }
        }
        self.send(at, frames);
    }

    pub(super) fn send(&mut self, at: InstanceId, frames: Vec<(u32, Vec<u8>)>) {
        for (place, error) in self.packets.send_all(&frames) {
            let port = PortId(frames[place].0);
            log::debug!("{}: cannot send through {port}: {error}", self.bonds[at].name);
        }
    }

    /// An answer in any case: the bond waits for it.
    pub(super) fn read_receive_stamps(&mut self, at: InstanceId) -> Event {
        let instance = &mut self.bonds[at];
        let ports = instance.bond.ports().iter().filter_map(|port| {
            let heard = match &mut instance.traffic {
                Some(traffic) => traffic.heard(port.id),
                // Nothing else knows.
                None => Ok(ReceiveStamps::default()),
            };
            let heard = heard.map_err(|error| chain(&error));
            let doing = format!("read when {} last received a frame", port.name);
            let subject = Subject::Port(port.id);
            let heard = instance.failures.record(&instance.name, subject, &doing, heard);
            Some((port.id, heard?))
        });
        Event::ReceiveStamps { ports: ports.collect() }
    }

    /// Programs a plan, or its traffic now and the rest later.
    fn program(&mut self, now: Time, at: InstanceId, epoch: Epoch, plan: &ForwardingPlan) -> Progress {
        let instance = &mut self.bonds[at];
        instance.plane.set_plan(epoch, plan);
        let followed = instance.traffic.as_mut().map(|traffic| traffic.follow(plan));
        let applied = match followed {
            Some(Followed { applied, rest: false }) => applied,
            Some(_) if !self.changing => {
                self.program_later(at);
                return Progress::Later;
            }
            // Without a traffic of its own nothing moves before the plane has programmed it.
            _ => instance.plane.with(|plane| plane.program(plan)),
        };
        Progress::Done(self.programmed(now, at, epoch, &applied))
    }

    /// Records how a plan was done. Returns the event that reports a failure.
    fn programmed(&mut self, now: Time, at: InstanceId, epoch: Epoch, applied: &Applied) -> Option<Event> {
        let instance = &mut self.bonds[at];
        instance.unfulfilled.record(now, &instance.name, applied);
        if applied.is_complete() {
            return None;
        }
        Some(Event::ProgramFailed {
            epoch,
            retry: applied.may_pass(),
            mac: applied.mac_left(),
        })
    }

    /// Leaves the newest plan of a bond to the thread that waits for the kernel.
    fn program_later(&mut self, at: InstanceId) {
        let forwarder = self.bonds[at].plane.clone();
        if !forwarder.is_to_be_asked() {
            return;
        }
        self.threads.kernel.ask(move |_| {
            let programmed = forwarder.program();
            Box::new(move |instances, now| {
                if instances.bonds.get(at).is_none() {
                    return;
                }
                // The outcome of an older plan says nothing about the newest.
                if let Some(Programmed { epoch, applied }) = programmed
                    && epoch == instances.bonds[at].bond.epoch()
                    && let Some(failed) = instances.programmed(now, at, epoch, &applied)
                {
                    instances.feed(now, at, failed);
                }
                if instances.bonds[at].repair.ends_with_program() {
                    instances.repaired(at);
                }
                instances.follow_ability(now, at);
            })
        });
    }

    /// Leaves work with a bond's plane to the thread that waits for the kernel. It comes before anything that is done with the plane
    /// from now on.
    pub(super) fn leave_to_plane(&mut self, at: InstanceId, work: impl FnOnce(&mut dyn PlaneBond) + Send + 'static) {
        let forwarder = self.bonds[at].plane.clone();
        forwarder.leave(work);
        self.threads.kernel.ask(move |_| {
            forwarder.catch_up();
            Box::new(|_, _| {})
        });
    }

    /// Programs the plan in force once more, after another program changed something that it sets.
    pub(super) fn repair(&mut self, at: InstanceId) {
        self.bonds[at].repair.begin();
        let forwarder = self.bonds[at].plane.clone();
        self.threads.kernel.ask(move |_| {
            let refreshed = forwarder.refresh();
            Box::new(move |instances, now| instances.on_refreshed(now, at, refreshed))
        });
    }

    fn on_refreshed(&mut self, now: Time, at: InstanceId, refreshed: Result<(), PlaneError>) {
        let Some(instance) = self.bonds.get(at) else { return };
        if let Err(error) = refreshed {
            log::warn!("{}: {}", instance.name, chain(&error));
            return self.repaired(at);
        }
        let (epoch, plan) = (instance.bond.epoch(), instance.bond.plan().clone());
        match self.program(now, at, epoch, &plan) {
            Progress::Done(failed) => {
                if let Some(failed) = failed {
                    self.feed(now, at, failed);
                }
                self.repaired(at);
            }
            Progress::Later => self.bonds[at].repair.end_with_program(),
        }
    }

    /// A repair is over, if one ran. What was seen meanwhile may have been the state before it.
    fn repaired(&mut self, at: InstanceId) {
        for what in self.bonds[at].repair.end() {
            self.look_at(at, what);
        }
    }

    /// The carrier as `use_carrier=0` reads it. It counts as on if the driver reports none. [bond_main.c: bond_check_dev_link]
    pub(super) fn carrier_by_driver(
        &mut self,
        at: InstanceId,
        port: PortId,
        name: &str,
        carrier: Option<Carrier>,
    ) -> Option<Carrier> {
        let silent = &mut self.bonds[at].silent_drivers;
        let is_new = match carrier {
            None => silent.insert(port),
            Some(Carrier::On) => {
                silent.remove(&port);
                false
            }
            // An interface that is down says nothing about its driver.
            Some(Carrier::Off) => false,
        };
        if is_new {
            self.notify(at, Notice::warning(Warning::LinkUnknown { port: name.to_string() }));
        }
        carrier.or(Some(Carrier::On))
    }

    /// Asks the driver of a new port for the link that `use_carrier=0` needs: a bond that is down does not poll it.
    pub(super) fn try_driver(&mut self, at: InstanceId, port: PortId, name: &str) {
        let options = self.bonds[at].bond.options();
        if !options.use_carrier && !options.miimon.is_zero() {
            self.carrier_by_driver(at, port, name, mii::carrier_by_ioctl(name));
        }
    }
}

/// How far a plan is done.
enum Progress {
    /// The plane was asked; with the event that reports a failure.
    Done(Option<Event>),
    /// The rest is left to the thread that waits for the kernel.
    Later,
}

impl Instance {
    /// Whether nothing decides about the link of a port because its driver does not report one.
    pub(super) fn is_unmonitored(&self, port: PortId) -> bool {
        let options = self.bond.options();
        !options.use_carrier && !options.miimon.is_zero() && self.silent_drivers.contains(&port)
    }
}

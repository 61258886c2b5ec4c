//! Carries out the actions of the bond machines.

use std::collections::BTreeSet;
use std::mem;

use bond_modes::{Action, Epoch, Event, ForwardingPlan, Machine, Notice, PortId, Warning};
use bond_monitors::{Carrier, ReceiveStamps, Time};

use super::Instances;
use super::forwarder::Programmed;
use super::id::InstanceId;
use super::instance::Instance;
use super::logged_failures::Subject;
use super::looks::Look;
use super::polls::Pace;
use crate::dataplane::{Applied, Followed, PlaneBond, PlaneError, name_of};
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
        let mut programmed = None;
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
                Action::Program { .. } if programmed == Some(self.bonds[at].bond.epoch()) => continue,
                Action::Program { .. } => {
                    // Of several facts in a row only the last one's plan counts, also for the frames of the others.
                    let bond = &self.bonds[at].bond;
                    let (epoch, plan) = (bond.epoch(), bond.plan().clone());
                    programmed = Some(epoch);
                    let failed = self.program(now, at, epoch, &plan);
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
            let port = name_of(PortId(frames[place].0));
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

    /// Moves the traffic of a bond as a plan says, and notes whether anything is left to do. Returns the event that reports a failure.
    fn program(&mut self, now: Time, at: InstanceId, epoch: Epoch, plan: &ForwardingPlan) -> Option<Event> {
        let instance = &mut self.bonds[at];
        instance.plane.set_plan(epoch, plan);
        match instance.traffic.as_mut().map(|traffic| traffic.follow(plan)) {
            Some(Followed { applied, rest: false }) => {
                self.rests.remove(&at);
                self.programmed(now, at, epoch, &applied)
            }
            _ => {
                self.rests.insert(at);
                None
            }
        }
    }

    /// Records how a plan was done. Returns the event that reports a failure.
    fn programmed(&mut self, now: Time, at: InstanceId, epoch: Epoch, applied: &Applied) -> Option<Event> {
        let instance = &mut self.bonds[at];
        // They may be as this plan needs them, and were looked at by the one before.
        let doubtful = instance.unfulfilled.doubtful_ports();
        instance.unfulfilled.record(now, &instance.name, applied);
        for port in doubtful {
            self.look_at(at, Look::Port(port));
        }
        if applied.is_complete() {
            return None;
        }
        Some(Event::ProgramFailed {
            epoch,
            retry: applied.may_pass(),
            mac: applied.mac_left(),
        })
    }

    /// Leaves what is left of the plans of bonds to the thread that waits for the kernel. A change does that of the bond it is at work
    /// with.
    pub fn ask_rests(&mut self) {
        let left: BTreeSet<InstanceId> = self
            .underway
            .at_work
            .into_iter()
            .filter(|at| self.rests.contains(at))
            .collect();
        for at in mem::replace(&mut self.rests, left.clone()) {
            let Some(instance) = self.bonds.get(at).filter(|_| !left.contains(&at)) else {
                continue;
            };
            let forwarder = instance.plane.clone();
            if forwarder.is_to_be_asked() {
                // Looks at hundreds of interfaces may wait, and are made anew where a plan came before them.
                self.threads.kernel.ask_first(move |kernel| {
                    let programmed = forwarder.program(kernel);
                    Box::new(move |instances, now| instances.on_programmed(now, at, programmed))
                });
            }
        }
    }

    /// A plan was done whole; `None` if the bond was gone.
    pub(super) fn on_programmed(&mut self, now: Time, at: InstanceId, programmed: Option<Programmed>) {
        let Some(instance) = self.bonds.get(at) else { return };
        // The outcome of an older plan says nothing about the newest.
        if let Some(Programmed { epoch, applied }) = programmed
            && epoch == instance.bond.epoch()
            && let Some(failed) = self.programmed(now, at, epoch, &applied)
        {
            self.feed(now, at, failed);
        }
        if self.bonds[at].repair.ends_with_program() {
            self.repaired(at);
        }
        self.follow_ability(now, at);
    }

    /// Leaves work with a bond's plane to the thread that waits for the kernel. It comes before anything that is done with the plane
    /// from now on.
    pub(super) fn leave_to_plane(&mut self, at: InstanceId, work: impl FnOnce(&mut dyn PlaneBond) + Send + 'static) {
        let forwarder = self.bonds[at].plane.clone();
        forwarder.leave(work);
        self.when_free(at, move |instances| {
            instances.threads.kernel.ask(move |kernel| {
                forwarder.catch_up(kernel);
                Box::new(|_, _| {})
            });
        });
    }

    /// Programs the plan in force once more, after another program changed something that it sets.
    pub(super) fn repair(&mut self, at: InstanceId) {
        self.bonds[at].repair.begin();
        let forwarder = self.bonds[at].plane.clone();
        self.when_free(at, move |instances| {
            instances.threads.kernel.ask(move |kernel| {
                let refreshed = forwarder.refresh(kernel);
                Box::new(move |instances, now| instances.on_refreshed(now, at, refreshed))
            });
        });
    }

    fn on_refreshed(&mut self, now: Time, at: InstanceId, refreshed: Result<(), PlaneError>) {
        let Some(instance) = self.bonds.get(at) else { return };
        if let Err(error) = refreshed {
            log::warn!("{}: {}", instance.name, chain(&error));
            return self.repaired(at);
        }
        let (epoch, plan) = (instance.bond.epoch(), instance.bond.plan().clone());
        if let Some(failed) = self.program(now, at, epoch, &plan) {
            self.feed(now, at, failed);
        }
        match self.rests.contains(&at) {
            true => self.bonds[at].repair.end_with_program(),
            false => self.repaired(at),
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
}

impl Instance {
    /// Whether nothing decides about the link of a port because its driver does not report one.
    pub(super) fn is_unmonitored(&self, port: PortId) -> bool {
        let options = self.bond.options();
        !options.use_carrier && !options.miimon.is_zero() && self.silent_drivers.contains(&port)
    }
}

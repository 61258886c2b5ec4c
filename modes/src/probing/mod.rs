//! The ARP monitor over all ports of a bond: who is probed when, and what follows from answers and silence.
//! [bonding.rst: ARP monitor operation]
//!
//! A *tick* comes every `arp_interval`: it asks for what arrived, judges every port, lets the bond choose, and sends probes.
//! While answers are overdue there are *repeats* between two ticks.
//! How ports are judged and which of them are probed is up to the mode: where one port carries everything only that one is
//! probed, the others are believed while they hear it; elsewhere each port must get answers of its own.
//!
//! Neighbour solicitations for IPv6 targets follow the same rules.
//!
//! differs: frames that our own ports sent never count by themselves, so that a dead path is not kept alive by its
//! neighbours' probes; a lost carrier takes a port out at once; an overdue answer is asked for again within the interval, so
//! that a few lost frames are not taken for a dead path, and the verdict on it may fall then; a target that is not reached
//! through the bond does not count.

mod active_backup;
mod balance;
mod evidence;
mod paths;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bond_monitors::wire::arp::Request;
use bond_monitors::wire::nd::Solicitation;
use bond_monitors::{ArpMonitor, Debounce, Evidence, Heard, LinkState, Pause, Time, Trial};

use crate::action::{Action, Notice};
use crate::bond::{Bond, Wish};
use crate::event::TargetPath;
use crate::ids::PortId;
use crate::links::Inspection;
use crate::options::{ArpAllTargets, Monitor};
use crate::port::Port;

/// Where the monitor stands; a restart begins anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probing {
    /// When the next tick is due.
    pub next: Time,
    /// When the last one was.
    ticked: Time,
    /// What waits for what arrived.
    waiting: Option<Step>,
    /// When overdue answers are asked for again.
    again: Option<Time>,
    /// Without an active port: the port that is tried.
    candidate: Option<PortId>,
    /// How targets are reached; none until the agent has told.
    paths: Option<Vec<TargetPath>>,
    /// When that was last asked for.
    looked_up: Option<Time>,
}

/// What is done once it is known what arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Every port is judged, probes are sent.
    Tick,
    /// Between two ticks, while answers are overdue: ports in use are judged, so that a dead path need not wait for the tick, and
    /// those that are still overdue are probed again.
    Repeat,
}

/// What a look at a port leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Up,
    Down,
    /// Tried without success.
    Failed,
}

impl Bond {
    /// The ARP monitor runs. [bond_main.c: bond_open]
    pub(crate) fn probes(&self) -> bool {
        self.device.up && self.options.monitor() == Monitor::Arp && !self.ports.is_empty()
    }

    /// When the ARP monitor is to act.
    pub(crate) fn probe_timeout(&self) -> Option<Time> {
        let due = self.probing.again.into_iter().chain([self.probing.next]).min();
        due.filter(|_| self.probes())
    }

    /// Lets the time of the ARP monitor pass.
    pub(crate) fn handle_probe_timeout(&mut self, now: Time) {
        if !self.probes() {
            return;
        }
        // Woken too late, by whatever held the agent up.
        if let Some(late) = self.probe_timeout().and_then(|due| Pause::between(due, now)) {
            self.leave_out(late);
        }
        if now >= self.probing.next {
            self.begin_tick(now);
        } else if self.probing.again.is_some_and(|at| now >= at) {
            self.probing.again = None;
            self.ask_what_arrived(Step::Repeat);
        }
    }

    /// Begins to watch, or to watch in another way: what was known before says nothing.
    pub(crate) fn start_probing(&mut self, now: Time) {
        self.probing = Probing {
            next: now,
            ..Probing::default()
        };
        let window = self.options.window();
        for port in self.ports.iter_mut() {
            let usable = port.is_usable();
            port.arp = ArpMonitor::default();
            if self.options.monitor() == Monitor::Arp {
                port.arp = ArpMonitor::new(now, usable, window);
                port.debounce = Debounce::in_state(if usable { LinkState::Up } else { LinkState::Down });
            }
        }
    }

    /// Goes on at `first` after nobody looked for a while, which is not the ports' fault.
    pub(crate) fn resume_probing(&mut self, now: Time, first: Time) {
        self.probing.next = first;
        self.excuse(now);
        for port in self.ports.iter_mut() {
            if port.arp.trial() == Trial::Candidate {
                port.arp.set_trial(Trial::Failed);
            }
        }
    }

    /// Nobody could probe or read answers for a while: that time counts neither as silence nor as the time that a probe or a
    /// candidate has for its answer.
    pub(crate) fn leave_out(&mut self, pause: Pause) {
        let noticed = self.options.arp_interval / (2 * REPEATS);
        if self.options.monitor() != Monitor::Arp || pause.length() <= noticed {
            return;
        }
        let probing = &mut self.probing;
        probing.next = pause.postpone(probing.next);
        probing.again = probing.again.map(|at| pause.postpone(at));
        probing.ticked = pause.leave_out(probing.ticked);
        for port in self.ports.iter_mut() {
            port.arp.leave_out(pause);
        }
    }

    /// Nobody probed for a while, so the silence of the ports in use says nothing.
    fn excuse(&mut self, now: Time) {
        if self.options.monitor() != Monitor::Arp {
            return;
        }
        for port in self.ports.iter_mut().filter(|port| port.is_usable()) {
            port.arp.excuse(now);
        }
    }

    /// Asks for the facts of a tick; [`Bond::on_heard`] does the rest.
    fn begin_tick(&mut self, now: Time) {
        let interval = self.options.arp_interval;
        let regular = self.probing.next + interval;
        self.probing.next = if regular > now { regular } else { now + interval };
        self.probing.again = None;
        self.ask_for_paths(now);
        self.ask_what_arrived(Step::Tick);
    }

    fn ask_what_arrived(&mut self, step: Step) {
        self.probing.waiting = Some(step);
        self.out.push_back(Action::ReadHeard);
    }

    /// What arrived is known now. [bond_main.c: bond_activebackup_arp_mon, bond_loadbalance_arp_mon]
    pub(crate) fn on_heard(&mut self, now: Time, ports: &[(PortId, Heard)]) {
        let Some(step) = self.probing.waiting.take().filter(|_| self.probes()) else {
            return;
        };
        self.excuse_unread(now, ports);
        self.take_stamps(now, ports);
        // Before anybody was asked silence says nothing.
        let found = if self.probing.paths.is_none() || self.blind() {
            Inspection::default()
        } else {
            self.judge(now, step)
        };
        self.notices.extend(found.notices);
        let mut up = found.came_up.iter().filter_map(|id| self.ports.get(*id));
        let asked = up.any(|port| self.choice.wants_selection(&self.ports, port, &self.options));
        self.settle(now, if asked { Wish::Select } else { Wish::Nothing });
        match step {
            Step::Tick => self.probe(now),
            Step::Repeat => self.ask_again(now),
        }
    }

    fn judge(&mut self, now: Time, step: Step) -> Inspection {
        let single = self.mode().has_active();
        let verdict = |port: &Port| {
            let verdict = if single {
                self.verdict_active_backup(now, port)
            } else {
                self.verdict_balance(now, port)
            };
            verdict.map(|verdict| (port.id, verdict))
        };
        let judged = self.ports.iter().filter(|port| step == Step::Tick || port.is_usable());
        let verdicts: Vec<(PortId, Verdict)> = judged.filter_map(verdict).collect();
        let mut found = Inspection::default();
        for (id, verdict) in verdicts {
            self.commit(now, id, verdict, &mut found);
        }
        found
    }

    /// [bond_main.c: bond_ab_arp_commit, bond_loadbalance_arp_mon]
    fn commit(&mut self, now: Time, id: PortId, verdict: Verdict, found: &mut Inspection) {
        let active = self.choice.active;
        let Some(port) = self.ports.get(id) else { return };
        let (counts, silent_for) = (self.evidence(port), now.since(self.last_rx(port)));
        let Some(port) = self.ports.get_mut(id) else { return };
        match verdict {
            Verdict::Up => {
                port.debounce = Debounce::in_state(LinkState::Up);
                port.arp.set_trial(Trial::None);
                port.arp.used(now);
                found.up(port);
                self.probing.candidate = None;
            }
            Verdict::Down => {
                port.debounce = Debounce::in_state(LinkState::Down);
                found.notices.push(Notice::Silent {
                    port: port.name.clone(),
                    counts,
                    silent_for,
                });
                found.down(port);
                if active == Some(id) {
                    self.probing.candidate = None;
                }
            }
            Verdict::Failed => {
                port.arp.set_trial(Trial::Failed);
                if active.is_some() {
                    self.probing.candidate = None;
                }
            }
        }
    }

    /// Sends the probes of a tick.
    fn probe(&mut self, now: Time) {
        self.probing.ticked = now;
        let through = if self.mode().has_active() {
            self.choice
                .active
                .or_else(|| self.next_candidate(now))
                .into_iter()
                .collect()
        } else {
            self.running()
        };
        for id in &through {
            self.send_probes(*id);
            if let Some(port) = self.ports.get_mut(*id) {
                port.arp.sent(now);
            }
        }
        self.plan_repeat(now);
    }

    /// Probes that are overdue are repeated: a lost frame is not a dead path.
    fn ask_again(&mut self, now: Time) {
        for id in self.overdue() {
            self.send_probes(id);
        }
        self.plan_repeat(now);
    }

    fn plan_repeat(&mut self, now: Time) {
        let at = now + self.options.arp_interval / REPEATS;
        let in_time = at < self.probing.next && self.options.arp_interval >= SHORTEST_REPEATED;
        self.probing.again = (in_time && !self.overdue().is_empty()).then_some(at);
    }

    /// Ports in use that got no answer in the interval before the last tick.
    fn overdue(&self) -> Vec<PortId> {
        if self.blind() {
            return Vec::new();
        }
        let late = |port: &&Port| {
            port.is_usable()
                && self.is_active(port)
                && self.last_rx(port) + self.options.arp_interval < self.probing.ticked
        };
        self.ports.iter().filter(late).map(|port| port.id).collect()
    }

    /// Ports with carrier, in the order of attaching.
    fn running(&self) -> Vec<PortId> {
        let running = self.ports.iter().filter(|port| port.carrier().is_on());
        running.map(|port| port.id).collect()
    }

    /// One probe for each target that is reached through the bond. [bond_main.c: bond_arp_send_all, bond_ns_send_all]
    fn send_probes(&mut self, id: PortId) {
        let Some(mac) = self.plan.ports.get(&id).map(|port| port.mac) else {
            return;
        };
        let frames = self.paths_through().map(|(target, source, tags)| match target {
            IpAddr::V4(target) => {
                let source = match source {
                    Some(IpAddr::V4(ip)) => ip,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                Request::probe(mac, source, target).frame(tags)
            }
            IpAddr::V6(target) => {
                let source = match source {
                    Some(IpAddr::V6(ip)) => Some(ip),
                    _ => None,
                };
                Solicitation { source, mac, target }.frame(tags)
            }
        });
        let frames: Vec<Vec<u8>> = frames.collect();
        self.out
            .extend(frames.into_iter().map(|frame| Action::Probe { port: id, frame }));
    }

    /// Whether a port has the role that probes go through: the active one, the one that is tried, or any that is in use where
    /// all are. [bonding.h: bond_is_active_slave]
    pub(crate) fn is_active(&self, port: &Port) -> bool {
        if self.mode().has_active() {
            [self.choice.active, self.probing.candidate].contains(&Some(port.id))
        } else {
            port.is_usable()
        }
    }

    /// When a port last gave a sign of life that counts. [bonding.h: slave_last_rx]
    ///
    /// differs: "all targets" is not asked of a port in use whose answers are not validated in its role.
    pub(crate) fn last_rx(&self, port: &Port) -> Time {
        let all = self.mode().has_active()
            && self.options.arp_all_targets == ArpAllTargets::All
            && (self.evidence(port) == Evidence::Validated || !port.is_usable());
        let oldest = all.then(|| port.arp.oldest(self.paths_through().map(|(target, _, _)| target)));
        oldest.flatten().unwrap_or(port.arp.last_rx())
    }

    pub(crate) fn evidence(&self, port: &Port) -> Evidence {
        self.options.arp_validate.evidence(self.is_active(port))
    }

    /// Without carrier nothing can answer. A bond that cannot probe has nothing else to go by.
    pub(crate) fn inspect_carrier(&mut self, now: Time) -> Inspection {
        let mut found = Inspection::default();
        let blind = self.blind();
        for port in self.ports.iter_mut() {
            if port.is_usable() && !port.carrier().is_on() {
                port.debounce = Debounce::in_state(LinkState::Down);
                found.down(port);
            } else if blind && !port.is_usable() && port.carrier().is_on() {
                port.debounce = Debounce::in_state(LinkState::Up);
                port.arp.excuse(now);
                port.arp.set_trial(Trial::None);
                found.up(port);
            }
        }
        let dead = |id: &PortId| self.ports.get(*id).is_none_or(|port| !port.carrier().is_on());
        if let Some(id) = self.probing.candidate.filter(dead) {
            self.probing.candidate = None;
            if let Some(port) = self.ports.get_mut(id) {
                port.arp.set_trial(Trial::Failed);
            }
        }
        found
    }
}

/// An overdue answer is asked for so many times an interval, the tick's probe included.
const REPEATS: u32 = 4;

/// Below this nothing is repeated: ticks come fast enough.
const SHORTEST_REPEATED: Duration = Duration::from_millis(20);

//! The ARP monitor over all ports of a bond: times of probes, and conclusions from answers and silence.
//! [bonding.rst: ARP monitor operation]
//!
//! A *tick* comes every `arp_interval`: it reads the stamps, judges every port, lets the bond choose, and sends probes.
//! While answers are overdue there are *repeats* between two ticks.
//! The mode decides which ports are probed. If one port carries all traffic, only that one is probed, and the others count as
//! up while they hear it; else each port must get answers itself.
//!
//! Neighbour solicitations for IPv6 targets follow the same rules.
//!
//! differs: frames that our own ports sent never count by themselves, so that a dead path is not kept alive by its
//! neighbours' probes; a lost carrier takes a port out at once; an overdue answer is asked for again within the interval, so
//! that a few lost frames are not taken for a dead path, and the verdict on it may fall then; a target that is not reached
//! through the bond does not count.

mod candidates;
mod evidence;
mod paths;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bond_monitors::classic::{self, Outcome, Rule, Standing};
use bond_monitors::{ArpMonitor, FrameKinds, LinkState, Pause, ReceiveStamps, SignOfLife, Time, Trial, WantedFrames};

use crate::action::{Action, Notice};
use crate::delays::Inspection;
use crate::event::{LocalAddress, TargetPath};
use crate::ids::PortId;
use crate::options::{ArpAllTargets, BondOptions};
use crate::outbox::Outbox;
use crate::plan::ForwardingPlan;
use crate::port::{Port, Ports, give_monitors};
use crate::roles::Roles;

/// State of the monitor; it begins anew after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probing {
    /// When the next tick is due.
    next: Time,
    /// When the last one was.
    ticked: Time,
    /// The step after the stamps of the ports have been read.
    waiting: Option<Step>,
    /// When overdue answers are asked for again.
    again: Option<Time>,
    /// When the stamps were last asked for.
    asked: Time,
    /// When probes were sent at the last ticks, oldest first; pauses do not move these times.
    rounds: VecDeque<Time>,
    /// Without an active port: the port that is tried.
    candidate: Option<PortId>,
    /// Ways to targets; `None` until the agent has looked them up.
    paths: Option<Vec<TargetPath>>,
    /// Time of the last request for them.
    looked_up: Option<Time>,
}

/// Data of the bond for the monitor.
#[derive(Clone, Copy)]
pub(crate) struct ProbeContext<'a> {
    pub options: &'a BondOptions,
    /// Which ports carry the traffic.
    pub roles: Roles,
    pub plan: &'a ForwardingPlan,
    /// Addresses that live on the bond or above it.
    pub addresses: &'a [LocalAddress],
    /// The bond's interface is up.
    pub up: bool,
}

/// The step after the stamps have been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Every port is judged, probes are sent.
    Tick,
    /// Between two ticks, while answers are overdue: ports in use are judged, so that a dead path need not wait for the tick, and
    /// those that are still overdue are probed again.
    Repeat,
}

impl Probing {
    /// The ARP monitor runs. [bond_main.c: bond_open]
    pub fn runs(&self, ports: &Ports, context: &ProbeContext<'_>) -> bool {
        context.up && context.options.asks_targets() && !ports.is_empty()
    }

    /// Frames that it needs: those that may be evidence, see [`Probing::on_frame`].
    pub fn wants(&self, ports: &Ports, context: &ProbeContext<'_>) -> WantedFrames {
        if !self.runs(ports, context) {
            return WantedFrames::default();
        }
        let kind = |target: IpAddr| match target {
            IpAddr::V4(_) => FrameKinds::ARP,
            IpAddr::V6(_) => FrameKinds::IPV6,
        };
        let kinds = context.options.targets().map(kind);
        WantedFrames {
            kinds: kinds.fold(FrameKinds::NONE, |all, kind| all | kind),
            arp_between: (ipv4(context.options.targets()), ipv4(self.ours(context))),
        }
    }

    /// When the ARP monitor is due.
    pub fn poll_timeout(&self, ports: &Ports, context: &ProbeContext<'_>) -> Option<Time> {
        let due = self.again.into_iter().chain([self.next]).min();
        due.filter(|_| self.runs(ports, context))
    }

    /// Lets the time of the ARP monitor pass.
    pub fn handle_timeout(&mut self, now: Time, ports: &mut Ports, context: &ProbeContext<'_>, out: &mut Outbox) {
        if !self.runs(ports, context) {
            return;
        }
        // The agent was held up and woke too late.
        let due = self.poll_timeout(ports, context);
        if let Some(late) = due.and_then(|due| Pause::between(due, now)) {
            self.leave_out(late, ports, context);
        }
        if now >= self.next {
            self.begin_tick(now, ports, context, out);
        } else if self.again.is_some_and(|at| now >= at) {
            self.again = None;
            self.ask_what_arrived(now, Step::Repeat, out);
        }
    }

    /// Handles the length of a turn of the agent. Probes of this turn may have left only at its end. The time after the next
    /// deadline is handled by [`Probing::handle_timeout`].
    pub fn held_up(&mut self, turn: Pause, ports: &mut Ports, context: &ProbeContext<'_>) {
        let due = self.poll_timeout(ports, context);
        let late = turn.after(self.asked);
        if let Some(late) = late.zip(due).and_then(|(late, due)| late.before(due)) {
            self.leave_out(late, ports, context);
        }
    }

    /// Starts the monitor, or starts it anew with other options: earlier evidence does not count.
    pub fn start(&mut self, now: Time, ports: &mut Ports, context: &ProbeContext<'_>) {
        *self = Probing {
            next: now,
            ..Probing::default()
        };
        let window = context.options.window();
        for port in ports.iter_mut() {
            let usable = port.is_usable();
            if context.options.asks_targets() {
                // It knows no delays: one that runs ends at once.
                let state = if usable { LinkState::Up } else { LinkState::Down };
                port.health.assume(now, state);
            }
            give_monitors(&mut port.health, now, context.options, || {
                ArpMonitor::new(now, usable, window)
            });
        }
    }

    /// Resumes at `first` after a pause, which does not count as the ports' silence.
    pub fn resume(&mut self, now: Time, first: Time, ports: &mut Ports, context: &ProbeContext<'_>) {
        self.next = first;
        restart_grace(now, ports, context);
        for port in ports.iter_mut() {
            if port.trial() == Trial::Candidate {
                port.set_trial(Trial::Failed);
            }
        }
    }

    /// A port has become the active one. [bond_main.c: bond_change_active_slave]
    pub fn became_active(&mut self, now: Time, port: PortId, ports: &mut Ports, context: &ProbeContext<'_>) {
        if context.options.asks_targets()
            && let Some(arp) = ports.get_mut(port).and_then(Port::arp_mut)
        {
            arp.became_active(now);
        }
    }

    /// Handles a pause in which probes could not leave or answers could not be read: it does not count as silence. It does not
    /// move the next tick, because an agent that is always busy would never probe. It does not count for a port that did not
    /// answer several rounds of probes, because such an agent would never find a dead path.
    fn leave_out(&mut self, pause: Pause, ports: &mut Ports, context: &ProbeContext<'_>) {
        let noticed = context.options.arp_interval / (2 * REPEATS);
        if !context.options.asks_targets() || pause.length() <= noticed {
            return;
        }
        let enough = rounds_of_silence(context.options);
        let unless_before = self.rounds.iter().rev().nth(enough - 1).copied().unwrap_or(Time::ZERO);
        for arp in ports.iter_mut().filter_map(Port::arp_mut) {
            arp.leave_out(pause, unless_before);
        }
        self.ticked = pause.leave_out(self.ticked);
    }

    /// Asks for the facts of a tick; [`Probing::on_stamps`] continues.
    fn begin_tick(&mut self, now: Time, ports: &mut Ports, context: &ProbeContext<'_>, out: &mut Outbox) {
        let interval = context.options.arp_interval;
        let regular = self.next + interval;
        self.next = if regular > now { regular } else { now + interval };
        self.again = None;
        self.ask_for_paths(now, ports, context, out);
        self.ask_what_arrived(now, Step::Tick, out);
    }

    fn ask_what_arrived(&mut self, now: Time, step: Step, out: &mut Outbox) {
        self.asked = now;
        self.waiting = Some(step);
        out.act(Action::ReadReceiveStamps);
    }

    /// Judges the ports by the stamps. Returns the step after the bond's choice, and the ports whose link came up.
    /// [bond_main.c: bond_activebackup_arp_mon, bond_loadbalance_arp_mon]
    pub fn on_stamps(
        &mut self,
        now: Time,
        heard: &[(PortId, ReceiveStamps)],
        ports: &mut Ports,
        context: &ProbeContext<'_>,
        out: &mut Outbox,
    ) -> Option<(Step, Vec<PortId>)> {
        let step = self.waiting.take().filter(|_| self.runs(ports, context))?;
        self.restart_grace_of_unread(now, heard, ports, context);
        self.take_stamps(now, heard, ports, context);
        // Before the first question silence is no evidence.
        let found = if self.paths.is_none() || self.has_no_target(context.options) {
            Inspection::default()
        } else {
            self.judge(now, step, ports, context)
        };
        for notice in found.notices {
            out.notify(notice);
        }
        Some((step, found.came_up))
    }

    /// Continues after the bond's choice: sends the probes of a tick, or repeats those that are overdue.
    pub fn after_choice(
        &mut self,
        now: Time,
        step: Step,
        ports: &mut Ports,
        context: &ProbeContext<'_>,
        out: &mut Outbox,
    ) {
        match step {
            Step::Tick => self.probe(now, ports, context, out),
            Step::Repeat => self.ask_again(now, ports, context, out),
        }
    }

    fn judge(&mut self, now: Time, step: Step, ports: &mut Ports, context: &ProbeContext<'_>) -> Inspection {
        let judged = ports.iter().filter(|port| step == Step::Tick || port.is_usable());
        let outcomes = judged.filter_map(|port| Some((port.id, self.outcome(now, port, context)?)));
        let outcomes: Vec<(PortId, Outcome)> = outcomes.collect();
        let mut found = Inspection::default();
        for (id, outcome) in outcomes {
            self.commit(now, id, outcome, ports, context, &mut found);
        }
        found
    }

    fn outcome(&self, now: Time, port: &Port, context: &ProbeContext<'_>) -> Option<Outcome> {
        let rule = Rule {
            window: context.options.window(),
            missed: context.options.arp_missed_max.into(),
        };
        let standing = Standing {
            port: port.arp()?,
            last_rx: self.last_rx(port, context),
            usable: port.is_usable(),
            carrier: port.carrier(),
        };
        if context.roles.is_one() {
            let (probed, trying) = (self.is_active(port, context), self.candidate.is_some());
            rule.judge_one_active(now, &standing, probed, trying)
        } else {
            rule.judge_each(now, &standing)
        }
    }

    /// [bond_main.c: bond_ab_arp_commit, bond_loadbalance_arp_mon]
    fn commit(
        &mut self,
        now: Time,
        id: PortId,
        outcome: Outcome,
        ports: &mut Ports,
        context: &ProbeContext<'_>,
        found: &mut Inspection,
    ) {
        let active = context.roles.active();
        let Some(port) = ports.get(id) else { return };
        let (counts, silent_for) = (self.counts(port, context), now.since(self.last_rx(port, context)));
        let Some(port) = ports.get_mut(id) else { return };
        let Some(arp) = port.arp_mut() else { return };
        match outcome {
            Outcome::Up => {
                arp.judged(true);
                arp.set_trial(Trial::None);
                arp.became_active(now);
                self.candidate = None;
            }
            Outcome::Down => {
                arp.judged(false);
                found.notices.push(Notice::Silent {
                    port: port.name.clone(),
                    counts,
                    silent_for,
                });
                if active == Some(id) {
                    self.candidate = None;
                }
            }
            Outcome::Failed => {
                arp.set_trial(Trial::Failed);
                if active.is_some() {
                    self.candidate = None;
                }
            }
        }
        found.judge(now, port, context.options);
    }

    /// Sends the probes of a tick.
    fn probe(&mut self, now: Time, ports: &mut Ports, context: &ProbeContext<'_>, out: &mut Outbox) {
        self.ticked = now;
        if self.paths_through().next().is_some() {
            self.rounds.push_back(now);
            let old = self.rounds.len().saturating_sub(rounds_of_silence(context.options));
            self.rounds.drain(..old);
        }
        let through = if context.roles.is_one() {
            context
                .roles
                .active()
                .or_else(|| self.next_candidate(now, ports))
                .into_iter()
                .collect()
        } else {
            running(ports)
        };
        for id in &through {
            self.send_probes(*id, context, out);
            if let Some(arp) = ports.get_mut(*id).and_then(Port::arp_mut) {
                arp.sent(now);
            }
        }
        self.plan_repeat(now, ports, context);
    }

    /// Probes that are overdue are repeated: a lost frame is not a dead path.
    fn ask_again(&mut self, now: Time, ports: &Ports, context: &ProbeContext<'_>, out: &mut Outbox) {
        for id in self.overdue(ports, context) {
            self.send_probes(id, context, out);
        }
        self.plan_repeat(now, ports, context);
    }

    fn plan_repeat(&mut self, now: Time, ports: &Ports, context: &ProbeContext<'_>) {
        let at = now + context.options.arp_interval / REPEATS;
        let in_time = at < self.next && context.options.arp_interval >= SHORTEST_REPEATED;
        self.again = (in_time && !self.overdue(ports, context).is_empty()).then_some(at);
    }

    /// Ports in use that got no answer in the interval before the last tick.
    fn overdue(&self, ports: &Ports, context: &ProbeContext<'_>) -> Vec<PortId> {
        if self.has_no_target(context.options) {
            return Vec::new();
        }
        let late = |port: &&Port| {
            port.is_usable()
                && self.is_active(port, context)
                && self.last_rx(port, context) + context.options.arp_interval < self.ticked
        };
        ports.iter().filter(late).map(|port| port.id).collect()
    }

    /// One probe for each target that is reached through the bond. [bond_main.c: bond_arp_send_all, bond_ns_send_all]
    fn send_probes(&mut self, id: PortId, context: &ProbeContext<'_>, out: &mut Outbox) {
        let Some(mac) = context.plan.ports.get(&id).map(|port| port.mac) else {
            return;
        };
        let asked = self.paths_through();
        let frames = asked.map(|(target, source, tags)| classic::probe(mac, source, target, tags));
        let frames: Vec<Vec<u8>> = frames.collect();
        for frame in frames {
            out.act(Action::Probe { port: id, frame });
        }
    }

    /// Whether a port is probed: the active one, the one that is tried, or in modes that spread traffic any port in use.
    /// [bonding.h: bond_is_active_slave]
    pub fn is_active(&self, port: &Port, context: &ProbeContext<'_>) -> bool {
        if context.roles.is_one() {
            [context.roles.active(), self.candidate].contains(&Some(port.id))
        } else {
            port.is_usable()
        }
    }

    /// When a port last gave a sign of life that counts. [bonding.h: slave_last_rx]
    ///
    /// differs: "all targets" does not apply to a port in use whose answers are not validated in its role.
    fn last_rx(&self, port: &Port, context: &ProbeContext<'_>) -> Time {
        let all = context.roles.is_one()
            && context.options.arp_all_targets == ArpAllTargets::All
            && (self.counts(port, context) == SignOfLife::Validated || !port.is_usable());
        let Some(arp) = port.arp() else { return Time::ZERO };
        let oldest = all.then(|| arp.oldest(self.paths_through().map(|(target, _, _)| target)));
        oldest.flatten().unwrap_or(arp.last_rx())
    }

    /// Frames that count on a port in its role.
    pub fn counts(&self, port: &Port, context: &ProbeContext<'_>) -> SignOfLife {
        context.options.arp_validate.counts(self.is_active(port, context))
    }

    /// Judges every port by its carrier and its last evidence. Without carrier no answer can arrive; while no target can be
    /// asked, ports follow their carrier.
    pub fn inspect(&mut self, now: Time, ports: &mut Ports, context: &ProbeContext<'_>) -> Inspection {
        let mut found = Inspection::default();
        let has_no_target = self.has_no_target(context.options);
        for port in ports.iter_mut() {
            let usable = port.is_usable();
            if let Some(arp) = port.arp_mut() {
                arp.can_judge(!has_no_target, usable);
            }
            found.judge(now, port, context.options);
            if !usable
                && port.is_usable()
                && let Some(arp) = port.arp_mut()
            {
                arp.restart_grace(now);
                arp.set_trial(Trial::None);
            }
        }
        let dead = |id: &PortId| ports.get(*id).is_none_or(|port| !port.carrier().is_on());
        if let Some(id) = self.candidate.filter(dead) {
            self.candidate = None;
            if let Some(port) = ports.get_mut(id) {
                port.set_trial(Trial::Failed);
            }
        }
        found
    }
}

/// Restarts the time of ports in use for an answer, because there were no probes for a while.
fn restart_grace(now: Time, ports: &mut Ports, context: &ProbeContext<'_>) {
    if !context.options.asks_targets() {
        return;
    }
    for port in ports.iter_mut().filter(|port| port.is_usable()) {
        if let Some(arp) = port.arp_mut() {
            arp.restart_grace(now);
        }
    }
}

/// Rounds of probes without an answer after which pauses count as silence. A backup port may miss one more than
/// `arp_missed_max`; the answers to the last two may be unread, because probes leave at the end of a long turn and their answers
/// are read at the beginning of a later one.
fn rounds_of_silence(options: &BondOptions) -> usize {
    usize::from(options.arp_missed_max) + 3
}

/// Ports with carrier, in the order of attaching.
fn running(ports: &Ports) -> Vec<PortId> {
    let running = ports.iter().filter(|port| port.carrier().is_on());
    running.map(|port| port.id).collect()
}

/// Questions per interval while an answer is overdue, the tick's probe included.
const REPEATS: u32 = 4;

/// Shorter intervals have no repetition, because ticks come fast enough.
const SHORTEST_REPEATED: Duration = Duration::from_millis(20);

/// Those of them that are IPv4, each once.
fn ipv4(addresses: impl Iterator<Item = IpAddr>) -> Vec<Ipv4Addr> {
    let ipv4 = addresses.filter_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    ipv4.collect::<BTreeSet<_>>().into_iter().collect()
}

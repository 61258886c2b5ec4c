//! The bond machine: ports, their links and the choice among them, as one value.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bond_monitors::{Carrier, LinkReport, LinkState, MacAddr, Pause, Time};

use crate::action::{Action, Notice, SwitchReason};
use crate::choice::Choice;
use crate::device::{Device, MacOrigin};
use crate::event::{Event, LocalAddress};
use crate::ids::{Epoch, PortId};
use crate::links;
use crate::mode::{self, Mode, View};
use crate::notify::{Learning, Rounds};
use crate::options::{BondOptions, Change, FailOverMac, Monitor};
use crate::plan::{ForwardingPlan, PortPlan, TxPolicy};
use crate::port::{Port, PortFacts, Ports};
use crate::probing::Probing;
use crate::select;

/// One bond. Feed it [`Event`]s, time and wishes; drain [`Bond::poll_action`] after each; call [`Bond::handle_timeout`] when
/// [`Bond::poll_timeout`] says so.
#[derive(Clone, Debug)]
pub struct Bond {
    pub(crate) options: BondOptions,
    pub(crate) device: Device,
    pub(crate) ports: Ports,
    pub(crate) choice: Choice,
    pub(crate) notifier: Rounds,
    pub(crate) rejoin: Rounds,
    pub(crate) learning: Learning,
    pub(crate) probing: Probing,
    /// None until the agent has told: a round that is due right after a restart waits for them.
    pub(crate) addresses: Option<Vec<LocalAddress>>,
    pub(crate) next_poll: Time,
    next_look: Time,
    pub(crate) plan: ForwardingPlan,
    epoch: Epoch,
    retry: Retry,
    pub(crate) notices: Vec<Notice>,
    pub(crate) out: VecDeque<Action>,
}

/// When a plan that failed is tried again.
#[derive(Clone, Copy, Debug, Default)]
struct Retry {
    at: Option<Time>,
    failures: u32,
}

impl Bond {
    /// A bond without ports on an interface that was just made.
    pub fn new(now: Time, change: Change, device: &LinkReport) -> Self {
        let device = Device::new(device, MacOrigin::Random);
        let plan = ForwardingPlan {
            carrier: Carrier::Off,
            mac: device.mac,
            ports: BTreeMap::new(),
            spread: mode::of(change.options.mode).spread(),
            tx: TxPolicy::Drop,
            queues: BTreeMap::new(),
            rx: BTreeMap::new(),
        };
        let mut bond = Bond::assemble(now, change.options, device, plan);
        bond.notices
            .extend(change.warnings.into_iter().map(|text| Notice::Warning { text }));
        bond.warn_if_unmonitored();
        bond.settle(now, Wish::Nothing);
        bond
    }

    pub(crate) fn assemble(now: Time, options: BondOptions, device: Device, plan: ForwardingPlan) -> Self {
        Bond {
            options,
            device,
            ports: Ports::default(),
            choice: Choice::default(),
            notifier: Rounds::default(),
            rejoin: Rounds::default(),
            learning: Learning::default(),
            probing: Probing::default(),
            addresses: None,
            next_poll: now,
            next_look: now,
            plan,
            epoch: Epoch::default(),
            retry: Retry::default(),
            notices: Vec::new(),
            out: VecDeque::new(),
        }
    }

    /// Takes a fact in.
    pub fn handle_event(&mut self, now: Time, event: Event) {
        let wish = match event {
            Event::PortAttached { port, facts } => self.on_attached(now, port, facts),
            Event::PortDetached { port, gone } => self.on_detached(now, port, gone),
            Event::Link { port, report } => self.on_link(port, report),
            Event::BondLink { report } => self.on_bond_link(now, &report),
            Event::Addresses { addresses } => {
                self.addresses = Some(addresses);
                self.forget_paths();
                Wish::Nothing
            }
            Event::Stations { stations } => {
                self.learning.fill(now, stations);
                Wish::Nothing
            }
            Event::Paths { paths } => {
                self.on_paths(now, paths);
                Wish::Nothing
            }
            Event::Heard { ports } => {
                self.on_heard(now, &ports);
                Wish::Nothing
            }
            // Counts at the next tick; until then nothing follows from it, and there may be many.
            Event::Frame { port, frame } => return self.on_frame(now, port, &frame),
            Event::MiiPolled { port, carrier } => {
                if let Some(port) = self.ports.get_mut(port) {
                    port.monitor.report(carrier);
                }
                Wish::Nothing
            }
            Event::ProgramFailed { epoch, retry, mac } => {
                if epoch == self.epoch {
                    self.device.doubt(mac);
                    if retry {
                        self.retry.at = Some(now + backoff(self.retry.failures));
                        self.retry.failures = self.retry.failures.saturating_add(1);
                    }
                }
                Wish::Nothing
            }
        };
        self.settle(now, wish);
    }

    /// Lets time pass. A call before the time is harmless.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.polls() && now >= self.next_poll {
            self.poll(now);
        }
        self.handle_probe_timeout(now);
        self.settle(now, Wish::Nothing);
    }

    /// Tells how long the agent took for what it was last asked to do, whichever bond asked for it: from `since`, the time of that
    /// input, to `until`. No port is blamed for what could not be asked or read meanwhile, and nothing that is to come at intervals
    /// comes in a bunch.
    pub fn held_up(&mut self, since: Time, until: Time) {
        let Some(pause) = Pause::between(since, until) else {
            return;
        };
        self.leave_out(pause);
        self.postpone_announcements(pause);
        self.choice.postpone(pause);
    }

    fn poll(&mut self, now: Time) {
        if self.next_poll >= self.next_look {
            self.next_look = self.next_poll + LOOK;
            self.out.push_back(Action::PollDevice);
        }
        self.out
            .extend(self.ports.iter().map(|port| Action::PollMii { port: port.id }));
        let regular = self.next_poll + self.options.miimon;
        self.next_poll = if regular > now {
            regular
        } else {
            now + self.options.miimon
        };
    }

    /// Polls no sooner than that: the last ones took so long that more would leave no time for anything else.
    pub fn hold_polls(&mut self, until: Time) {
        self.next_poll = self.next_poll.max(until);
    }

    /// The next thing to do; drain to `None` after every input.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.out.pop_front()
    }

    /// When `handle_timeout` is to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        let poll = self.polls().then_some(self.next_poll);
        let delays = self
            .ports
            .iter()
            .filter(|_| self.watches())
            .filter_map(|port| port.link().deadline());
        let rest = [
            poll,
            self.probe_timeout(),
            self.choice.poll_timeout(),
            self.announce_timeout(),
        ];
        delays.chain(rest.into_iter().flatten()).chain(self.retry.at).min()
    }

    /// Options in force.
    pub fn options(&self) -> &BondOptions {
        &self.options
    }

    /// Attached ports.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The plan in force or being brought about.
    pub fn plan(&self) -> &ForwardingPlan {
        &self.plan
    }

    /// Number of that plan.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The port that carries everything, in the mode that has one.
    pub fn active(&self) -> Option<PortId> {
        self.choice.active.filter(|_| self.mode().has_active())
    }

    /// Whether a port carries traffic: the active one, or every usable one in modes that spread it.
    pub fn carries(&self, port: PortId) -> bool {
        if self.mode().has_active() {
            self.choice.active == Some(port)
        } else {
            self.ports.get(port).is_some_and(Port::is_usable)
        }
    }

    /// Whether [`Event::Frame`]s are wanted: the ARP monitor runs and has somebody to ask.
    pub fn listens(&self) -> bool {
        self.probes() && self.options.targets().next().is_some()
    }

    /// The address that the bond's interface was left with by a plan that failed.
    pub fn unwanted_mac(&self) -> Option<MacAddr> {
        self.device.unwanted_mac
    }

    /// MTU of the bond's interface in bytes.
    pub fn mtu(&self) -> u32 {
        self.device.mtu
    }

    fn on_attached(&mut self, now: Time, id: PortId, facts: PortFacts) -> Wish {
        if self.ports.get(id).is_some() {
            return Wish::Nothing;
        }
        let own = self.mac_for_new_port(facts.permanent_mac);
        let mut port = Port::new(now, id, facts, &self.options);
        if self.options.moving_macs() == FailOverMac::Follow {
            port.own_mac = own.unwrap_or(port.own_mac);
        }
        if self.ports.is_empty() {
            self.device.take_mac_of_first(port.permanent_mac);
        }
        let link_up = port.link() != LinkState::Down;
        let usable = port.is_usable();
        let name = port.name.clone();
        if self.options.primary.as_ref() == Some(&name) {
            self.choice.force_primary = true;
        }
        let asks = port.link() == LinkState::Up && self.choice.wants_selection(&self.ports, &port, &self.options);
        self.ports.push(port);
        self.notices.push(Notice::Attached {
            port: name,
            // Without any usable port updelay is skipped, but only by a bond that watches.
            active: !self.mode().has_active() || self.choice.active.is_none() && (usable || link_up && self.watches()),
            link_up,
        });
        if asks { Wish::Select } else { Wish::Nothing }
    }

    pub(crate) fn on_detached(&mut self, now: Time, id: PortId, gone: bool) -> Wish {
        let was_active = self.choice.active == Some(id);
        if was_active {
            // Chosen while the old one is still known, so that addresses move and the reason can name it.
            if self.watches() && self.options.monitor() == Monitor::Mii {
                let active = self.active();
                let skipped = links::skip_updelay(now, &mut self.ports, active, Some(id));
                self.notices.extend(skipped.into_iter().flat_map(|found| found.notices));
            }
            let mut rest = self.ports.clone();
            rest.remove(id);
            let best = select::best(&rest, None, self.choice.preference(&self.options));
            self.switch(now, best, SwitchReason::PortGone);
            self.choice.forced(&self.ports, &self.options);
        }
        self.choice.forget(id);
        let Some(port) = self.ports.remove(id) else {
            return Wish::Nothing;
        };
        self.notices.push(Notice::Detached {
            port: port.name.clone(),
            was_active,
        });
        if self.ports.is_empty() {
            self.device.give_mac_back();
        } else if !gone && port.permanent_mac == self.device.mac && self.options.moving_macs() != FailOverMac::Active {
            self.notices.push(Notice::MacStillInUse {
                port: port.name,
                mac: port.permanent_mac,
            });
        }
        Wish::Nothing
    }

    pub(crate) fn on_link(&mut self, id: PortId, report: LinkReport) -> Wish {
        let use_carrier = self.options.use_carrier;
        let Some(port) = self.ports.get_mut(id) else {
            return Wish::Nothing;
        };
        if report.admin_up {
            // With carrier or without, the driver believes what the interface says now; it does not ask one that is set down.
            // [bond_main.c: bond_slave_netdev_event]
            (port.speed, port.duplex) = (report.speed, report.duplex);
        }
        if use_carrier {
            port.monitor.report(report.carrier);
        } else {
            self.out.push_back(Action::PollMii { port: id });
        }
        if port.name == report.name {
            return Wish::Nothing;
        }
        // The primary goes by name. [bond_main.c: bond_slave_netdev_event, NETDEV_CHANGENAME]
        let names = [std::mem::replace(&mut port.name, report.name.clone()), report.name];
        if self
            .options
            .primary
            .as_ref()
            .is_some_and(|primary| names.contains(primary))
        {
            Wish::Select
        } else {
            Wish::Nothing
        }
    }

    /// Link states freeze while the bond is down. [bond_main.c: bond_close]
    pub(crate) fn watches(&self) -> bool {
        self.device.up && self.options.monitor() != Monitor::None
    }

    fn polls(&self) -> bool {
        self.device.up && self.options.monitor() == Monitor::Mii && !self.ports.is_empty()
    }

    /// Draws all conclusions from what just changed. Ends every input.
    pub(crate) fn settle(&mut self, now: Time, wish: Wish) {
        let mut asked = false;
        if self.watches() {
            let active = self.active();
            let found = match self.options.monitor() {
                Monitor::Arp => self.inspect_carrier(now),
                _ => links::inspect(now, &mut self.ports, active, &self.options),
            };
            self.notices.extend(found.notices);
            let mut up = found.came_up.iter().filter_map(|id| self.ports.get(*id));
            asked = up.any(|port| self.choice.wants_selection(&self.ports, port, &self.options));
        }
        let active = self.choice.active.and_then(|id| self.ports.get(id));
        let must = if active.is_some() {
            !active.is_some_and(Port::is_usable)
        } else {
            self.ports.iter().any(Port::is_usable)
        };
        let wish = if wish == Wish::Nothing && (asked || must) {
            Wish::Select
        } else {
            wish
        };
        self.choose(now, wish);
        self.choice.expire(now);
        self.publish_plan(now);
        self.announce(now);
        self.out.extend(self.notices.drain(..).map(Action::Notify));
        #[cfg(debug_assertions)]
        self.check();
    }

    fn choose(&mut self, now: Time, wish: Wish) {
        let current = match wish {
            Wish::Nothing => return,
            // [bond_options.c: bond_option_active_slave_set, empty value]
            Wish::ChooseAgain => None,
            Wish::Select => self.choice.active,
        };
        let prefer = self.choice.preference(&self.options);
        let best = select::best(&self.ports, current, prefer);
        let reason = match (wish, best) {
            (Wish::ChooseAgain, _) => SwitchReason::Manual,
            (_, Some(new)) => select::reason(&self.ports, current, new, prefer),
            (_, None) => SwitchReason::LinkDown,
        };
        self.switch(now, best, reason);
        self.choice.forced(&self.ports, &self.options);
    }

    /// [bond_main.c: bond_change_active_slave]
    pub(crate) fn switch(&mut self, now: Time, to: Option<PortId>, reason: SwitchReason) {
        let from = self.choice.active;
        if from == to {
            return;
        }
        if let Some(port) = to.and_then(|id| self.ports.get_mut(id))
            && self.options.monitor() == Monitor::Arp
        {
            port.arp.used(now);
        }
        if !self.mode().has_active() {
            self.choice.active = to;
            self.announce_move(now);
            return;
        }
        self.move_macs(from, to);
        self.choice.switch(now, &self.ports, to);
        let name = |id: Option<PortId>| id.and_then(|id| self.ports.name(id));
        self.notices.push(Notice::ActiveChanged {
            from: name(from),
            to: name(to),
            reason,
        });
        self.announce_move(now);
    }

    pub(crate) fn mode(&self) -> &'static dyn Mode {
        mode::of(self.options.mode)
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            ports: &self.ports,
            choice: &self.choice,
            options: &self.options,
        }
    }

    fn wanted_plan(&self) -> ForwardingPlan {
        let (mode, view) = (self.mode(), self.view());
        let port_plan = |port: &Port| PortPlan {
            mac: match self.options.moving_macs() {
                FailOverMac::None => self.device.mac,
                FailOverMac::Active | FailOverMac::Follow => port.own_mac,
            },
            mtu: self.device.mtu,
            promisc: self.device.promisc,
            allmulti: self.device.allmulti,
        };
        ForwardingPlan {
            // differs: a port in downdelay is in use, so it keeps the carrier on; the driver drops it at once.
            carrier: Carrier::from_bool(self.ports.iter().any(Port::is_usable)),
            mac: self.device.mac,
            ports: self.ports.iter().map(|port| (port.id, port_plan(port))).collect(),
            spread: mode.spread(),
            tx: mode.tx(&view),
            queues: mode.queues(&view),
            rx: mode.rx(&view),
        }
    }

    /// A plan that differs is tried at once, one that failed when its time has come.
    fn publish_plan(&mut self, now: Time) {
        let plan = self.wanted_plan();
        if plan != self.plan {
            self.retry = Retry::default();
        } else if self.retry.at.is_some_and(|at| now >= at) {
            self.retry.at = None;
        } else {
            return;
        }
        if plan.carrier != self.plan.carrier {
            self.notices.push(Notice::Carrier { carrier: plan.carrier });
        }
        self.plan = plan.clone();
        self.epoch.0 += 1;
        self.device.doubt(None);
        self.out.push_back(Action::Program {
            epoch: self.epoch,
            plan,
        });
    }

    /// What always holds between two inputs.
    #[cfg(debug_assertions)]
    fn check(&self) {
        let active = self.choice.active.map(|id| self.ports.get(id));
        assert!(active != Some(None), "the active port is attached");
        let usable = self.ports.iter().any(Port::is_usable);
        assert_eq!(
            active.is_some(),
            usable,
            "there is an active port exactly while one is usable"
        );
        assert!(
            active.flatten().is_none_or(Port::is_usable),
            "the active port is usable"
        );
        assert!(
            self.choice
                .left
                .is_none_or(|left| self.choice.active != Some(left.port)),
            "the active port was not left"
        );
        assert_eq!(self.plan, self.wanted_plan(), "the plan in force is the wanted one");
    }
}

/// What the choice of the active port is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Leave it.
    Nothing,
    /// Choose by the rules.
    Select,
    /// Choose by the rules as if none were active.
    ChooseAgain,
}

/// The bond's own interface is looked at this often at most: a look is only the net below its events.
const LOOK: Duration = Duration::from_millis(100);

/// 10 ms, doubled up to about a second.
fn backoff(failures: u32) -> Duration {
    Duration::from_millis(10 << failures.min(7))
}

//! The bond: its parts, and the routing of facts to them.
//!
//! The rules are in the parts: delays and `Probing` judge links, the mode selects the ports that send and accept, the
//! `Announcer` sends announcements, and the `Planner` publishes plans.

mod adopt;
mod announce;
mod configure;
pub(crate) mod device;
mod failover;
mod membership;
mod planner;
mod polling;
mod polls;
mod route;
mod saved;
mod status;
mod unmonitored;

pub use self::adopt::AdoptedState;
pub use self::failover::NoFailover;
pub use self::saved::Saved;

use bond_monitors::{FrameKinds, LinkReport, MacAddr, Time, WantedFrames};

use self::announce::Announcer;
use self::device::{Device, MacOrigin};
use self::planner::Planner;
use self::polls::Polls;
use self::unmonitored::Unmonitored;
use crate::action::Notice;
use crate::delays::{self, Ends};
use crate::ids::{Epoch, PortId};
use crate::mode::{AnyMode, Change, View};
use crate::options::{self, BondOptions, FailOverMac};
use crate::outbox::{AddressMove, Outbox};
use crate::plan::ForwardingPlan;
use crate::port::Ports;
use crate::probing::{ProbeContext, Probing};

/// One bond. Feed it [`Event`](crate::Event)s, time and option sets, drain its actions after each, and let time pass when it asks for
/// that: see [`Machine`](crate::Machine).
#[derive(Clone, Debug)]
pub struct Bond {
    options: BondOptions,
    device: Device,
    ports: Ports,
    mode: AnyMode,
    polls: Polls,
    probing: Probing,
    announcer: Announcer,
    /// The last reported value of [`Bond::unmonitored`].
    reported_unmonitored: Option<Unmonitored>,
    /// The data plane can move the traffic by itself when a port loses its carrier.
    plane_fails_over: bool,
    planner: Planner,
    out: Outbox,
}

impl Bond {
    /// A bond without ports on an interface that was just made.
    pub fn new(now: Time, change: options::Change, device: &LinkReport) -> Self {
        let mode = AnyMode::new(change.options.mode);
        let device = Device::new(device, MacOrigin::Random);
        let plan = planner::wanted(&mode, &View::new(&Ports::default(), &change.options, &device));
        let mut bond = Bond::assemble(now, change.options, device, mode, plan);
        for about in change.warnings {
            bond.out.notify(Notice::warning(about));
        }
        bond.report_unmonitored();
        bond.conclude(now, Vec::new());
        bond
    }

    fn assemble(now: Time, options: BondOptions, device: Device, mode: AnyMode, plan: ForwardingPlan) -> Self {
        Bond {
            options,
            device,
            ports: Ports::default(),
            mode,
            polls: Polls::new(now),
            probing: Probing::default(),
            announcer: Announcer::default(),
            reported_unmonitored: None,
            plane_fails_over: false,
            planner: Planner::new(plan),
            out: Outbox::default(),
        }
    }

    /// Whether its own interface is administratively up, as far as it was told.
    pub fn is_up(&self) -> bool {
        self.device.up
    }

    /// Options in force.
    pub fn options(&self) -> &BondOptions {
        &self.options
    }

    /// Attached ports.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The plan in force or being programmed.
    pub fn plan(&self) -> &ForwardingPlan {
        self.planner.plan()
    }

    /// Number of that plan.
    pub fn epoch(&self) -> Epoch {
        self.planner.epoch()
    }

    /// The active port, in modes that have one.
    pub fn active(&self) -> Option<PortId> {
        self.mode.roles().active()
    }

    /// Whether the mode has an active port.
    pub fn has_active(&self) -> bool {
        self.mode.roles().is_one()
    }

    /// Whether a port carries traffic: the active one, or every usable one in modes that spread it.
    pub fn carries(&self, port: PortId) -> bool {
        self.ports.get(port).is_some_and(|port| self.mode.roles().carries(port))
    }

    /// Frames that are wanted as [`Event::Frame`](crate::Event::Frame), from every port.
    pub fn wants(&self) -> WantedFrames {
        let monitors = self.ports.iter().map(|port| port.health.wants());
        let others = monitors.fold(self.mode.wants(), |all, kinds| all | kinds);
        let probing = self.probing.wants(&self.ports, &self.probe_context());
        let kinds = others | probing.kinds;
        match others.meets(FrameKinds::ARP) {
            true => kinds.into(),
            false => WantedFrames { kinds, ..probing },
        }
    }

    /// How addresses move between the bond and its ports.
    pub fn moving_macs(&self) -> FailOverMac {
        self.mode.moving_macs(&self.options)
    }

    /// The address for a port before it is attached; `None` if it keeps its own. [bond_main.c: bond_enslave]
    pub fn mac_for_new_port(&self, own: MacAddr) -> Option<MacAddr> {
        self.mode.mac_for_new_port(own, &self.view())
    }

    /// Whether another program gave the bond's interface this address: neither the plan nor a failed plan, which is retried, did.
    pub fn is_foreign_mac(&self, mac: MacAddr) -> bool {
        mac != self.plan().mac && self.device.unwanted_mac != Some(mac)
    }

    /// MTU of the bond's interface in bytes.
    pub fn mtu(&self) -> u32 {
        self.device.mtu
    }

    fn polls(&self) -> bool {
        self.device.up && self.options.polls_carrier() && !self.ports.is_empty()
    }

    fn view(&self) -> View<'_> {
        View::new(&self.ports, &self.options, &self.device)
    }

    /// Data of the bond for the ARP monitor.
    fn probe_context(&self) -> ProbeContext<'_> {
        probe_context(&self.options, &self.device, &self.mode, &self.announcer, &self.planner)
    }

    /// Runs a part of the ARP monitor, which may change its data about ports, and send.
    fn probe<T>(&mut self, run: impl FnOnce(&mut Probing, &mut Ports, &ProbeContext<'_>, &mut Outbox) -> T) -> T {
        let context = probe_context(&self.options, &self.device, &self.mode, &self.announcer, &self.planner);
        run(&mut self.probing, &mut self.ports, &context, &mut self.out)
    }

    /// Runs a part of the mode, then applies its results: moves addresses, and starts or stops announcements.
    fn run_mode(&mut self, now: Time, run: impl FnOnce(&mut AnyMode, &View<'_>, &mut Outbox)) {
        let (active, speaker) = (self.active(), self.mode.speaker());
        let view = View::new(&self.ports, &self.options, &self.device);
        run(&mut self.mode, &view, &mut self.out);
        self.move_addresses();
        if let Some(port) = self.active().filter(|port| active != Some(*port)) {
            self.probe(|probing, ports, context, _| probing.became_active(now, port, ports, context));
        }
        if self.mode.speaker() == speaker {
            return;
        }
        if self.device.up && self.mode.speaker().is_some() {
            self.announcer.begin(now, self.mode.announces(), &self.options);
        } else {
            self.announcer.stop();
        }
    }

    fn notify_mode(&mut self, now: Time, change: Change<'_>) {
        self.run_mode(now, |mode, view, out| mode.on_change(now, &change, view, out));
    }

    fn move_addresses(&mut self) {
        for to in self.out.take_moves() {
            match to {
                AddressMove::Bond(mac) => self.device.mac = mac,
                AddressMove::Port(port, mac) => {
                    if let Some(port) = self.ports.get_mut(port) {
                        port.own_mac = mac;
                    }
                }
            }
        }
    }

    /// As [`Bond::conclude_ending`], without ending delays.
    fn conclude(&mut self, now: Time, came_up: Vec<PortId>) {
        self.conclude_ending(now, came_up, Ends::None);
    }

    /// Draws all conclusions from a change; the links of the ports in `came_up` came up by it. Ends every input.
    fn conclude_ending(&mut self, now: Time, mut came_up: Vec<PortId>, ends: Ends<'_>) {
        if self.view().watched {
            let active = self.active();
            let found = if self.options.asks_targets() {
                self.probe(|probing, ports, context, _| probing.inspect(now, ports, context))
            } else {
                delays::inspect(now, &mut self.ports, active, &self.options, ends)
            };
            self.report(found.notices);
            came_up.extend(found.came_up);
        }
        self.notify_mode(now, Change::Judged { came_up: &came_up });
        let wanted = self.wanted(now);
        if self.planner.publish(now, wanted, &mut self.out) {
            self.device.doubt(None);
        }
        if let Some(port) = self.mode.speaker().filter(|_| self.device.up) {
            self.announcer
                .run(now, port, self.device.mac, &self.options, &mut self.out);
        }
        self.out.close_input();
        if cfg!(debug_assertions) {
            self.check(now);
        }
    }

    fn report(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            self.out.notify(notice);
        }
    }

    /// Invariants between two inputs.
    fn check(&self, now: Time) {
        let view = self.view();
        self.mode.check(&view);
        let speaker = self.mode.speaker().map(|id| self.ports.get(id));
        assert!(speaker != Some(None), "the port that speaks for the bond is attached");
        assert_eq!(*self.plan(), self.wanted(now), "the plan in force is the wanted one");
    }
}

/// As [`Bond::probe_context`], from parts that leave the others free to change.
fn probe_context<'a>(
    options: &'a BondOptions,
    device: &Device,
    mode: &'a AnyMode,
    announcer: &'a Announcer,
    planner: &'a Planner,
) -> ProbeContext<'a> {
    ProbeContext {
        options,
        roles: mode.roles(),
        plan: planner.plan(),
        addresses: announcer.addresses(),
        up: device.up,
    }
}

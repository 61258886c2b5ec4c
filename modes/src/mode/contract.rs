//! The trait of modes: a machine inside the bond that selects the ports that send and accept frames, and decides about carrier.

use std::collections::BTreeMap;

use bond_monitors::{Carrier, FrameKinds, LinkState, MacAddr, Pause, Time};

use crate::bond::device::{Device, MacOrigin};
use crate::current::Lasting;
use crate::event::Counters;
use crate::ids::PortId;
use crate::options::{BondOptions, FailOverMac, OptionError, PortOptions};
use crate::outbox::Outbox;
use crate::plan::{Accept, Fallback, ForwardingPlan, Match, Rewrite, Source, Steer, Tx};
use crate::port::{Port, Ports};
use crate::roles::Roles;
use crate::status::ModeStatus;

/// One way to use the ports of a bond, with whatever state it needs.
///
/// The bond passes in facts and its own data ([`View`]); the mode keeps its state and derives [`Mode::forwarding`] from it. It
/// changes only itself: addresses to move, frames and notices leave through the [`Outbox`].
pub(crate) trait Mode {
    /// The driver's phrase for it, for the status files. [bond_main.c: bond_mode_name]
    fn title(&self) -> &'static str;

    /// Handles a change. [`Change::Judged`] ends every input.
    fn on_change(&mut self, now: Time, change: &Change<'_>, view: &View<'_>, out: &mut Outbox);

    /// Handles a frame of a kind that the mode wants, from any port.
    fn on_frame(&mut self, _now: Time, _port: PortId, _frame: &[u8], _view: &View<'_>, _out: &mut Outbox) {}

    /// Takes in what was counted at the ports, after it asked with [`Action::ReadCounters`](crate::Action::ReadCounters). Ports
    /// that could not be read are missing.
    fn on_counters(&mut self, _now: Time, _counters: &BTreeMap<PortId, Counters>, _view: &View<'_>, _out: &mut Outbox) {
    }

    /// Lets time pass. Called when [`Mode::poll_timeout`] says so.
    fn on_timeout(&mut self, _now: Time, _view: &View<'_>, _out: &mut Outbox) {}

    /// When [`Mode::on_timeout`] is to be called; later than `now` after each call.
    fn poll_timeout(&self) -> Option<Time> {
        None
    }

    /// Learns how long a turn of the agent took. Move only deadlines set in this turn; otherwise an always busy agent never reaches
    /// the others.
    fn held_up(&mut self, _turn: Pause) {}

    /// Kinds of frames that it needs.
    fn wants(&self) -> FrameKinds {
        FrameKinds::NONE
    }

    /// The wanted forwarding.
    fn forwarding(&self, view: &View<'_>) -> Forwarding;

    /// Ports in use, for the monitors.
    fn roles(&self) -> Roles {
        Roles::Every
    }

    /// Whether a port that joins is in use at once, as far as this is known before its link is judged. Without any usable port
    /// updelay is skipped, but only in a bond with a monitor.
    fn joins_in_use(&self, port: &Port, view: &View<'_>) -> bool {
        let is_awaited = view.watched && !view.ports.iter().any(Port::is_usable);
        port.is_usable() || is_awaited && port.link() != LinkState::Down
    }

    /// The port of this name, if the operator may make it the active one; else why not.
    /// [bond_options.c: bond_option_active_slave_set]
    fn manual_choice(&self, name: &str, _view: &View<'_>) -> Result<PortId, OptionError> {
        // The option tables refuse active_slave in modes without an active port.
        let (option, value) = ("active_slave", name.to_owned());
        Err(OptionError::NotAPort { option, value })
    }

    /// The port that sends the bond's own frames.
    fn speaker(&self) -> Option<PortId>;

    /// Announcements after another port begins to speak for the bond.
    fn announces(&self) -> Announces {
        Announces::default()
    }

    /// How addresses move between the bond and its ports.
    fn moving_macs(&self, _options: &BondOptions) -> FailOverMac {
        FailOverMac::None
    }

    /// The address for a port before it is attached; `None` if it keeps its own. [bond_main.c: bond_enslave]
    fn mac_for_new_port(&self, _own: MacAddr, view: &View<'_>) -> Option<MacAddr> {
        // The first port gives the bond its address, unless the bond has one.
        let gives = view.ports.is_empty() && view.device.mac_origin == MacOrigin::Random;
        (!gives).then_some(view.device.mac)
    }

    /// What the mode shows in addition to what every bond shows.
    fn status(&self, _now: Time, _view: &View<'_>) -> ModeStatus {
        ModeStatus::default()
    }

    /// The state for the next start.
    fn save(&self) -> ModeSaved;

    /// Continues from the saved state and from the forwarding in the kernel, which overrides it. Sends no announcements.
    fn adopt(&mut self, saved: &ModeSaved, plan: &ForwardingPlan, view: &View<'_>, out: &mut Outbox);

    /// Further invariants of the mode between two inputs.
    fn check(&self, _view: &View<'_>) {}
}

/// Data of the bond for the mode.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub ports: &'a Ports,
    pub options: &'a BondOptions,
    pub device: &'a Device,
    /// The links are judged: the bond is up and has a monitor.
    pub watched: bool,
}

/// A change.
#[derive(Clone, Debug)]
pub(crate) enum Change<'a> {
    /// A port joined.
    Joined(PortId),
    /// A port is about to leave; it is still among the ports.
    Leaving(PortId),
    /// A port has another name.
    Renamed { from: &'a str, to: &'a str },
    /// Options of the bond changed. `primary_given`: `primary` was among them; `reselect`: one that decides about the active port.
    Options { primary_given: bool, reselect: bool },
    /// Options of a port changed.
    PortOptions { port: PortId, before: PortOptions },
    /// The operator asks for this active port, or with none for a new choice.
    ActiveAsked(Option<PortId>),
    /// The links were judged, and those of these ports came up. Ends every input.
    Judged { came_up: &'a [PortId] },
}

/// The wanted forwarding of a mode; the rest of a plan is the same in every mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forwarding {
    /// Carrier of the bond's interface.
    pub carrier: Carrier,
    /// Where frames of the stack leave.
    pub tx: Tx,
    /// Frames accepted from each port; none from ports that are missing.
    pub accept: BTreeMap<PortId, Accept>,
    /// The source address of frames that leave through any port.
    pub source: Source,
    /// Frames that leave through a port of their own.
    pub steer: Vec<Steer>,
    /// Changes in frames of the stack.
    pub rewrite: Rewrite,
    /// Forwarding while the agent is away.
    pub without_agent: Option<Fallback>,
}

impl Forwarding {
    /// Sends like this, accepts all frames from every port, and does not change frames. [bond_main.c:
    /// bond_should_deliver_exact_match]
    pub fn new(tx: Tx, view: &View<'_>) -> Self {
        Forwarding {
            carrier: view.carrier(),
            tx,
            accept: view.ports.iter().map(|port| (port.id, Accept::All)).collect(),
            source: Source::AsSent,
            steer: Vec::new(),
            rewrite: Rewrite::default(),
            without_agent: None,
        }
    }
}

/// Announcements after another port has begun to speak for the bond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announces {
    /// Addresses on, above and behind the bond.
    pub addresses: bool,
    /// Multicast memberships.
    pub memberships: bool,
}

/// State of a mode for the next start. A mode always uses the same form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModeSaved {
    /// The port that speaks for the bond is all there is.
    Speaker(Option<PortId>),
    /// Of a mode with one active port.
    Current(Lasting),
    /// By names of the mode's own.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the modes so far need no more than the other forms")
    )]
    Named(BTreeMap<String, String>),
}

impl ModeSaved {
    /// The port that spoke for the bond.
    pub fn speaker(&self) -> Option<PortId> {
        match self {
            ModeSaved::Speaker(port) => *port,
            ModeSaved::Current(saved) => saved.active,
            ModeSaved::Named(_) => None,
        }
    }
}

impl<'a> View<'a> {
    /// Of the parts of a bond. Link states freeze while the bond is down. [bond_main.c: bond_close]
    pub fn new(ports: &'a Ports, options: &'a BondOptions, device: &'a Device) -> Self {
        View {
            ports,
            options,
            device,
            watched: device.up && options.watches_links(),
        }
    }

    /// Whether any port may carry traffic.
    ///
    /// differs: a port in downdelay is in use, so it keeps the carrier on; the driver drops it at once.
    pub fn carrier(&self) -> Carrier {
        Carrier::from_bool(self.ports.iter().any(Port::is_usable))
    }

    /// The ports that have a transmit queue of their own and can send. [bond_main.c: bond_slave_override]
    pub fn queues(&self) -> Vec<Steer> {
        let bound = |port: &&Port| port.options.queue_id != 0 && port.link() == LinkState::Up && port.carrier().is_on();
        let ports = self.ports.iter().filter(bound);
        let steer = |port: &Port| Steer {
            what: Match::Queue(port.options.queue_id),
            to: port.id,
        };
        let mut all: Vec<Steer> = ports.map(steer).collect();
        all.sort_by_key(|steer| match steer.what {
            Match::Queue(queue) => queue,
            Match::From(_) => u16::MAX,
        });
        all
    }

    /// Ports that may send in modes that spread traffic, in the order of attaching. [bonding.h: bond_slave_can_tx]
    ///
    /// differs: while no link is up, ports in downdelay go on sending; the driver drops everything.
    pub fn senders(&self) -> Vec<PortId> {
        let up = |port: &&Port| port.link() == LinkState::Up && port.carrier().is_on();
        let ids = |ports: Vec<&Port>| ports.into_iter().map(|port| port.id).collect::<Vec<_>>();
        let senders = ids(self.ports.iter().filter(up).collect());
        if senders.is_empty() {
            let going_down = |port: &&Port| matches!(port.link(), LinkState::GoingDown { .. });
            return ids(self.ports.iter().filter(going_down).collect());
        }
        senders
    }
}

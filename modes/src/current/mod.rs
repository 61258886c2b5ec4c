//! The active port of the modes that have one: its choice, and the addresses that move with it.
//! [bonding.h: curr_active_slave]

pub(crate) mod fail_over_mac;
mod select;

use std::time::Duration;

use bond_monitors::{LinkState, Pause, Time};

use self::select::Preference;
use crate::action::{Notice, SwitchReason};
use crate::bond::device::Device;
use crate::deadline::Deadline;
use crate::ids::PortId;
use crate::options::{BondOptions, FailOverMac, OptionError};
use crate::outbox::Outbox;
use crate::port::{Port, Ports};

/// The active port and the data for the next choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Current {
    /// Attached and usable.
    active: Option<PortId>,
    /// The operator has just named the primary.
    force_primary: bool,
    /// The former active port, while it may still get frames.
    left: Option<Left>,
    /// Request of this input.
    reselect: Reselect,
}

/// A port that was left although its link is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    port: PortId,
    /// When it becomes a plain backup port.
    until: Deadline,
}

/// Request of an input to the choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reselect {
    /// The active port stays as long as it is usable.
    #[default]
    No,
    /// Choose by the rules.
    ByRules,
    /// Choose by the rules as if no port were active.
    Anew,
}

/// Data for the choice.
#[derive(Clone, Copy)]
pub(crate) struct Situation<'a> {
    pub ports: &'a Ports,
    pub options: &'a BondOptions,
    pub device: &'a Device,
    /// How addresses move.
    pub moving: FailOverMac,
}

/// The part of [`Current`] that outlives the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lasting {
    pub active: Option<PortId>,
    /// The operator has just named the primary.
    pub force_primary: bool,
    /// The former active port, and until when it gets frames.
    pub left: Option<(PortId, Time)>,
}

impl Current {
    /// The saved state.
    pub fn new(saved: Lasting) -> Self {
        Current {
            active: saved.active,
            force_primary: saved.force_primary,
            left: saved.left.map(|(port, until)| Left {
                port,
                until: Deadline::at(until),
            }),
            reselect: Reselect::No,
        }
    }

    /// The state to save.
    pub fn save(&self) -> Lasting {
        Lasting {
            active: self.active,
            force_primary: self.force_primary,
            left: self.left.map(|left| (left.port, left.until.due())),
        }
    }

    /// The active port.
    pub fn active(&self) -> Option<PortId> {
        self.active
    }

    /// Whether this port was active a moment ago and may still get frames.
    pub fn was_just_left(&self, port: PortId) -> bool {
        self.left.is_some_and(|left| left.port == port)
    }

    /// When [`Current::conclude`] is to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.left.map(|left| left.until.due())
    }

    /// Handles the length of a turn: the traffic may have moved only at its end, so frames may come for that much longer.
    pub fn held_up(&mut self, turn: Pause) {
        if let Some(left) = &mut self.left {
            left.until.held_up(turn);
        }
    }

    /// The input ends with a choice by the rules.
    pub fn ask(&mut self) {
        if self.reselect == Reselect::No {
            self.reselect = Reselect::ByRules;
        }
    }

    /// The input ends with a choice as if no port were active. [bond_options.c: bond_option_active_slave_set, empty value]
    pub fn ask_anew(&mut self) {
        self.reselect = Reselect::Anew;
    }

    /// The next choice takes the primary, independent of `primary_reselect`.
    pub fn force_primary(&mut self, force: bool) {
        self.force_primary = force;
    }

    /// A port joined.
    pub fn joined(&mut self, port: PortId, now: &Situation<'_>) {
        let Some(port) = now.ports.get(port) else { return };
        if now.options.primary.as_ref() == Some(&port.name) {
            self.force_primary = true;
        }
        if port.link() == LinkState::Up && self.calls_for_choice(port, now) {
            self.ask();
        }
    }

    /// Handles a port before it leaves. If it is the active one, the next one is chosen now, while both are known, for moving
    /// addresses and for the reason.
    pub fn leaving(&mut self, time: Time, port: PortId, now: &Situation<'_>, out: &mut Outbox) {
        if self.active == Some(port) {
            let mut rest = now.ports.clone();
            rest.remove(port);
            let best = select::best(&rest, None, self.preference(now.options));
            self.switch(time, best, SwitchReason::PortGone, now, out);
            self.primary_taken(now);
        }
        self.active = self.active.filter(|id| *id != port);
        self.left = self.left.filter(|left| left.port != port);
    }

    /// The port of this name, if the operator may make it the active one; else why not.
    /// [bond_options.c: bond_option_active_slave_set]
    pub fn manual_choice(&self, name: &str, now: &Situation<'_>) -> Result<PortId, OptionError> {
        let (option, value) = ("active_slave", name.to_owned());
        let Some(port) = now.ports.named(name) else {
            return Err(OptionError::NotAPort { option, value });
        };
        // Without a monitor the operator decides.
        let seen_up = !now.options.watches_links() || port.carrier().is_on();
        if self.active == Some(port.id) || port.link() == LinkState::Up && seen_up {
            Ok(port.id)
        } else {
            Err(OptionError::PortDown { option, value })
        }
    }

    /// The operator's choice.
    pub fn take(&mut self, time: Time, port: PortId, now: &Situation<'_>, out: &mut Outbox) {
        self.switch(time, Some(port), SwitchReason::Manual, now, out);
    }

    /// Ends an input in which the links of these ports came up, and chooses if requested.
    pub fn conclude(&mut self, time: Time, came_up: &[PortId], now: &Situation<'_>, out: &mut Outbox) {
        let mut up = came_up.iter().filter_map(|id| now.ports.get(*id));
        let must = match self.active.and_then(|id| now.ports.get(id)) {
            Some(active) => !active.is_usable(),
            None => now.ports.iter().any(Port::is_usable),
        };
        if must || up.any(|port| self.calls_for_choice(port, now)) {
            self.ask();
        }
        self.choose(time, now, out);
        self.left = self.left.filter(|left| left.until.due() > time);
    }

    /// Takes over the port that forwards; it stays active while it has carrier.
    pub fn adopt(&mut self, forwards: Option<PortId>, now: &Situation<'_>, out: &mut Outbox) {
        let active = forwards.filter(|id| now.ports.get(*id).is_some());
        if active != self.active {
            // Saved before the last failover: the addresses have yet to follow.
            fail_over_mac::follow(now.moving, self.active, active, now.ports, now.device, out);
        }
        self.active = active;
        let may_stay =
            |left: &Left| now.ports.get(left.port).is_some() && active.is_some_and(|active| active != left.port);
        self.left = self.left.filter(may_stay);
    }

    /// Invariants between two inputs.
    pub fn check(&self, ports: &Ports) {
        let active = self.active.map(|id| ports.get(id));
        assert!(active != Some(None), "the active port is attached");
        assert_eq!(
            active.is_some(),
            ports.iter().any(Port::is_usable),
            "there is an active port exactly while one is usable"
        );
        assert!(
            active.flatten().is_none_or(Port::is_usable),
            "the active port is usable"
        );
        let left = self.left.map(|left| left.port);
        assert!(left.is_none() || left != self.active, "the active port was not left");
        assert_eq!(self.reselect, Reselect::No, "a choice that was asked for was made");
    }

    fn preference<'a>(&self, options: &'a BondOptions) -> Preference<'a> {
        Preference {
            primary: options.primary.as_deref(),
            reselect: options.primary_reselect,
            force_primary: self.force_primary,
        }
    }

    /// Whether a port whose link just came up calls for a choice. [bond_main.c: bond_miimon_commit]
    ///
    /// differs: the driver also chooses whenever a port is attached, which may move the active port without need.
    fn calls_for_choice(&self, port: &Port, now: &Situation<'_>) -> bool {
        let active = self.active.and_then(|id| now.ports.get(id));
        active.is_none_or(|active| {
            now.options.primary.as_ref() == Some(&port.name) || port.options.prio > active.options.prio
        })
    }

    fn choose(&mut self, time: Time, now: &Situation<'_>, out: &mut Outbox) {
        let asked = std::mem::take(&mut self.reselect);
        let current = match asked {
            Reselect::No => return,
            Reselect::ByRules => self.active,
            Reselect::Anew => None,
        };
        let prefer = self.preference(now.options);
        let best = select::best(now.ports, current, prefer);
        let reason = match (asked, best) {
            (Reselect::Anew, _) => SwitchReason::Manual,
            (_, Some(new)) => select::reason(now.ports, current, new, prefer),
            (_, None) => SwitchReason::LinkDown,
        };
        self.switch(time, best, reason, now, out);
        self.primary_taken(now);
    }

    /// A forced primary that is active needs no further choice.
    fn primary_taken(&mut self, now: &Situation<'_>) {
        let active = self.active.and_then(|id| now.ports.get(id));
        if active.is_some_and(|active| now.options.primary.as_ref() == Some(&active.name)) {
            self.force_primary = false;
        }
    }

    /// [bond_main.c: bond_change_active_slave]
    fn switch(&mut self, time: Time, to: Option<PortId>, reason: SwitchReason, now: &Situation<'_>, out: &mut Outbox) {
        let from = self.active;
        if from == to {
            return;
        }
        fail_over_mac::follow(now.moving, from, to, now.ports, now.device, out);
        let link_up = |id: &PortId| now.ports.get(*id).is_some_and(|port| port.link() == LinkState::Up);
        self.left = from.filter(|old| to.is_some() && link_up(old)).map(|port| Left {
            port,
            until: Deadline::after(time, LEFT_FOR),
        });
        self.active = to;
        let name = |id: Option<PortId>| id.and_then(|id| now.ports.name(id));
        out.notify(Notice::ActiveChanged {
            from: name(from),
            to: name(to),
            reason,
        });
    }
}

/// How long the former active port accepts frames: longer than the far end's monitor takes with usual settings.
const LEFT_FOR: Duration = Duration::from_secs(1);

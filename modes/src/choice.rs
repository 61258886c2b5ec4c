//! Which port is the current one. In active-backup it carries everything; in the other modes it only speaks for the bond where
//! one port must. [bonding.h: curr_active_slave]

use std::time::Duration;

use bond_monitors::{LinkState, Pause, Time};
use serde::{Deserialize, Serialize};

use crate::ids::PortId;
use crate::options::BondOptions;
use crate::port::{Port, Ports};
use crate::select::Preference;

/// The current port and what decides about the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Choice {
    /// The current port; attached and usable.
    pub active: Option<PortId>,
    /// The operator has just named the primary.
    pub force_primary: bool,
    /// The active port before this one, while it may still get frames.
    pub left: Option<Left>,
}

/// A port that was left although its link is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left {
    pub port: PortId,
    /// When it becomes a plain backup port.
    pub until: Time,
}

impl Choice {
    pub fn preference<'a>(&self, options: &'a BondOptions) -> Preference<'a> {
        Preference {
            primary: options.primary.as_deref(),
            reselect: options.primary_reselect,
            force_primary: self.force_primary,
        }
    }

    /// Whether a port whose link just came up asks for a selection. [bond_main.c: bond_miimon_commit]
    ///
    /// differs: the driver also selects whenever a port is attached, which may move the active port without need.
    pub fn wants_selection(&self, ports: &Ports, port: &Port, options: &BondOptions) -> bool {
        let active = self.active.and_then(|id| ports.get(id));
        active.is_none_or(|active| {
            options.primary.as_ref() == Some(&port.name) || port.options.prio > active.options.prio
        })
    }

    /// A primary that was forced and is active now has got what was asked for.
    pub fn forced(&mut self, ports: &Ports, options: &BondOptions) {
        let active = self.active.and_then(|id| ports.get(id));
        if active.is_some_and(|active| options.primary.as_ref() == Some(&active.name)) {
            self.force_primary = false;
        }
    }

    /// Moves the active role.
    pub fn switch(&mut self, now: Time, ports: &Ports, to: Option<PortId>) {
        self.left = self
            .active
            .filter(|old| to.is_some() && ports.get(*old).is_some_and(|port| port.link() == LinkState::Up))
            .map(|port| Left {
                port,
                until: now + LEFT_FOR,
            });
        self.active = to;
    }

    /// Forgets a port that leaves.
    pub fn forget(&mut self, port: PortId) {
        self.active = self.active.filter(|id| *id != port);
        self.left = self.left.filter(|left| left.port != port);
    }

    /// The traffic moved at the end of the pause at the latest, so frames may come that much longer.
    pub fn postpone(&mut self, pause: Pause) {
        if let Some(left) = &mut self.left {
            left.until = pause.postpone(left.until);
        }
    }

    /// Ends the grace time of the port that was left.
    pub fn expire(&mut self, now: Time) {
        self.left = self.left.filter(|left| left.until > now);
    }

    pub fn poll_timeout(&self) -> Option<Time> {
        self.left.map(|left| left.until)
    }
}

/// How long the port that was left lets frames in: longer than the far end's monitor takes with usual settings.
const LEFT_FOR: Duration = Duration::from_secs(1);

//! One bond and what the agent knows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bond_modes::{Bond, Machine, PortId};
use bond_monitors::{Carrier, MacAddr, Time};

use super::attempts::Attempts;
use super::forwarder::Forwarder;
use super::logged_failures::{LoggedFailures, Subject};
use super::looks::Repair;
use super::polls::Pace;
use super::rate_limit::RateLimit;
use super::shown::Shown;
use super::unfulfilled::Unfulfilled;
use crate::control::proto::OptionPairs;
use crate::dataplane::{OriginalPort, PlaneBond, PortCounters, Traffic};
use crate::origins::Origins;
use crate::status::Devices;
use crate::status::writer::Mark;

/// One bond and the agent's data about it.
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) ifindex: u32,
    /// Its forwarding, on the plane that it is on.
    pub(super) plane: Arc<Forwarder>,
    /// What moves its traffic without waiting for the kernel's locks, where the plane can do that.
    pub(super) traffic: Option<Box<dyn Traffic>>,
    pub(super) bond: Bond,
    pub(super) originals: BTreeMap<PortId, OriginalPort>,
    /// Original settings of ports that have disappeared, by name: a port that was moved to another namespace comes back with our
    /// settings.
    pub(super) vanished: BTreeMap<String, OriginalPort>,
    /// Original settings of interfaces that are no ports and have not got them back, or came back from another namespace without
    /// them. The present ones are ours, so the next attachment must not take them for the original ones.
    pub(super) unrestored: BTreeMap<PortId, OriginalPort>,
    /// Names of its ports, there or not, in the order asked for.
    pub(super) wanted: Vec<String>,
    /// The options of the files that were last followed; `None` if no file names the bond.
    pub(super) configured: Option<OptionPairs>,
    pub(super) origins: Origins,
    /// Failures that last, which the log has reported.
    pub(super) failures: LoggedFailures,
    /// What it has in the kernel could not be looked after.
    pub(super) unlooked: bool,
    /// Parts of its plan that could not be done.
    pub(super) unfulfilled: Unfulfilled,
    /// Last known state of its interface and its ports, for the files.
    pub(super) devices: Devices,
    /// Wanted ports that are there and could not be attached.
    pub(super) attempts: Attempts,
    /// Ports whose drivers report no link state.
    pub(super) silent_drivers: BTreeSet<PortId>,
    /// How often changes by others were put back lately.
    pub(super) repairs: RateLimit,
    /// Of what the guard put back: settings that others change do not use it up.
    pub(super) guard_repairs: RateLimit,
    /// Ports that have another address than the plan's, and that address: another program changed it, or the plan's could not be set.
    pub(super) other_macs: BTreeMap<PortId, MacAddr>,
    /// How often the log reported that lately, by port.
    pub(super) foreign_logged: BTreeMap<PortId, RateLimit>,
    /// How often IPv6 was switched off lately, because another program had switched it on, by port.
    pub(super) ipv6_repairs: BTreeMap<PortId, RateLimit>,
    pub(super) pace: Pace,
    /// What its ports had counted when that was asked last, where it has to be asked.
    pub(super) counted: BTreeMap<PortId, PortCounters>,
    /// Whether changes by others are being put back.
    pub(super) repair: Repair,
    /// Interfaces whose addresses are announced.
    pub(super) announced: Vec<u32>,
    /// The bond machine had an event since its files were compared with it.
    pub(super) touched: bool,
    /// The bond machine's state when the files were rendered last.
    pub(super) shown: Option<Shown>,
    /// Its status files may be out of date.
    pub(super) dirty: bool,
    /// Its state was left to the thread that writes files.
    pub(super) saving: Option<Mark>,
    /// Its state could not be saved.
    pub(super) unsaved: bool,
}

impl Instance {
    pub(super) fn new(name: String, ifindex: u32, plane: Box<dyn PlaneBond>, bond: Bond) -> Self {
        Instance {
            name,
            ifindex,
            traffic: plane.traffic(),
            plane: Arc::new(Forwarder::new(plane)),
            bond,
            originals: BTreeMap::new(),
            vanished: BTreeMap::new(),
            unrestored: BTreeMap::new(),
            wanted: Vec::new(),
            configured: None,
            origins: Origins::default(),
            failures: LoggedFailures::default(),
            unlooked: false,
            unfulfilled: Unfulfilled::default(),
            devices: Devices::new(),
            attempts: Attempts::default(),
            silent_drivers: BTreeSet::new(),
            repairs: RateLimit::default(),
            guard_repairs: RateLimit::default(),
            other_macs: BTreeMap::new(),
            foreign_logged: BTreeMap::new(),
            ipv6_repairs: BTreeMap::new(),
            pace: Pace::default(),
            counted: BTreeMap::new(),
            repair: Repair::default(),
            announced: Vec::new(),
            touched: true,
            shown: None,
            dirty: true,
            saving: None,
            unsaved: false,
        }
    }

    /// When it has something to do, besides attempts to attach ports.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let ipv6 = self.ipv6_repairs.values().filter_map(|limit| limit.pause_ends).min();
        let limits = [self.repairs.pause_ends, self.guard_repairs.pause_ends, ipv6];
        let due = limits.into_iter().chain([self.bond.poll_timeout()]);
        due.flatten().min()
    }

    /// The carrier of a port as it counts.
    pub(super) fn settled_carrier(&self, port: PortId, carrier: Carrier, in_service: bool) -> Carrier {
        let port = self.bond.ports().get(port);
        port.map_or(carrier, |port| port.settled_carrier(carrier, in_service))
    }

    /// Ports have other names now; `names` has the new ones by the old ones.
    pub(super) fn ports_renamed(&mut self, names: &BTreeMap<String, String>) {
        for name in &mut self.wanted {
            if let Some(new) = names.get(name) {
                name.clone_from(new);
            }
        }
        // A port may have got the name of an absent one.
        let mut seen = BTreeSet::new();
        self.wanted.retain(|name| seen.insert(name.clone()));
        self.origins.ports_renamed(names);
    }

    /// Whether this is the name of one of its ports, there or not.
    pub(super) fn wants(&self, port: &str) -> bool {
        self.wanted.iter().any(|name| name == port)
    }

    /// Forgets a port that is not to be attached any more; whether it was wanted.
    pub(super) fn forget_wanted(&mut self, port: &str) -> bool {
        let before = self.wanted.len();
        self.wanted.retain(|name| name != port);
        self.attempts.forget(port);
        self.failures.forget(&Subject::Wanted(port.to_owned()));
        self.vanished.remove(port);
        self.origins.operator_ports.remove(port);
        before != self.wanted.len()
    }
}

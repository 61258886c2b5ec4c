//! Wanted ports that cannot be attached: the reasons, and the times of the next attempts.
//!
//! An attachment that fails half-way is undone, and the kernel reports both as changes of the interface. They must not lead to
//! the next attempt, or there would be no end of it. So the next attempt is at once only if the interface or the bond is not as
//! the last one left it. After five of these in ten seconds it comes a second later. Without a change the pause before the next
//! attempt doubles with each failure.

use std::collections::BTreeMap;
use std::time::Duration;

use bond_modes::{Bond, BondOptions};
use bond_monitors::{MacAddr, Time};

use super::rate_limit::{Permit, RateLimit};
use crate::dataplane::PortBase;
use crate::netlink::Link;

/// The last attempt at each wanted port that is there and not attached, by name.
#[derive(Debug, Default)]
pub(super) struct Attempts(BTreeMap<String, Attempt>);

#[derive(Debug)]
struct Attempt {
    reason: String,
    /// How many attempts failed to which only the clock led.
    failures: u32,
    /// When the clock leads to the next one.
    retry: Time,
    /// When to look at the interface again because others changed it and the limit did not permit an attempt at once.
    soon: Option<Time>,
    /// The interface as the attempt left it; `None` if it could not be read.
    left: Option<Settings>,
    /// The bond as the attempt left it.
    terms: Terms,
    /// What it is left for, if that is that it stands on its own bond.
    circle: Option<Circle>,
    /// Attempts made at once because of changes by others.
    at_once: RateLimit,
}

/// What is known of what a port stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Circle {
    /// Its own bond is below it.
    Closed,
    /// Something has moved that was below it: the circle may be open, though interface and bond are as they were.
    Moved,
}

/// Properties of an interface that another program may change to make an attachment possible. Carrier is left out: it also
/// changes some time after the agent's own changes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    ifindex: u32,
    mac: MacAddr,
    mtu: u32,
    admin_up: bool,
    promisc: bool,
    allmulti: bool,
    alias: String,
    master: Option<u32>,
}

/// The properties of a bond on which an attachment depends. A change of them can make one possible.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Terms {
    options: BondOptions,
    base: PortBase,
    /// Whether the next port is the first one, which a bond may treat differently.
    is_first: bool,
}

impl Terms {
    /// Those for a port with this address.
    fn of(bond: &Bond, mac: MacAddr) -> Terms {
        Terms {
            options: bond.options().clone(),
            base: PortBase {
                mac: bond.mac_for_new_port(mac),
                mtu: bond.mtu(),
            },
            is_first: bond.ports().is_empty(),
        }
    }
}

impl Settings {
    fn of(link: &Link) -> Settings {
        Settings {
            ifindex: link.ifindex,
            mac: link.report.mac,
            mtu: link.report.mtu,
            admin_up: link.report.admin_up,
            promisc: link.promisc_flag,
            allmulti: link.allmulti_flag,
            alias: link.alias.clone(),
            master: link.master,
        }
    }
}

impl Attempts {
    /// Whether an interface that changed is to be tried now.
    pub(super) fn is_due(&mut self, now: Time, link: &Link) -> bool {
        let Some(attempt) = self.0.get_mut(&link.report.name) else {
            return true;
        };
        if now >= attempt.retry {
            return true;
        }
        if attempt.left_as(link) {
            return false;
        }
        if attempt.at_once.permit(now) == Permit::Given {
            return true;
        }
        // Further changes do not put it off.
        attempt.soon.get_or_insert(now + SOON);
        false
    }

    /// Makes attempts due whose bond has changed since they failed.
    pub(super) fn bond_changed(&mut self, now: Time, bond: &Bond) {
        for attempt in self.0.values_mut() {
            if attempt.terms != Terms::of(bond, attempt.mac()) {
                attempt.hurry(now);
            }
        }
    }

    /// The last attempt failed because the port stands on its own bond.
    pub(super) fn stands_on_its_bond(&mut self, port: &str) {
        if let Some(attempt) = self.0.get_mut(port) {
            attempt.circle = Some(Circle::Closed);
        }
    }

    /// Whether that is why this port is left.
    pub(super) fn is_circle(&self, port: &str) -> bool {
        self.0.get(port).is_some_and(|attempt| attempt.circle.is_some())
    }

    /// Whether there is such a port.
    pub(super) fn have_circles(&self) -> bool {
        self.0.values().any(|attempt| attempt.circle.is_some())
    }

    /// Makes attempts at such ports due: something that carries the bond's traffic has moved.
    pub(super) fn lower_moved(&mut self, now: Time) {
        for attempt in self.0.values_mut().filter(|attempt| attempt.circle.is_some()) {
            attempt.circle = Some(Circle::Moved);
            attempt.hurry(now);
        }
    }

    /// Whether an attempt that is due is still to be made: not if interface and bond are again as the last attempt left them.
    pub(super) fn is_still_due(&mut self, now: Time, name: &str, link: Option<&Link>, bond: &Bond) -> bool {
        let Some(attempt) = self.0.get_mut(name) else {
            return true;
        };
        attempt.soon = None;
        let has_moved = attempt.circle == Some(Circle::Moved);
        let bond_changed = attempt.terms != Terms::of(bond, attempt.mac());
        now >= attempt.retry || has_moved || bond_changed || link.is_none_or(|link| !attempt.left_as(link))
    }

    /// An attempt to attach an interface of this name failed. `link` is the interface as it is now, if it can be read.
    pub(super) fn failed(&mut self, now: Time, name: &str, link: Option<&Link>, bond: &Bond, reason: String) {
        let left = link.map(Settings::of);
        let terms = Terms::of(bond, mac_of(left.as_ref()));
        match self.0.get_mut(name) {
            Some(attempt) => {
                // An attempt before its time was made because of others, and says nothing about how long to wait.
                if attempt.retry <= now {
                    attempt.retry = now + backoff(attempt.failures);
                    attempt.failures = attempt.failures.saturating_add(1);
                }
                (attempt.reason, attempt.soon) = (reason, None);
                (attempt.left, attempt.terms, attempt.circle) = (left, terms, None);
            }
            None => {
                let attempt = Attempt {
                    reason,
                    failures: 1,
                    retry: now + backoff(0),
                    soon: None,
                    left,
                    terms,
                    circle: None,
                    at_once: RateLimit::default(),
                };
                self.0.insert(name.to_owned(), attempt);
            }
        }
    }

    /// It is attached, gone, or not wanted any more.
    pub(super) fn forget(&mut self, port: &str) {
        self.0.remove(port);
    }

    pub(super) fn timeout(&self) -> Option<Time> {
        self.0.values().map(Attempt::next).min()
    }

    pub(super) fn due(&self, now: Time) -> Vec<String> {
        let due = self.0.iter().filter(|(_, attempt)| attempt.next() <= now);
        due.map(|(name, _)| name.clone()).collect()
    }

    /// Why a port is not attached, and how long until it is tried again.
    pub(super) fn last(&self, now: Time, port: &str) -> Option<(&str, Duration)> {
        let attempt = self.0.get(port)?;
        Some((&attempt.reason, attempt.next().since(now)))
    }
}

impl Attempt {
    fn left_as(&self, link: &Link) -> bool {
        self.left.as_ref().is_some_and(|left| *left == Settings::of(link))
    }

    fn mac(&self) -> MacAddr {
        mac_of(self.left.as_ref())
    }

    /// The next one is to be made now, if the limit permits that.
    fn hurry(&mut self, now: Time) {
        if self.soon.is_none() {
            let at_once = self.at_once.permit(now) == Permit::Given;
            self.soon = Some(if at_once { now } else { now + SOON });
        }
    }

    fn next(&self) -> Time {
        self.soon.map_or(self.retry, |soon| soon.min(self.retry))
    }
}

fn mac_of(left: Option<&Settings>) -> MacAddr {
    left.map_or_else(MacAddr::default, |left| left.mac)
}

/// How long after a change by others the next attempt comes if the limit does not permit one at once.
const SOON: Duration = Duration::from_secs(1);

/// One second, doubled up to about a minute.
pub(super) fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(6))
}

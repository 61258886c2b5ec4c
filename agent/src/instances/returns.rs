//! Failures to give ports back, and when that is tried again.

use std::collections::{BTreeMap, BTreeSet};

use bond_modes::PortId;
use bond_monitors::Time;

use super::attempts::backoff;
use crate::dataplane::PlaneError;
use crate::text::chain;

/// The last failures to give ports back. A port without one is tried at once.
#[derive(Debug, Default)]
pub(super) struct Returns(BTreeMap<PortId, Return>);

#[derive(Debug)]
struct Return {
    /// The names of bond and port.
    what: String,
    reason: String,
    /// Attempts that failed.
    failures: u32,
    retry: Time,
}

impl Returns {
    /// Puts the next attempt off. The log reports each reason once.
    pub(super) fn failed(&mut self, now: Time, port: PortId, what: String, error: &PlaneError) {
        let reason = chain(error);
        let failures = self.0.get(&port).map_or(0, |before| before.failures);
        if self.0.get(&port).is_none_or(|before| before.reason != reason) {
            log::error!("{what}: not given back as it was, bondd tries again: {reason}");
        }
        let last = Return {
            what,
            reason,
            failures: failures.saturating_add(1),
            retry: now + backoff(failures),
        };
        self.0.insert(port, last);
    }

    /// When a port is tried again; at once without a failure.
    pub(super) fn retry(&self, port: PortId) -> Time {
        self.0.get(&port).map_or(Time::ZERO, |last| last.retry)
    }

    /// The port is to be attached again, which is tried at times of its own.
    pub(super) fn wait(&mut self, now: Time, port: PortId, name: &str) {
        let wait = self.0.entry(port).or_insert_with(|| Return {
            what: name.to_owned(),
            reason: String::new(),
            failures: 0,
            retry: Time::ZERO,
        });
        wait.retry = now + backoff(wait.failures);
        wait.failures = wait.failures.saturating_add(1);
    }

    /// It has its settings again, is a port, or is gone.
    pub(super) fn forget(&mut self, port: PortId) {
        self.0.remove(&port);
    }

    /// The ports that could not be given back.
    pub(super) fn ports(&self) -> BTreeSet<PortId> {
        self.0.keys().copied().collect()
    }

    /// A line for each port that is not among these.
    pub(super) fn warnings(&self, known: &BTreeSet<PortId>) -> Vec<String> {
        let new = self.0.iter().filter(|(port, _)| !known.contains(port));
        let line = |last: &Return| {
            format!(
                "{}: not given back as it was: {}; bondd tries again",
                last.what, last.reason
            )
        };
        new.map(|(_, last)| line(last)).collect()
    }
}

//! Parts of a bond's plan that the data plane could not do, since when and why: for `show`, and for the log, which reports each
//! once.

use std::collections::BTreeMap;

use bond_modes::options::millis;
use bond_monitors::Time;

use crate::control::proto::UnfulfilledReport;
use crate::dataplane::Applied;

/// The unfulfilled parts of a plan. The key completes "cannot ...".
#[derive(Debug, Default)]
pub(super) struct Unfulfilled(BTreeMap<String, Part>);

#[derive(Debug)]
struct Part {
    since: Time,
    why: String,
}

impl Unfulfilled {
    /// Records how the last attempt ended. A part that is not among its failures was done, or the plan does not ask for it any
    /// more.
    pub fn record(&mut self, now: Time, bond: &str, applied: &Applied) {
        let mut before = std::mem::take(&mut self.0);
        for error in applied.lasting() {
            let (what, why) = error.what_and_why();
            let known = before.remove(&what);
            if known.as_ref().is_none_or(|known| known.why != why) {
                log::error!("{bond}: cannot {what}: {why}");
            }
            let since = known.map_or(now, |known| known.since);
            self.0.insert(what, Part { since, why });
        }
        for (what, part) in before.iter().filter(|(what, _)| !self.0.contains_key(*what)) {
            let after = millis(now.since(part.since));
            log::info!("{bond}: done or no longer needed after {after} ms: {what}");
        }
    }

    /// For clients.
    pub fn report(&self, now: Time) -> Vec<UnfulfilledReport> {
        let part = |(what, part): (&String, &Part)| UnfulfilledReport {
            what: what.clone(),
            why: part.why.clone(),
            since_ms: millis(now.since(part.since)),
        };
        self.0.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::dataplane::PlaneError;

    fn applied(failures: &[(&str, i32)]) -> Applied {
        let kernel = |(doing, errno): &(&str, i32)| PlaneError::Kernel {
            doing: (*doing).to_owned(),
            source: io::Error::from_raw_os_error(*errno),
        };
        Applied::from_failures(failures.iter().map(kernel).collect())
    }

    #[test]
    fn a_part_and_its_reason_say_each_thing_once() {
        let inexact = PlaneError::Inexact {
            plane: "team",
            what: "packets_per_slave=3".to_owned(),
            why: "the driver changes the port after each frame",
            other: "tc",
        };
        let errors = [
            (
                inexact,
                "do packets_per_slave=3 exactly: on the team plane, the driver changes the port after each frame; make a \
                 new bond with plane=tc",
            ),
            (
                PlaneError::NotYet { what: "a bucket table" },
                "do a bucket table: no data plane of this agent has it",
            ),
            (
                PlaneError::OneQueue {
                    bond: "bond0".to_owned(),
                },
                "use a queue_id on bond0: it has one transmit queue; delete it and make it anew (needs a kernel from 5.15 on)",
            ),
            (
                PlaneError::Unsupported {
                    feature: "team driver",
                    config: "CONFIG_NET_TEAM",
                },
                "use this kernel's team driver: it has none; it needs CONFIG_NET_TEAM",
            ),
        ];
        for (error, said) in errors {
            let (what, why) = error.what_and_why();
            assert_eq!(format!("{what}: {why}"), said);
        }
    }

    #[test]
    fn a_part_keeps_its_beginning_until_it_is_done() {
        let at = Time::from_millis;
        let mut unfulfilled = Unfulfilled::default();
        let (mac, mtu) = (("set the address", libc::EBUSY), ("set the MTU", libc::ERANGE));
        unfulfilled.record(at(100), "bond0", &applied(&[mac]));
        unfulfilled.record(at(400), "bond0", &applied(&[mac, mtu]));
        let reported: Vec<_> = unfulfilled
            .report(at(1000))
            .into_iter()
            .map(|part| (part.what, part.since_ms))
            .collect();
        assert_eq!(
            reported,
            [("set the MTU".to_owned(), 600), ("set the address".to_owned(), 900)]
        );
        // For another reason now, but not done in between.
        unfulfilled.record(at(1100), "bond0", &applied(&[("set the address", libc::EIO)]));
        let reported = unfulfilled.report(at(1200));
        assert_eq!((reported.len(), reported[0].since_ms), (1, 1100));
        assert!(reported[0].why.starts_with("Input/output error"), "{reported:?}");
        unfulfilled.record(at(1300), "bond0", &applied(&[]));
        assert_eq!(unfulfilled.report(at(1300)), []);
    }
}

//! What a bond needs and does not have, since when and why: parts of its plan that the data plane could not do, and what another program
//! changed and is not put back, because it is its to change, or comes again and again, or nothing of ours can. For `show` and `health`,
//! and for the log, which reports each once.

use std::collections::{BTreeMap, BTreeSet};

use bond_modes::PortId;
use bond_modes::options::millis;
use bond_monitors::Time;
use log::Level;

use crate::control::proto::UnfulfilledReport;
use crate::dataplane::{Applied, Kept, PlanPart};
use crate::status::sysfs;

/// What is unfulfilled of one bond.
#[derive(Debug, Default)]
pub(super) struct Unfulfilled {
    parts: BTreeMap<PlanPart, Failure>,
    foreign: BTreeMap<Foreign, Failure>,
}

/// What is not as the bond needs it, because another program changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Foreign {
    /// The hardware address of a port.
    Mac(PortId),
    /// The MTU of a port.
    Mtu(PortId),
    /// IPv6 is on at a port.
    Ipv6(PortId),
    /// What the plane has in the kernel.
    Kept(Kept),
    /// Its name, or that of a port, which leaves no place for its folder of status files.
    Folder,
}

impl Foreign {
    /// The port that has it.
    fn port(self) -> Option<PortId> {
        match self {
            Foreign::Mac(port) | Foreign::Mtu(port) | Foreign::Ipv6(port) | Foreign::Kept(Kept::Rx(port)) => Some(port),
            Foreign::Kept(_) | Foreign::Folder => None,
        }
    }
}

/// What is said of one that is not as it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// Completes "cannot ...".
    pub(super) what: String,
    pub(super) why: String,
    /// Nothing passes through the bond meanwhile.
    pub(super) is_cut: bool,
}

impl From<(String, String)> for Said {
    fn from((what, why): (String, String)) -> Said {
        Said {
            what,
            why,
            is_cut: false,
        }
    }
}

/// What cannot be done.
#[derive(Debug)]
struct Failure {
    since: Time,
    said: Said,
}

impl Unfulfilled {
    /// Records how the last attempt ended. A part that is not among its failures was done, or the plan does not ask for it any
    /// more. Of several failed steps for one part the first counts.
    pub fn record(&mut self, now: Time, bond: &str, applied: &Applied) {
        let mut before = std::mem::take(&mut self.parts);
        for (part, error) in applied.lasting() {
            if self.parts.contains_key(&part) {
                continue;
            }
            let failure = Failure::again(
                before.remove(&part),
                now,
                bond,
                error.what_and_why().into(),
                Level::Error,
            );
            self.parts.insert(part, failure);
        }
        for failure in before.values() {
            failure.ended(now, bond, "done or no longer needed");
        }
    }

    /// Records whether something is as the bond needs it: what cannot be done, and why, or nothing. A setting that the plan could not
    /// make says nothing about other programs.
    pub fn note(&mut self, now: Time, bond: &str, what: Foreign, found: Option<Said>) {
        if self.is_refused(what) {
            return;
        }
        let known = self.foreign.remove(&what);
        match (found, known) {
            (Some(said), known) => {
                // A notice tells of an address, as often as the log may have it.
                let level = match what {
                    Foreign::Mac(_) => Level::Trace,
                    _ if said.is_cut => Level::Error,
                    _ => Level::Warn,
                };
                let failure = Failure::again(known, now, bond, said, level);
                self.foreign.insert(what, failure);
            }
            (None, Some(failure)) => failure.ended(now, bond, "possible again"),
            (None, None) => {}
        }
    }

    /// Records whether one of the bond's interfaces can have no folder among the status files, because of its name.
    pub fn note_folder(&mut self, now: Time, bond: &str, without: Option<&str>) {
        let said = |name| {
            let what = format!("show {name} in {}", sysfs::FOLDER);
            let why =
                format!("the list of bonds has this name there; `ip link set {name} name` with another one mends it");
            Said::from((what, why))
        };
        self.note(now, bond, Foreign::Folder, without.map(said));
    }

    /// Whether the last plan could not set this.
    pub fn is_refused(&self, what: Foreign) -> bool {
        let part = match what {
            Foreign::Mac(port) => PlanPart::PortMac(port),
            Foreign::Mtu(port) => PlanPart::Mtu(port),
            // No plan has it.
            Foreign::Ipv6(_) | Foreign::Kept(_) | Foreign::Folder => return false,
        };
        self.parts.contains_key(&part)
    }

    /// What the plane has in the kernel and is known not to be as the bond needs it.
    pub fn kept(&self) -> BTreeSet<Kept> {
        let kept = self.foreign.keys().filter_map(|what| match what {
            Foreign::Kept(kept) => Some(*kept),
            _ => None,
        });
        kept.collect()
    }

    /// Ports of which something is not as the bond needs it, because another program changed it.
    pub fn foreign_ports(&self) -> BTreeSet<PortId> {
        self.foreign.keys().filter_map(|what| what.port()).collect()
    }

    /// As [`Unfulfilled::foreign_ports`], and those of which the last plan could not set such a setting: another plan changes what
    /// is to be said of them.
    pub fn doubtful_ports(&self) -> BTreeSet<PortId> {
        let refused = self.parts.keys().filter_map(|part| match part {
            PlanPart::PortMac(port) | PlanPart::Mtu(port) => Some(*port),
            _ => None,
        });
        refused.chain(self.foreign_ports()).collect()
    }

    /// A port is none any more.
    pub fn forget(&mut self, port: PortId) {
        self.foreign.retain(|what, _| what.port() != Some(port));
    }

    /// For clients.
    pub fn report(&self, now: Time) -> Vec<UnfulfilledReport> {
        let report = |failure: &Failure| UnfulfilledReport {
            what: failure.said.what.clone(),
            why: failure.said.why.clone(),
            since_ms: millis(now.since(failure.since)),
            is_cut: failure.said.is_cut,
        };
        let foreign = self.foreign.iter().filter(|(what, _)| !self.is_refused(**what));
        let foreign = foreign.map(|(_, failure)| failure);
        self.parts.values().chain(foreign).map(report).collect()
    }
}

impl Failure {
    /// What cannot be done, and why, after what was known of it before. The log has each reason once.
    fn again(known: Option<Failure>, now: Time, bond: &str, said: Said, level: Level) -> Failure {
        if known.as_ref().is_none_or(|known| known.said.why != said.why) {
            log::log!(level, "{bond}: cannot {}: {}", said.what, said.why);
        }
        let since = known.map_or(now, |known| known.since);
        Failure { since, said }
    }

    fn ended(&self, now: Time, bond: &str, how: &str) {
        let after = millis(now.since(self.since));
        log::info!("{bond}: {how} after {after} ms: {}", self.said.what);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::dataplane::PlaneError;

    fn applied(failures: &[(PlanPart, &str, i32)]) -> Applied {
        let mut applied = Applied::default();
        for (part, doing, errno) in failures {
            let error = PlaneError::Kernel {
                doing: (*doing).to_owned(),
                source: io::Error::from_raw_os_error(*errno),
            };
            applied.note(*part, Err(error));
        }
        applied
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
                "do packets_per_slave=3 exactly on plane team: the driver changes the port after each frame; give the bond \
                 plane=tc, which takes a new bond",
            ),
            (
                PlaneError::NotYet { what: "a bucket table" },
                "do a bucket table: no data plane of this agent has it",
            ),
            (
                PlaneError::OneQueue {
                    bond: "bond0".to_owned(),
                },
                "use a queue_id on bond0: it has one transmit queue; delete it and make it anew as a veth pair (bondd --tc-device \
                 veth, on a kernel from 5.15 on)",
            ),
            (
                PlaneError::Unsupported {
                    feature: "team driver",
                    config: "CONFIG_NET_TEAM",
                },
                "carry out the plan: this kernel has no team driver; it needs CONFIG_NET_TEAM",
            ),
        ];
        for (error, said) in errors {
            let (what, why) = error.what_and_why();
            assert_eq!(format!("{what}: {why}"), said);
            let alone = error.to_string();
            assert!(alone == format!("cannot {said}") || alone == why, "{alone}");
        }
    }

    #[test]
    fn a_part_keeps_its_beginning_until_it_is_done() {
        let at = Time::from_millis;
        let mut unfulfilled = Unfulfilled::default();
        let mac = (PlanPart::Mac, "set the address", libc::EBUSY);
        let mtu = (PlanPart::Mtu(PortId(3)), "set the MTU", libc::ERANGE);
        unfulfilled.record(at(100), "bond0", &applied(&[mac]));
        unfulfilled.record(at(400), "bond0", &applied(&[mac, mtu]));
        let reported: Vec<_> = unfulfilled
            .report(at(1000))
            .into_iter()
            .map(|part| (part.what, part.since_ms))
            .collect();
        assert_eq!(
            reported,
            [("set the address".to_owned(), 900), ("set the MTU".to_owned(), 600)]
        );
        // For another reason now, but not done in between.
        unfulfilled.record(
            at(1100),
            "bond0",
            &applied(&[(PlanPart::Mac, "set the address", libc::EIO)]),
        );
        let reported = unfulfilled.report(at(1200));
        assert_eq!((reported.len(), reported[0].since_ms), (1, 1100));
        assert!(reported[0].why.starts_with("Input/output error"), "{reported:?}");
        unfulfilled.record(at(1300), "bond0", &applied(&[]));
        assert_eq!(unfulfilled.report(at(1300)), []);
    }

    #[test]
    fn a_part_is_the_same_one_under_another_name_of_the_bond() {
        let at = Time::from_millis;
        let mut unfulfilled = Unfulfilled::default();
        let failed = |name| applied(&[(PlanPart::Mac, name, libc::EBUSY)]);
        unfulfilled.record(at(100), "bond0", &failed("set the address of bond0"));
        unfulfilled.record(at(400), "lan", &failed("set the address of lan"));
        let reported = unfulfilled.report(at(500));
        let reported: Vec<_> = reported
            .iter()
            .map(|part| (part.what.as_str(), part.since_ms))
            .collect();
        assert_eq!(reported, [("set the address of lan", 400)]);
    }
}

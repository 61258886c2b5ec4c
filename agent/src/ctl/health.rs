//! `bondctl health`: one line and an exit status, as monitoring plugins of Nagios and its kin give them.
//! [Nagios Plugin Development Guidelines: return codes, performance data]

use std::error::Error;

use bond_modes::LinkWord;
use serde::Serialize;

use crate::control::proto::{BondReport, PortReport, Report, SCHEMA, WaitingReport};
use crate::text::chain;

/// State of a bond; the number is the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok = 0,
    /// It works, but not with all its ports or settings; or the agent has just started and has not come to it.
    Warning = 1,
    /// It carries no traffic, or bondd cannot take it over or make it.
    Critical = 2,
    /// The state could not be read.
    Unknown = 3,
}

/// The whole verdict.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Health {
    schema: u32,
    /// Of the worst bond.
    pub(super) state: Level,
    /// Why the state is unknown.
    reason: Option<String>,
    /// The worst first.
    bonds: Vec<BondHealth>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct BondHealth {
    name: String,
    state: Level,
    /// Its problems; empty if there are none.
    reasons: Vec<String>,
    /// Ports that count as up.
    ports_up: usize,
    /// Its ports, absent ones included.
    ports: usize,
    active_port: Option<String>,
}

impl Health {
    pub(super) fn new(report: &Report) -> Health {
        let bonds = report.bonds.iter().map(BondHealth::new);
        let mut bonds: Vec<BondHealth> = bonds.chain(report.waiting.iter().map(BondHealth::waiting)).collect();
        bonds.sort_by_key(|bond| std::cmp::Reverse(bond.state));
        let worst = bonds.first().map(|bond| bond.state);
        Health {
            schema: SCHEMA,
            state: worst.unwrap_or(Level::Unknown),
            reason: worst.is_none().then(|| "no bonds".to_owned()),
            bonds,
        }
    }

    /// The verdict if no agent answers.
    pub(super) fn unknown(why: &dyn Error) -> Health {
        Health {
            schema: SCHEMA,
            state: Level::Unknown,
            reason: Some(chain(why)),
            bonds: Vec::new(),
        }
    }

    /// The line, with the number of usable ports of each bond as performance data.
    pub(super) fn text(&self) -> String {
        let word = match self.state {
            Level::Ok => "OK",
            Level::Warning => "WARNING",
            Level::Critical => "CRITICAL",
            Level::Unknown => "UNKNOWN",
        };
        let parts: Vec<String> = self
            .reason
            .iter()
            .cloned()
            .chain(self.bonds.iter().map(BondHealth::text))
            .collect();
        let mut line = format!("BOND {word} - {}", parts.join("; "));
        for (n, bond) in self.bonds.iter().enumerate() {
            let separator = if n == 0 { " |" } else { "" };
            // value;warning;critical;least;most: warning below all ports, critical below one.
            let BondHealth {
                name, ports_up, ports, ..
            } = bond;
            line += &format!("{separator} '{name}'={ports_up};{ports}:;1:;0;{ports}");
        }
        line + "\n"
    }
}

impl BondHealth {
    fn new(bond: &BondReport) -> BondHealth {
        let usable = bond.ports.iter().filter(|port| port.is_usable()).count();
        let mut reasons = Vec::new();
        if !bond.status.up {
            reasons.push("is set down".to_owned());
        } else if bond.ports.is_empty() {
            reasons.push("has no port".to_owned());
        } else if !bond.status.carrier {
            reasons.push("has no carrier".to_owned());
        }
        let critical = !reasons.is_empty() || bond.unfulfilled.iter().any(|part| part.is_cut);
        reasons.extend(bond.ports.iter().filter_map(trouble));
        if bond.status.unmonitored {
            reasons.push("is unmonitored".to_owned());
        }
        reasons.extend(bond.unfulfilled.iter().map(|part| format!("cannot {}", part.what)));
        let unasked = bond.status.targets.iter().filter(|target| target.elsewhere.is_some());
        reasons.extend(unasked.map(|target| format!("target {} does not count", target.target)));
        BondHealth {
            name: bond.name.clone(),
            state: match (critical, reasons.is_empty()) {
                (true, _) => Level::Critical,
                (false, false) => Level::Warning,
                (false, true) => Level::Ok,
            },
            reasons,
            ports_up: usable,
            ports: bond.ports.len(),
            active_port: bond.status.active_port.clone(),
        }
    }

    /// A bond whose ports are not known, because it is not taken over or not made.
    fn waiting(bond: &WaitingReport) -> BondHealth {
        // What follows the first `|` of the line is performance data.
        let why = bond.why.replace('|', "/");
        let (state, reason) = match (bond.starting, bond.unmade) {
            (true, _) => (Level::Warning, format!("is not monitored yet, because {why}")),
            (false, true) => (
                Level::Critical,
                format!("is not there, because it cannot be made ({why})"),
            ),
            (false, false) => (
                Level::Critical,
                format!("is not monitored, because it cannot be taken over ({why})"),
            ),
        };
        BondHealth {
            name: bond.name.clone(),
            state,
            reasons: vec![reason],
            ports_up: 0,
            ports: 0,
            active_port: None,
        }
    }

    fn text(&self) -> String {
        let mut text = self.name.clone();
        if !self.reasons.is_empty() {
            text += &format!(" {}", self.reasons.join(", "));
        }
        text += &format!(": {} of {} ports up", self.ports_up, self.ports);
        if let Some(active) = &self.active_port {
            text += &format!(", active {active}");
        }
        text
    }
}

fn trouble(port: &PortReport) -> Option<String> {
    match &port.status {
        None => Some(match &port.notes.attach_error {
            // What follows the first `|` of the line is performance data.
            Some(reason) => format!("{} is {} ({})", port.name, port.absence(), reason.replace('|', "/")),
            None => format!("{} is {}", port.name, port.absence()),
        }),
        Some(status) if status.link != LinkWord::Up => Some(format!("{} is {}", port.name, status.link.as_str())),
        // Its link counts as up for ever.
        Some(_) if port.notes.unmonitored => Some(format!("{} is unmonitored", port.name)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use bond_modes::TargetStatus;
    use serde_json::json;

    use super::super::show::tests::sample;
    use super::*;

    /// The verdict about a bond with both ports up after this change.
    fn health(change: impl FnOnce(&mut BondReport)) -> Health {
        let mut report = sample();
        let bond = &mut report.bonds[0];
        bond.ports.truncate(2);
        link(bond, 1, LinkWord::Up, true);
        change(bond);
        Health::new(&report)
    }

    /// Gives a port this link and whether it counts as up.
    fn link(bond: &mut BondReport, at: usize, word: LinkWord, usable: bool) {
        let status = bond.ports[at].status.as_mut().unwrap();
        (status.link, status.usable) = (word, usable);
    }

    /// A change to the bond of [`health`], the level and a part of the line that it leads to.
    type Case = (fn(&mut BondReport), Level, &'static str);

    const OF_PORTS: &[Case] = &[
        (
            |_| {},
            Level::Ok,
            "OK - bond0: 2 of 2 ports up, active eth0 | 'bond0'=2;2:;1:;0;2",
        ),
        (
            |bond| link(bond, 1, LinkWord::Down, false),
            Level::Warning,
            "WARNING - bond0 eth1 is down: 1 of 2 ports up, active eth0 | 'bond0'=1;2:;1:;0;2",
        ),
        (
            |bond| bond.ports[1].notes.unmonitored = true,
            Level::Warning,
            "WARNING - bond0 eth1 is unmonitored: 2 of 2 ports up, active eth0",
        ),
        (
            |bond| link(bond, 1, LinkWord::GoingBack, false),
            Level::Warning,
            "bond0 eth1 is going back: 1 of 2",
        ),
        (
            |bond| link(bond, 0, LinkWord::GoingDown, true),
            Level::Warning,
            "bond0 eth0 is going down: 2 of 2",
        ),
        (
            |bond| bond.ports.push(PortReport::absent("eth2")),
            Level::Warning,
            "bond0 eth2 is absent: 2 of 3",
        ),
        (
            |bond| {
                let mut port = PortReport::absent("eth2");
                port.notes.attach_error = Some("eth2 belongs to br|0".to_owned());
                bond.ports.push(port);
            },
            Level::Warning,
            "bond0 eth2 is not attached (eth2 belongs to br/0): 2 of 3",
        ),
    ];

    const OF_THE_BOND: &[Case] = &[
        (
            |bond| bond.status.unmonitored = true,
            Level::Warning,
            "bond0 is unmonitored: 2 of 2",
        ),
        (
            |bond| {
                let part = json!({"what":"set the MTU of eth1","why":"busy","since_ms":7});
                bond.unfulfilled.push(serde_json::from_value(part).unwrap());
            },
            Level::Warning,
            "bond0 cannot set the MTU of eth1: 2 of 2",
        ),
        (
            |bond| {
                let part = json!({"what":"send anything","why":"gone","since_ms":7,"is_cut":true});
                bond.unfulfilled.push(serde_json::from_value(part).unwrap());
            },
            Level::Critical,
            "CRITICAL - bond0 cannot send anything: 2 of 2",
        ),
        (
            |bond| {
                let target = json!({"target":"10.9.9.9","monitored":false,"source":null,"vlans":[],"elsewhere":"eth9"});
                let target: TargetStatus = serde_json::from_value(target).unwrap();
                bond.status.targets.push(target);
            },
            Level::Warning,
            "bond0 target 10.9.9.9 does not count: 2 of 2",
        ),
        (
            |bond| {
                bond.status.carrier = false;
                bond.status.active_port = None;
                for at in [0, 1] {
                    link(bond, at, LinkWord::Down, false);
                }
            },
            Level::Critical,
            "CRITICAL - bond0 has no carrier, eth0 is down, eth1 is down: 0 of 2 ports up | 'bond0'=0;2:;1:;0;2",
        ),
        // As the ARP monitor tries out ports of which none works.
        (
            |bond| {
                bond.status.carrier = false;
                bond.status.active_port = None;
                link(bond, 0, LinkWord::GoingBack, false);
                link(bond, 1, LinkWord::GoingDown, false);
            },
            Level::Critical,
            "bond0 has no carrier, eth0 is going back, eth1 is going down: 0 of 2 ports up | 'bond0'=0;2:;1:;0;2",
        ),
        (
            |bond| bond.status.up = false,
            Level::Critical,
            "bond0 is set down: 2 of 2",
        ),
        (|bond| bond.ports.clear(), Level::Critical, "bond0 has no port: 0 of 0"),
    ];

    #[test]
    fn what_is_wrong_decides_the_level_and_is_told() {
        for (change, level, line) in OF_PORTS.iter().chain(OF_THE_BOND) {
            let health = health(change);
            assert_eq!(health.state, *level, "{line}");
            assert!(health.text().contains(line), "{line:?} in {:?}", health.text());
        }
    }

    #[test]
    fn the_worst_bond_comes_first_and_decides() {
        let mut report = sample();
        let mut good = report.bonds[0].clone();
        good.name = "bond1".to_owned();
        good.ports.truncate(1);
        report.bonds[0].status.up = false;
        report.bonds.insert(0, good);
        let text = Health::new(&report).text();
        assert!(text.starts_with("BOND CRITICAL - bond0 is set down, eth1"), "{text}");
        assert!(text.contains("; bond1: 1 of 1 ports up"), "{text}");
        assert!(text.ends_with(" | 'bond0'=1;3:;1:;0;3 'bond1'=1;1:;1:;0;1\n"), "{text}");
    }

    #[test]
    fn a_bond_that_waits_to_be_taken_over_is_critical() {
        let mut report = sample();
        report.bonds[0].ports.truncate(1);
        let waiting = json!([{"name":"bond1","why":"out of memory","next_attempt_ms":100}]);
        report.waiting = serde_json::from_value(waiting).unwrap();
        let text = Health::new(&report).text();
        let begins = "BOND CRITICAL - bond1 is not monitored, because it cannot be taken over (out of memory): 0 of 0";
        assert!(text.starts_with(begins), "{text}");
        assert!(text.contains("; bond0: 1 of 1 ports up"), "{text}");
    }

    #[test]
    fn a_bond_of_the_files_that_cannot_be_made_is_critical() {
        let mut report = sample();
        report.bonds[0].ports.truncate(1);
        let waiting = json!([{"name":"bond1","why":"no room","next_attempt_ms":100,"unmade":true,"since_ms":5}]);
        report.waiting = serde_json::from_value(waiting).unwrap();
        let text = Health::new(&report).text();
        let begins = "BOND CRITICAL - bond1 is not there, because it cannot be made (no room): 0 of 0";
        assert!(text.starts_with(begins), "{text}");
        assert!(text.contains("; bond0: 1 of 1 ports up"), "{text}");
    }

    #[test]
    fn a_bond_whose_turn_at_the_start_has_not_come_is_a_warning() {
        let mut report = sample();
        report.bonds.clear();
        let waiting = json!([{"name":"bond1","why":"bondd has just started","next_attempt_ms":0,"starting":true}]);
        report.waiting = serde_json::from_value(waiting).unwrap();
        let text = Health::new(&report).text();
        let begins = "BOND WARNING - bond1 is not monitored yet, because bondd has just started: 0 of 0";
        assert!(text.starts_with(begins), "{text}");
    }

    #[test]
    fn without_a_bond_nobody_can_tell() {
        let mut report = sample();
        report.bonds.clear();
        let health = Health::new(&report);
        assert_eq!(
            (health.state, health.text().as_str()),
            (Level::Unknown, "BOND UNKNOWN - no bonds\n")
        );
    }
}

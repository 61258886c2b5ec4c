//! Derives the link state of all ports of a bond from their health: delays, skipped delays, failure counts.
//! [bond_main.c: bond_miimon_inspect, bond_miimon_commit]

use std::time::Duration;

use bond_monitors::{LinkState, Time};

use crate::action::Notice;
use crate::ids::PortId;
use crate::options::BondOptions;
use crate::port::{Port, Ports};

/// Results of an inspection of all ports.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    /// Ports whose link came up.
    pub came_up: Vec<PortId>,
    /// One line per change.
    pub notices: Vec<Notice>,
}

/// Ports whose delays may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends<'a> {
    /// None: unread events may follow in a moment.
    None,
    /// These ports, with all their facts known.
    Of(&'a [PortId]),
    /// All ports.
    All,
}

impl Ends<'_> {
    fn include(self, port: PortId) -> bool {
        match self {
            Ends::None => false,
            Ends::Of(ports) => ports.contains(&port),
            Ends::All => true,
        }
    }
}

/// Updates every port's link state to `now`.
///
/// When nothing better is left, the port that has waited longest in updelay is used at once. [bonding.rst: updelay]
/// differs: in the driver this holds in some modes only, and its poll decides which port is first.
pub(crate) fn inspect(
    now: Time,
    ports: &mut Ports,
    active: Option<PortId>,
    options: &BondOptions,
    ends: Ends<'_>,
) -> Inspection {
    let mut found = Inspection::default();
    for port in ports.iter_mut() {
        let before = port.link();
        let mut after = port.health.judge(now, options.delays());
        if after.is_none() && ends.include(port.id) {
            after = port.health.end_delay(now);
        }
        if let Some(after) = after {
            found.record(now, port, before, after, active == Some(port.id));
        }
    }
    if let Some(skipped) = skip_updelay(now, ports, active, None) {
        for notice in &mut found.notices {
            // The port does not wait. [bond_main.c: bond_miimon_inspect, ignore_updelay]
            if let Notice::GoingBack { port, delay } = notice
                && skipped
                    .came_up
                    .iter()
                    .any(|id| ports.get(*id).is_some_and(|up| up.name == *port))
            {
                *delay = Duration::ZERO;
            }
        }
        found.came_up.extend(skipped.came_up);
        found.notices.extend(skipped.notices);
    }
    found
}

/// Ends the longest wait in updelay when nothing better is left: the active port is not usable or is `leaving`, and no other
/// link is up. A port in downdelay has no carrier, so one that waits with carrier is better.
pub(crate) fn skip_updelay(
    now: Time,
    ports: &mut Ports,
    active: Option<PortId>,
    leaving: Option<PortId>,
) -> Option<Inspection> {
    let stays = |port: &Port| leaving != Some(port.id);
    let good = |port: &Port| port.link() == LinkState::Up || active == Some(port.id) && port.is_usable();
    if ports.iter().any(|port| stays(port) && good(port)) {
        return None;
    }
    let waits = |port: &Port| matches!(port.link(), LinkState::GoingBack { .. });
    let port = ports
        .iter_mut()
        .filter(|port| stays(port) && waits(port))
        .min_by_key(|port| port.link().deadline())?;
    port.health.skip_updelay();
    let mut found = Inspection::default();
    found.notices.push(Notice::UpdelaySkipped {
        port: port.name.clone(),
        waited: now.since(port.delayed_since),
    });
    found.up(port);
    Some(found)
}

impl Inspection {
    /// Judges a port for which no delays apply.
    pub(crate) fn judge(&mut self, now: Time, port: &mut Port, options: &BondOptions) {
        match port.health.judge(now, options.delays()) {
            Some(LinkState::Up) => self.up(port),
            Some(LinkState::Down) => self.down(port),
            _ => {}
        }
    }

    fn record(&mut self, now: Time, port: &mut Port, before: LinkState, after: LinkState, active: bool) {
        use LinkState::{Down, GoingBack, GoingDown, Up};
        let name = port.name.clone();
        let waited = now.since(port.delayed_since);
        match (before, after) {
            (_, GoingDown { until }) => {
                port.delayed_since = now;
                self.notices.push(Notice::GoingDown {
                    port: name,
                    active,
                    delay: until.since(now),
                });
            }
            (_, GoingBack { until }) => {
                port.delayed_since = now;
                self.notices.push(Notice::GoingBack {
                    port: name,
                    delay: until.since(now),
                });
            }
            (GoingDown { .. }, Up) => {
                self.notices.push(Notice::UpAgain {
                    port: name,
                    after: waited,
                });
                self.came_up.push(port.id);
            }
            (_, Up) => self.up(port),
            (GoingBack { .. }, Down) => {
                self.notices.push(Notice::DownAgain {
                    port: name,
                    after: waited,
                });
                self.down(port);
            }
            (_, Down) => self.down(port),
        }
    }

    fn up(&mut self, port: &Port) {
        self.notices.push(Notice::Up {
            port: port.name.clone(),
            speed: port.speed,
            duplex: port.duplex,
        });
        self.came_up.push(port.id);
    }

    fn down(&mut self, port: &mut Port) {
        port.failures = port.failures.saturating_add(1);
        self.notices.push(Notice::Down {
            port: port.name.clone(),
            failures: port.failures,
        });
    }
}

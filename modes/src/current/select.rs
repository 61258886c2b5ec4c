//! Chooses the active port. Pure functions. [bond_main.c: bond_find_best_slave]

use bond_monitors::LinkState;

use crate::action::SwitchReason;
use crate::ids::PortId;
use crate::options::PrimaryReselect;
use crate::port::{Port, Ports};

/// Data for the choice besides the ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preference<'a> {
    /// Name of the preferred port.
    pub primary: Option<&'a str>,
    /// When a preferred port becomes active again.
    pub reselect: PrimaryReselect,
    /// The operator has just set the primary: take it independent of `reselect`.
    pub force_primary: bool,
}

/// The port that should be active, given the present one.
///
/// Ports in updelay are not considered, because the longest waiting one is made `Up` earlier if no other port is left. The
/// active port in downdelay is replaced by any port that is up. If no port is up, it stays; without it, the port that lost its
/// carrier last is chosen, as the most likely to come back within its downdelay.
pub(super) fn best(ports: &Ports, current: Option<PortId>, prefer: Preference<'_>) -> Option<PortId> {
    let current = current.and_then(|id| ports.get(id)).filter(|port| port.is_usable());
    let up = current.filter(|port| port.link() == LinkState::Up);
    let Some(candidate) = candidate(ports, up, prefer) else {
        let latest = ports
            .iter()
            .filter(|port| port.is_usable())
            .max_by_key(|port| port.link().deadline());
        return current.or(latest).map(|port| port.id);
    };
    let Some(current) = up else { return Some(candidate.id) };
    let forced = prefer.force_primary && prefer.primary == Some(candidate.name.as_str());
    let take = match prefer.reselect {
        PrimaryReselect::Always => true,
        PrimaryReselect::Better => is_better(candidate, current),
        PrimaryReselect::Failure => false,
    };
    Some(if take || forced { candidate.id } else { current.id })
}

/// Why `new` takes over from `old`.
pub(super) fn reason(ports: &Ports, old: Option<PortId>, new: PortId, prefer: Preference<'_>) -> SwitchReason {
    let Some(old) = old else {
        return SwitchReason::FirstUsable;
    };
    let is_primary = ports
        .get(new)
        .is_some_and(|port| prefer.primary == Some(port.name.as_str()));
    match ports.get(old) {
        None => SwitchReason::PortGone,
        Some(port) if port.link() != LinkState::Up => SwitchReason::LinkDown,
        Some(_) if is_primary => SwitchReason::Primary,
        Some(_) => SwitchReason::Priority,
    }
}

/// The primary if its link is up, else the highest `prio` whose link is up; the current one wins ties, then the first.
///
/// differs: in the driver the first in the list wins ties, so that an unrelated change moves the active port.
fn candidate<'a>(ports: &'a Ports, current: Option<&'a Port>, prefer: Preference<'_>) -> Option<&'a Port> {
    let up = |port: &&Port| port.link() == LinkState::Up;
    if let Some(primary) = prefer.primary.and_then(|name| ports.named(name)).filter(up) {
        return Some(primary);
    }
    let highest = ports.iter().filter(up).reduce(|best, port| {
        if port.options.prio > best.options.prio {
            port
        } else {
            best
        }
    })?;
    Some(
        current
            .filter(|port| port.options.prio >= highest.options.prio)
            .unwrap_or(highest),
    )
}

/// Faster, or as fast with a better duplex. [bond_main.c: bond_choose_primary_or_current]
fn is_better(candidate: &Port, current: &Port) -> bool {
    (candidate.speed.rank(), candidate.duplex.rank()) > (current.speed.rank(), current.duplex.rank())
}

#[cfg(test)]
mod tests {
    use bond_monitors::{Carrier, Duplex, LinkReport, MacAddr, Speed, Time};

    use super::*;
    use crate::options::BondOptions;
    use crate::port::PortFacts;

    /// Ports `a`, `b`, ... with ids 1, 2, ...; link state, speed and prio each.
    fn ports(links: &[(LinkState, u32, i32)]) -> Ports {
        let mut ports = Ports::default();
        for (id, (name, (link, speed, prio))) in (1..).zip(["a", "b", "c"].iter().zip(links)) {
            let report = LinkReport {
                name: (*name).to_owned(),
                admin_up: true,
                carrier: Carrier::On,
                mac: MacAddr([2, 0, 0, 0, 0, id]),
                mtu: 1500,
                promisc: false,
                allmulti: false,
                speed: Speed(Some(*speed)),
                duplex: Duplex::Full,
            };
            let facts = PortFacts {
                permanent_mac: report.mac,
                report,
            };
            let mut port = Port::new(Time::ZERO, PortId(id.into()), facts, &BondOptions::default());
            port.health.assume(Time::ZERO, *link);
            port.options.prio = *prio;
            ports.push(port);
        }
        ports
    }

    fn prefer(primary: Option<&str>, reselect: PrimaryReselect) -> Preference<'_> {
        Preference {
            primary,
            reselect,
            force_primary: false,
        }
    }

    const UP: LinkState = LinkState::Up;
    const GOING_DOWN: LinkState = LinkState::GoingDown {
        until: Time::from_millis(9),
    };
    const A: Option<PortId> = Some(PortId(1));
    const B: Option<PortId> = Some(PortId(2));

    #[test]
    fn the_first_port_that_is_up_is_chosen_and_stays() {
        let p = ports(&[(LinkState::Down, 1000, 0), (UP, 1000, 0), (UP, 1000, 0)]);
        assert_eq!(best(&p, None, prefer(None, PrimaryReselect::Always)), B);
        assert_eq!(
            best(&p, Some(PortId(3)), prefer(None, PrimaryReselect::Always)),
            Some(PortId(3))
        );
    }

    #[test]
    fn always_takes_the_primary_back_failure_does_not() {
        let p = ports(&[(UP, 1000, 0), (UP, 1000, 0)]);
        assert_eq!(best(&p, B, prefer(Some("a"), PrimaryReselect::Always)), A);
        assert_eq!(best(&p, B, prefer(Some("a"), PrimaryReselect::Failure)), B);
    }

    #[test]
    fn better_takes_the_primary_back_only_if_it_is_faster() {
        let same = ports(&[(UP, 1000, 0), (UP, 1000, 0)]);
        assert_eq!(best(&same, B, prefer(Some("a"), PrimaryReselect::Better)), B);
        let faster = ports(&[(UP, 10_000, 0), (UP, 1000, 0)]);
        assert_eq!(best(&faster, B, prefer(Some("a"), PrimaryReselect::Better)), A);
        let slower = ports(&[(UP, 100, 0), (UP, 1000, 0)]);
        assert_eq!(best(&slower, B, prefer(Some("a"), PrimaryReselect::Better)), B);
    }

    #[test]
    fn a_primary_named_just_now_is_taken_whatever_the_rule() {
        let p = ports(&[(UP, 100, 0), (UP, 1000, 0)]);
        let forced = Preference {
            force_primary: true,
            ..prefer(Some("a"), PrimaryReselect::Failure)
        };
        assert_eq!(best(&p, B, forced), A);
    }

    #[test]
    fn a_primary_that_is_down_is_ignored_and_prio_decides() {
        let p = ports(&[(LinkState::Down, 1000, 0), (UP, 1000, 1), (UP, 1000, 5)]);
        assert_eq!(best(&p, B, prefer(Some("a"), PrimaryReselect::Always)), Some(PortId(3)));
    }

    #[test]
    fn a_port_in_downdelay_stays_only_while_no_other_is_up() {
        let alone = ports(&[(GOING_DOWN, 1000, 0), (LinkState::Down, 1000, 0)]);
        assert_eq!(best(&alone, A, prefer(None, PrimaryReselect::Failure)), A);
        let other = ports(&[(GOING_DOWN, 1000, 0), (UP, 1000, 0)]);
        assert_eq!(best(&other, A, prefer(None, PrimaryReselect::Failure)), B);
    }

    #[test]
    fn among_ports_in_downdelay_the_one_that_lost_its_carrier_last_is_chosen() {
        let later = LinkState::GoingDown {
            until: Time::from_millis(20),
        };
        let p = ports(&[(GOING_DOWN, 1000, 0), (later, 1000, 0), (LinkState::Down, 1000, 0)]);
        assert_eq!(best(&p, None, prefer(None, PrimaryReselect::Always)), B);
    }

    #[test]
    fn with_no_usable_port_there_is_none() {
        let p = ports(&[(LinkState::Down, 1000, 0)]);
        assert_eq!(best(&p, A, prefer(Some("a"), PrimaryReselect::Always)), None);
    }
}

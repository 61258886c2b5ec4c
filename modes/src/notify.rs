//! Announcements after a failover: gratuitous ARP and unsolicited neighbour advertisements for the addresses of this host,
//! learning frames for those behind it, membership reports for its multicast groups.
//! [bond_main.c: bond_peer_notify_work, bond_resend_igmp_join_requests; bonding.rst: num_grat_arp, resend_igmp]

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use bond_monitors::wire::nd::UnsolicitedAdvertisement;
use bond_monitors::wire::{arp, rarp};
use bond_monitors::{MacAddr, Pause, Time};
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::bond::Bond;
use crate::event::{LocalAddress, Station};
use crate::ids::PortId;
use crate::options::ModeName;

/// Something that is told several times: how many rounds are left, and when the next one is.
///
/// differs: exactly as many rounds as asked for at even intervals; the driver sends one less or bunches two, by version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rounds {
    left: u8,
    next: Time,
}

impl Rounds {
    /// Begins anew with a first round at that time.
    fn start(&mut self, first: Time, count: u8) {
        *self = Rounds {
            left: count,
            next: first,
        };
    }

    /// Drops what is left. [bond_main.c: bond_close]
    fn stop(&mut self) {
        self.left = 0;
    }

    /// When the next round is due.
    fn poll_timeout(&self) -> Option<Time> {
        (self.left > 0).then_some(self.next)
    }

    /// The round before left at the end of the pause rather than when it was due, so the next one is that much later.
    fn postpone(&mut self, pause: Pause) {
        self.next = pause.postpone(self.next);
    }

    /// Whether a round is due at `now`; then the next one is planned.
    fn take(&mut self, now: Time, interval: Duration) -> bool {
        if self.left == 0 || now < self.next {
            return false;
        }
        self.left -= 1;
        self.next = now + interval;
        true
    }
}

/// Addresses behind the bond that are yet to be announced: a few at a time, so that a large bridge does not flood the switches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Learning {
    /// When it is to be asked who they are.
    ask: Option<Time>,
    left: VecDeque<Station>,
    next: Time,
}

impl Learning {
    /// Takes over who is to be announced.
    pub fn fill(&mut self, now: Time, stations: Vec<Station>) {
        self.left = stations.into();
        self.next = now;
    }

    fn stop(&mut self) {
        *self = Learning::default();
    }

    fn postpone(&mut self, pause: Pause) {
        self.ask = self.ask.map(|at| pause.postpone(at));
        self.next = pause.postpone(self.next);
    }

    fn poll_timeout(&self) -> Option<Time> {
        let next = (!self.left.is_empty()).then_some(self.next);
        self.ask.into_iter().chain(next).min()
    }

    fn take(&mut self, now: Time) -> Vec<Station> {
        if self.left.is_empty() || now < self.next {
            return Vec::new();
        }
        self.next = now + LEARNING_PAUSE;
        self.left.drain(..self.left.len().min(LEARNING_BATCH)).collect()
    }
}

impl Bond {
    /// Another port speaks for the bond: neighbours, routers and switches are to learn it. [bond_main.c: bond_change_active_slave]
    pub(crate) fn announce_move(&mut self, now: Time) {
        if !self.device.up || self.choice.active.is_none() {
            return self.stop_announcing();
        }
        let single = self.mode().has_active();
        if single {
            self.notifier.start(now, self.options.num_grat_arp);
            self.learning.ask = self.options.learn_packets.then_some(now + LATER);
        }
        if single || self.options.mode == ModeName::BalanceRr {
            self.rejoin.start(now + LATER, self.options.resend_igmp);
        }
    }

    /// Drops what is left. [bond_main.c: bond_close]
    pub(crate) fn stop_announcing(&mut self) {
        self.notifier.stop();
        self.rejoin.stop();
        self.learning.stop();
    }

    /// Keeps the rounds apart when the agent was held up.
    pub(crate) fn postpone_announcements(&mut self, pause: Pause) {
        self.notifier.postpone(pause);
        self.rejoin.postpone(pause);
        self.learning.postpone(pause);
    }

    /// When something is to be told.
    pub(crate) fn announce_timeout(&self) -> Option<Time> {
        let due = [
            self.addresses.is_some().then(|| self.notifier.poll_timeout()).flatten(),
            self.rejoin.poll_timeout(),
            self.learning.poll_timeout(),
        ];
        due.into_iter().flatten().min().filter(|_| self.speaker().is_some())
    }

    /// Tells what is due.
    pub(crate) fn announce(&mut self, now: Time) {
        let Some(port) = self.speaker() else { return };
        let mac = self.device.mac;
        let mut frames = Vec::new();
        let interval = self.announce_interval();
        if self.addresses.is_some() && self.notifier.take(now, interval) {
            frames.extend(
                self.addresses
                    .iter()
                    .flatten()
                    .map(|address| announcement(address, mac)),
            );
        }
        if self.learning.ask.is_some_and(|at| now >= at) {
            self.learning.ask = None;
            self.out.push_back(Action::ReadStations);
        }
        frames.extend(
            self.learning
                .take(now)
                .iter()
                .map(|station| rarp::learning_frame(station.mac, &station.tags)),
        );
        self.out
            .extend(frames.into_iter().map(|frame| Action::Transmit { port, frame }));
        if self.rejoin.take(now, REJOIN_INTERVAL) {
            self.out.push_back(Action::ReportMemberships { port });
        }
    }

    /// The port that speaks for the bond.
    fn speaker(&self) -> Option<PortId> {
        self.choice.active.filter(|_| self.device.up)
    }

    /// Time between rounds: peer_notif_delay, else one monitor interval as in the driver, else its default.
    fn announce_interval(&self) -> Duration {
        [self.options.peer_notif_delay, self.options.monitor_interval()]
            .into_iter()
            .find(|delay| !delay.is_zero())
            .unwrap_or(Duration::from_millis(100))
    }
}

/// What has to be looked up first waits until traffic has moved on every bond of this host: an agent that looks up is not one
/// that switches. One tick of the driver's clock. [bond_main.c: bond_change_active_slave]
const LATER: Duration = Duration::from_millis(4);

/// [bond_main.c: bond_resend_igmp_join_requests_delayed]
const REJOIN_INTERVAL: Duration = Duration::from_millis(200);

/// So many addresses at a time.
const LEARNING_BATCH: usize = 32;

/// Between two times.
const LEARNING_PAUSE: Duration = Duration::from_millis(10);

/// The frame that announces one address of a bond.
pub(crate) fn announcement(address: &LocalAddress, bond: MacAddr) -> Vec<u8> {
    let mac = address.mac.unwrap_or(bond);
    match address.ip {
        IpAddr::V4(ip) => arp::Request::gratuitous(mac, ip).frame(&address.tags),
        IpAddr::V6(target) => UnsolicitedAdvertisement {
            target,
            mac,
            router: address.router,
        }
        .frame(&address.tags),
    }
}

//! Announcements after a failover: gratuitous ARP and unsolicited neighbour advertisements for the addresses of this host,
//! learning frames for those behind it, membership reports for its multicast groups.
//! [bond_main.c: bond_peer_notify_work, bond_resend_igmp_join_requests; bonding.rst: num_grat_arp, resend_igmp]

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use bond_monitors::wire::nd::UnsolicitedAdvertisement;
use bond_monitors::wire::{arp, rarp};
use bond_monitors::{MacAddr, Pause, Time};

use crate::action::Action;
use crate::deadline::Deadline;
use crate::event::{HostBehind, LocalAddress};
use crate::ids::PortId;
use crate::mode::Announces;
use crate::options::BondOptions;
use crate::outbox::Outbox;

/// Repeated announcements: the number of rounds left, and the time of the next one.
///
/// differs: exactly the configured number of rounds at even intervals; the driver sends one less or bunches two, depending on
/// its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announcements {
    /// Number of rounds left.
    pub left: u8,
    /// When the next one is due.
    pub next: Deadline,
}

impl Announcements {
    /// Begins anew with a first round at that time.
    fn start(&mut self, first: Deadline, count: u8) {
        *self = Announcements {
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
        (self.left > 0).then_some(self.next.due())
    }

    /// Whether a round is due at `now`; then the next one is planned.
    fn take(&mut self, now: Time, interval: Duration) -> bool {
        if self.left == 0 || now < self.next.due() {
            return false;
        }
        self.left -= 1;
        self.next = Deadline::after(now, interval);
        true
    }
}

/// Addresses behind the bond that are still to be announced, a few at a time, so that a large bridge does not flood the
/// switches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct MovedHosts {
    /// When the agent is to be asked for them.
    ask: Option<Deadline>,
    left: VecDeque<HostBehind>,
    next: Deadline,
}

impl MovedHosts {
    /// Sets the hosts to announce.
    fn fill(&mut self, now: Time, hosts: Vec<HostBehind>) {
        self.left = hosts.into();
        self.next = Deadline::at(now);
    }

    fn stop(&mut self) {
        *self = MovedHosts::default();
    }

    fn poll_timeout(&self) -> Option<Time> {
        let next = (!self.left.is_empty()).then_some(self.next);
        self.ask.into_iter().chain(next).map(Deadline::due).min()
    }

    fn take(&mut self, now: Time) -> Vec<HostBehind> {
        if self.left.is_empty() || now < self.next.due() {
            return Vec::new();
        }
        self.next = Deadline::after(now, LEARNING_PAUSE);
        self.left.drain(..self.left.len().min(LEARNING_BATCH)).collect()
    }
}

/// Announcements after another port begins to speak for the bond.
#[derive(Clone, Debug, Default)]
pub(crate) struct Announcer {
    /// Announcements of addresses.
    notifier: Announcements,
    /// Announcements of memberships.
    rejoin: Announcements,
    moved_hosts: MovedHosts,
    /// `None` until the agent has listed them; a round that is due right after a restart waits for the list.
    addresses: Option<Vec<LocalAddress>>,
}

impl Announcer {
    /// Goes on with rounds that were begun before a restart.
    pub fn resumed(notifier: Announcements, rejoin: Announcements) -> Self {
        Announcer {
            notifier,
            rejoin,
            ..Announcer::default()
        }
    }

    /// Announcements that are left: of addresses and of memberships.
    pub fn announcements(&self) -> (Announcements, Announcements) {
        (self.notifier, self.rejoin)
    }

    /// The addresses that live on the bond or above it.
    pub fn addresses(&self) -> &[LocalAddress] {
        self.addresses.as_deref().unwrap_or_default()
    }

    /// Sets them.
    pub fn set_addresses(&mut self, addresses: Vec<LocalAddress>) {
        self.addresses = Some(addresses);
    }

    /// Sets the hosts behind the bond.
    pub fn set_hosts_behind(&mut self, now: Time, hosts: Vec<HostBehind>) {
        self.moved_hosts.fill(now, hosts);
    }

    /// Starts announcements because another port speaks for the bond. [bond_main.c: bond_change_active_slave]
    pub fn begin(&mut self, now: Time, what: Announces, options: &BondOptions) {
        if what.addresses {
            self.notifier.start(Deadline::at(now), options.num_grat_arp);
            self.moved_hosts.ask = options.learn_packets.then_some(Deadline::after(now, LOOKUP_DELAY));
        }
        if what.memberships {
            self.rejoin
                .start(Deadline::after(now, LOOKUP_DELAY), options.resend_igmp);
        }
    }

    /// Drops what is left. [bond_main.c: bond_close]
    pub fn stop(&mut self) {
        self.notifier.stop();
        self.rejoin.stop();
        self.moved_hosts.stop();
    }

    /// Keeps the rounds apart after a long turn: frames of this turn may have left only at its end.
    pub fn held_up(&mut self, turn: Pause) {
        let rounds = [
            &mut self.notifier.next,
            &mut self.rejoin.next,
            &mut self.moved_hosts.next,
        ];
        for next in rounds.into_iter().chain(&mut self.moved_hosts.ask) {
            next.held_up(turn);
        }
    }

    /// When the next announcement is due.
    pub fn poll_timeout(&self) -> Option<Time> {
        let due = [
            self.addresses.is_some().then(|| self.notifier.poll_timeout()).flatten(),
            self.rejoin.poll_timeout(),
            self.moved_hosts.poll_timeout(),
        ];
        due.into_iter().flatten().min()
    }

    /// Sends what is due through the port that speaks for the bond, whose address is `mac`.
    pub fn run(&mut self, now: Time, port: PortId, mac: MacAddr, options: &BondOptions, out: &mut Outbox) {
        let mut frames = Vec::new();
        if self.addresses.is_some() && self.notifier.take(now, interval(options)) {
            frames.extend(self.addresses().iter().map(|address| announcement(address, mac)));
        }
        if self.moved_hosts.ask.is_some_and(|ask| now >= ask.due()) {
            self.moved_hosts.ask = None;
            out.act(Action::ReadHostsBehind);
        }
        let hosts = self.moved_hosts.take(now);
        frames.extend(hosts.iter().map(|host| rarp::learning_frame(host.mac, &host.tags)));
        for frame in frames {
            out.act(Action::Transmit { port, frame });
        }
        if self.rejoin.take(now, REJOIN_INTERVAL) {
            out.act(Action::ReportMemberships { port });
        }
    }
}

/// Time between rounds: peer_notif_delay, else one monitor interval as in the driver, else its default.
fn interval(options: &BondOptions) -> Duration {
    [options.peer_notif_delay, options.monitor_interval()]
        .into_iter()
        .find(|delay| !delay.is_zero())
        .unwrap_or(Duration::from_millis(100))
}

/// Lookups wait this long, so that every other bond of this host fails over first. One tick of the driver's clock.
/// [bond_main.c: bond_change_active_slave]
const LOOKUP_DELAY: Duration = Duration::from_millis(4);

/// [bond_main.c: bond_resend_igmp_join_requests_delayed]
const REJOIN_INTERVAL: Duration = Duration::from_millis(200);

/// Addresses that are announced at a time.
const LEARNING_BATCH: usize = 32;

/// Time between two of these batches.
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

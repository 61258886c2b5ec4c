//! Announcements after a failover: gratuitous ARP and unsolicited neighbour advertisements.
//! [bond_main.c: bond_peer_notify_work, bonding.rst: num_grat_arp]

use std::net::IpAddr;
use std::time::Duration;

use bond_monitors::wire::arp;
use bond_monitors::wire::nd::UnsolicitedAdvertisement;
use bond_monitors::{MacAddr, Time};
use serde::{Deserialize, Serialize};

use crate::event::LocalAddress;
use crate::options::BondOptions;

/// How many rounds are still to be sent, and when the next one is.
///
/// differs: exactly `num_grat_arp` rounds at even intervals; the driver sends one less or bunches two, by version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notifier {
    left: u8,
    next: Time,
}

impl Notifier {
    /// Begins anew: the first round is due now.
    pub(crate) fn start(&mut self, now: Time, options: &BondOptions) {
        *self = Notifier {
            left: options.num_grat_arp,
            next: now,
        };
    }

    /// Drops what is left. [bond_main.c: bond_close]
    pub(crate) fn stop(&mut self) {
        self.left = 0;
    }

    /// When the next round is due.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        (self.left > 0).then_some(self.next)
    }

    /// Whether a round is due at `now`; then the next one is planned.
    pub(crate) fn take_round(&mut self, now: Time, options: &BondOptions) -> bool {
        if self.left == 0 || now < self.next {
            return false;
        }
        self.left -= 1;
        self.next = now + interval(options);
        true
    }
}

/// Time between rounds: peer_notif_delay, else one monitor interval as in the driver, else its default.
fn interval(options: &BondOptions) -> Duration {
    [options.peer_notif_delay, options.miimon]
        .into_iter()
        .find(|delay| !delay.is_zero())
        .unwrap_or(Duration::from_millis(100))
}

/// The frame that announces one address of a bond.
pub(crate) fn announcement(address: &LocalAddress, bond: MacAddr) -> Vec<u8> {
    let mac = address.mac.unwrap_or(bond);
    match address.ip {
        IpAddr::V4(ip) => arp::Request::gratuitous(mac, ip).frame(address.vlan),
        IpAddr::V6(target) => UnsolicitedAdvertisement {
            target,
            mac,
            router: address.router,
        }
        .frame(address.vlan),
    }
}

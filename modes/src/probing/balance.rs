//! Every port is in use: each is probed, and each must get answers of its own. [bond_main.c: bond_loadbalance_arp_mon]

use bond_monitors::Time;

use super::{Probing, Scene, Verdict};
use crate::port::Port;

impl Probing {
    pub(super) fn verdict_balance(&self, now: Time, port: &Port, scene: &Scene<'_>) -> Option<Verdict> {
        let lives = |missed: u32| {
            let window = scene.options.window();
            window.contains(port.arp.last_tx(), now, missed) && window.contains(port.arp.last_rx(), now, missed)
        };
        if port.is_usable() {
            (!lives(u32::from(scene.options.arp_missed_max))).then_some(Verdict::Down)
        } else {
            (port.carrier().is_on() && lives(1)).then_some(Verdict::Up)
        }
    }
}

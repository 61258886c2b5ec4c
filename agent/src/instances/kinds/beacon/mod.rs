//! A kind of the tests: an interface whose name begins with `beacon` sends a frame each second while it is up. It has in one folder
//! what a kind may have: a machine, facts, a timer, actions, what is shown.

mod machine;

use std::collections::BTreeMap;

use bond_modes::Machine;
use bond_monitors::Time;
use serde_json::{Value, json};

use self::machine::{Action, Beacon, Event};
use crate::instances::Instances;
use crate::instances::kind::Kind;
use crate::netlink::Link;

/// The kind: its machines, by interface.
#[derive(Default)]
pub(super) struct Beacons(BTreeMap<u32, Beacon>);

impl Beacons {
    fn carry_out_actions(&mut self, shared: &Instances, ifindex: u32) {
        let Some(beacon) = self.0.get_mut(&ifindex) else { return };
        while let Some(Action::Transmit { frame }) = beacon.poll_action() {
            for (_, error) in shared.packets.send_all(&[(ifindex, frame)]) {
                log::debug!("{ifindex}: cannot send: {error}");
            }
        }
    }
}

impl Kind<Instances> for Beacons {
    fn name(&self) -> &'static str {
        "beacons"
    }

    fn on_links(&mut self, shared: &mut Instances, now: Time, links: &[Link]) {
        for link in links.iter().filter(|link| link.report.name.starts_with("beacon")) {
            let beacon = self.0.entry(link.ifindex).or_default();
            let up = link.report.admin_up && link.report.carrier.is_on();
            beacon.handle_event(now, Event::Link { up });
            self.carry_out_actions(shared, link.ifindex);
        }
    }

    fn on_gone(&mut self, _: &mut Instances, _: Time, ifindex: u32, _: &str) {
        self.0.remove(&ifindex);
    }

    fn on_addresses(&mut self, _: &mut Instances, _: Time, _: u32) {}

    fn poll_timeout(&self, _: &mut Instances) -> Option<Time> {
        self.0.values().filter_map(Beacon::poll_timeout).min()
    }

    fn handle_timeout(&mut self, shared: &mut Instances, now: Time) {
        let beacons: Vec<u32> = self.0.keys().copied().collect();
        for ifindex in beacons {
            if let Some(beacon) = self.0.get_mut(&ifindex) {
                beacon.handle_timeout(now);
            }
            self.carry_out_actions(shared, ifindex);
        }
    }

    fn show(&self, shared: &Instances, now: Time) -> Option<Value> {
        let name = |ifindex: &u32| Some(shared.host.link(*ifindex)?.report.name.clone());
        let shown = self.0.iter().filter_map(|(ifindex, beacon)| {
            let status = beacon.status(now);
            Some(json!({ "name": name(ifindex)?, "up": status.up, "sent": status.sent }))
        });
        let shown: Vec<Value> = shown.collect();
        (!shown.is_empty()).then_some(Value::Array(shown))
    }
}

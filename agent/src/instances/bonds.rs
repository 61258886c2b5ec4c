//! Bonds as a kind of instances. They are kept with what all kinds share.

use bond_modes::Machine;
use bond_monitors::Time;

use super::Instances;
use super::kind::Kind;
use crate::netlink::Link;

/// The kind.
pub(super) struct Bonds;

impl Kind<Instances> for Bonds {
    fn name(&self) -> &'static str {
        "bonds"
    }

    fn on_links(&mut self, shared: &mut Instances, now: Time, links: &[Link]) {
        shared.rename_ports(links);
        for link in links {
            shared.on_link(now, link);
        }
    }

    fn on_gone(&mut self, shared: &mut Instances, now: Time, ifindex: u32, name: &str) {
        shared.on_gone(now, ifindex, name);
    }

    fn on_addresses(&mut self, shared: &mut Instances, _: Time, ifindex: u32) {
        let outdated = shared.bonds.below(ifindex);
        shared.outdated_addresses.extend(outdated);
    }

    fn poll_timeout(&self, shared: &mut Instances) -> Option<Time> {
        shared.bonds.poll_timeout()
    }

    /// First what may move traffic.
    fn handle_timeout(&mut self, shared: &mut Instances, now: Time) {
        let due = shared.due_with_polls(now);
        for &at in &due {
            let bond = &mut shared.bonds[at].bond;
            if bond.next_poll().is_some_and(|next| next <= now) {
                bond.hold_polls(shared.polls.rest_until(now, at, bond.options().miimon));
            }
            if bond.poll_timeout().is_some_and(|due| due <= now) {
                let only_polls = bond.only_polls(now);
                bond.handle_timeout(now);
                match only_polls {
                    true => shared.carry_out_actions(now, at),
                    false => shared.drain(now, at),
                }
            }
        }
        shared.ask_polled();
        shared.repair_after_pause(now, &due);
    }
}

//! Bonds as a kind of instances. They are kept with what all kinds share.

use bond_modes::Machine;
use bond_monitors::Time;

use super::Instances;
use super::id::InstanceId;
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

    /// First what may move traffic. Of the bonds that have more to do than to poll some are left to the next turn: they are the longest
    /// overdue then. Polls only say what is to be read, and are all read at once.
    fn handle_timeout(&mut self, shared: &mut Instances, now: Time) {
        let mut due = shared.due_with_polls(now);
        let mut timers = 0;
        due.retain(|at| {
            let only_polls = shared.only_polls(now, *at);
            timers += usize::from(!only_polls);
            only_polls || timers <= TIMERS_A_TURN
        });
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

impl Instances {
    fn only_polls(&self, now: Time, at: InstanceId) -> bool {
        self.bonds.get(at).is_some_and(|instance| instance.bond.only_polls(now))
    }
}

/// Bonds with timers that a turn runs at most: the next link event must not wait for the probes of all.
pub(super) const TIMERS_A_TURN: usize = 32;

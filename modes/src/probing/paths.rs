//! Ways to targets: VLAN tags, source address, or another interface.

use std::net::IpAddr;
use std::time::Duration;

use bond_monitors::Time;
use bond_monitors::wire::ethernet::Tag;

use super::{ProbeContext, Probing, restart_grace};
use crate::action::{Action, Notice};
use crate::event::{Reach, TargetPath};
use crate::options::BondOptions;
use crate::outbox::Outbox;
use crate::port::Ports;
use crate::warning::Warning;

impl Probing {
    /// Asks for the ways to all targets, unless they were looked up recently.
    pub(super) fn ask_for_paths(&mut self, now: Time, ports: &Ports, context: &ProbeContext<'_>, out: &mut Outbox) {
        if self.looked_up.is_some_and(|at| now.since(at) < FRESH) {
            return;
        }
        self.looked_up = Some(now);
        let targets = context.options.targets().collect();
        out.act(Action::FindPaths { targets });
        // Finds changes without an event, as polls do for the MII monitor.
        out.act(Action::PollDevice);
        out.act(Action::PollCarriers {
            ports: ports.iter().map(|port| port.id).collect(),
        });
    }

    /// The next tick asks again: targets, routes or addresses have changed.
    pub fn forget_paths(&mut self) {
        self.looked_up = None;
    }

    /// Takes in how targets are reached. Reports changes: a target that is not reached through the bond, and one that is again.
    pub fn on_paths(
        &mut self,
        now: Time,
        paths: Vec<TargetPath>,
        ports: &mut Ports,
        context: &ProbeContext<'_>,
        out: &mut Outbox,
    ) {
        let had_none = self.has_no_target(context.options);
        for path in &paths {
            let known = self.paths.iter().flatten().find(|known| known.target == path.target);
            match (known.map(|known| &known.reach), &path.reach) {
                (Some(before), now) if before == now => {}
                (_, Reach::Elsewhere { device }) => {
                    // differs: the driver takes the ports down one after the other.
                    out.notify(Notice::warning(Warning::TargetElsewhere {
                        target: path.target,
                        device: device.clone(),
                    }));
                }
                (Some(Reach::Elsewhere { .. }), Reach::Through { .. }) => {
                    out.notify(Notice::TargetCounts { target: path.target });
                }
                (None | Some(Reach::Through { .. }), Reach::Through { .. }) => {}
            }
        }
        self.paths = Some(paths);
        if had_none && !self.has_no_target(context.options) {
            restart_grace(now, ports, context);
        }
    }

    /// The targets that are reached through the bond, each with source address and tags.
    pub(super) fn paths_through(&self) -> impl Iterator<Item = (IpAddr, Option<IpAddr>, &[Tag])> {
        self.paths.iter().flatten().filter_map(|path| match &path.reach {
            Reach::Through { source, tags } => Some((path.target, *source, tags.as_slice())),
            Reach::Elsewhere { .. } => None,
        })
    }

    /// Known ways to targets.
    pub fn paths(&self) -> &[TargetPath] {
        self.paths.as_deref().unwrap_or_default()
    }

    /// No target can be asked, so ports follow their carrier only.
    pub fn has_no_target(&self, options: &BondOptions) -> bool {
        let none_through = self.paths.is_some() && self.paths_through().next().is_none();
        options.targets().next().is_none() || none_through
    }
}

/// How long a look-up in the routing table is valid; changes of addresses and links are reported at once.
const FRESH: Duration = Duration::from_secs(1);

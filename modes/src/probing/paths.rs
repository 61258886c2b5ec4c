//! How targets are reached: through which tags, from which address, or not through this bond at all.

use std::net::IpAddr;
use std::time::Duration;

use bond_monitors::Time;
use bond_monitors::wire::ethernet::Tag;

use crate::action::{Action, Notice};
use crate::bond::Bond;
use crate::event::{Reach, TargetPath};

impl Bond {
    /// Asks for the ways to all targets, unless they are known well enough.
    pub(super) fn ask_for_paths(&mut self, now: Time) {
        if self.probing.looked_up.is_some_and(|at| now.since(at) < FRESH) {
            return;
        }
        self.probing.looked_up = Some(now);
        let targets = self.options.targets().collect();
        self.out.push_back(Action::FindPaths { targets });
        // The net below link events, as polls are for the MII monitor.
        self.out.push_back(Action::PollDevice);
        self.out
            .extend(self.ports.iter().map(|port| Action::PollMii { port: port.id }));
    }

    /// The next tick asks again: targets, routes or addresses have changed.
    pub(crate) fn forget_paths(&mut self) {
        self.probing.looked_up = None;
    }

    pub(crate) fn on_paths(&mut self, now: Time, paths: Vec<TargetPath>) {
        let was_blind = self.blind();
        for path in &paths {
            let known = self
                .probing
                .paths
                .iter()
                .flatten()
                .find(|known| known.target == path.target);
            if let Reach::Elsewhere { device } = &path.reach
                && known != Some(path)
            {
                // differs: the driver takes the ports down one after the other.
                let text = format!(
                    "target {} is reached through {device}, not through this bond: it does not count",
                    path.target
                );
                self.notices.push(Notice::Warning { text });
            }
        }
        self.probing.paths = Some(paths);
        match (was_blind, self.blind()) {
            (true, false) => self.excuse(now),
            (false, true) => self.warn_if_unmonitored(),
            _ => {}
        }
    }

    /// The targets that are reached through the bond, each with source address and tags.
    pub(super) fn paths_through(&self) -> impl Iterator<Item = (IpAddr, Option<IpAddr>, &[Tag])> {
        self.probing
            .paths
            .iter()
            .flatten()
            .filter_map(|path| match &path.reach {
                Reach::Through { source, tags } => Some((path.target, *source, tags.as_slice())),
                Reach::Elsewhere { .. } => None,
            })
    }

    /// How targets are reached, as far as it is known.
    pub(crate) fn paths(&self) -> &[TargetPath] {
        self.probing.paths.as_deref().unwrap_or_default()
    }

    /// Nobody can be asked, so nothing but carrier tells whether a port works.
    pub(crate) fn blind(&self) -> bool {
        let none_through = self.probing.paths.is_some() && self.paths_through().next().is_none();
        self.options.targets().next().is_none() || none_through
    }
}

/// How long a look at the routing table is good for; a change of addresses or links is told at once.
const FRESH: Duration = Duration::from_secs(1);

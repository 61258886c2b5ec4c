//! Common parts of modes that send through every usable port.

use bond_monitors::LinkState;

use super::{Change, ModeSaved, View};
use crate::ids::PortId;
use crate::port::{Port, Ports};

/// The port that speaks for the bond. It stays as long as it is usable. [bonding.h: curr_active_slave]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Speaker(Option<PortId>);

impl Speaker {
    /// The port, if there is a usable one.
    pub fn port(self) -> Option<PortId> {
        self.0
    }

    /// Follows a change.
    pub fn on_change(&mut self, change: &Change<'_>, view: &View<'_>) {
        match change {
            Change::Leaving(port) => self.0 = self.0.filter(|speaker| speaker != port),
            Change::Judged { .. } => {
                let stays = self.0.and_then(|id| view.ports.get(id)).is_some_and(Port::is_usable);
                if !stays {
                    self.0 = first(view.ports);
                }
            }
            _ => {}
        }
    }

    /// The saved state of a mode that has only a speaker.
    pub fn save(self) -> ModeSaved {
        ModeSaved {
            active: self.0,
            ..ModeSaved::default()
        }
    }

    /// The kernel does not know the port that speaks for the bond, so the file decides.
    pub fn adopt(&mut self, saved: &ModeSaved, view: &View<'_>) {
        self.0 = saved.active.filter(|id| view.ports.get(*id).is_some());
    }

    /// There is one exactly while a port is usable.
    pub fn check(self, view: &View<'_>) {
        let speaker = self.0.map(|id| view.ports.get(id));
        assert!(
            speaker.is_none_or(|port| port.is_some_and(Port::is_usable)),
            "the port that speaks for the bond is usable"
        );
        assert_eq!(
            speaker.is_some(),
            view.ports.iter().any(Port::is_usable),
            "a port speaks for the bond exactly while one is usable"
        );
    }
}

/// The first port that is up; else, of those in downdelay, the one that lost its carrier last.
fn first(ports: &Ports) -> Option<PortId> {
    let up = ports.iter().find(|port| port.link() == LinkState::Up);
    let latest = || {
        ports
            .iter()
            .filter(|port| port.is_usable())
            .max_by_key(|port| port.link().deadline())
    };
    up.or_else(latest).map(|port| port.id)
}

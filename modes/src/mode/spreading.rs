//! Modes that send through every usable port. They differ only in their [`Way`].

use bond_monitors::{LinkState, Time};

use super::{Announces, Change, Forwarding, Mode, ModeSaved, View};
use crate::ids::PortId;
use crate::outbox::Outbox;
use crate::plan::ForwardingPlan;
use crate::port::{Port, Ports};

/// A way to spread traffic: what one of these modes has of its own.
pub(crate) trait Way {
    /// See [`Mode::title`].
    const TITLE: &'static str;

    /// See [`Mode::forwarding`]. The speaker is the port that speaks for the bond.
    fn forwarding(speaker: Option<PortId>, view: &View<'_>) -> Forwarding;

    /// See [`Mode::announces`].
    fn announces() -> Announces {
        Announces::default()
    }
}

/// A mode that spreads traffic in one way.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spreading<W> {
    /// The port that speaks for the bond. It stays as long as it is usable. [bonding.h: curr_active_slave]
    speaker: Option<PortId>,
    way: W,
}

impl<W: Way> Mode for Spreading<W> {
    fn title(&self) -> &'static str {
        W::TITLE
    }

    fn on_change(&mut self, _now: Time, change: &Change<'_>, view: &View<'_>, _out: &mut Outbox) {
        match change {
            Change::Leaving(port) => self.speaker = self.speaker.filter(|speaker| speaker != port),
            Change::Judged { .. } => {
                let stays = self
                    .speaker
                    .and_then(|id| view.ports.get(id))
                    .is_some_and(Port::is_usable);
                if !stays {
                    self.speaker = first(view.ports);
                }
            }
            _ => {}
        }
    }

    fn forwarding(&self, view: &View<'_>) -> Forwarding {
        W::forwarding(self.speaker, view)
    }

    fn speaker(&self) -> Option<PortId> {
        self.speaker
    }

    fn announces(&self) -> Announces {
        W::announces()
    }

    fn save(&self) -> ModeSaved {
        ModeSaved::Speaker(self.speaker)
    }

    /// The kernel does not know the port that speaks for the bond, so the file decides.
    fn adopt(&mut self, saved: &ModeSaved, _plan: &ForwardingPlan, view: &View<'_>, _out: &mut Outbox) {
        if let ModeSaved::Speaker(speaker) = saved {
            self.speaker = speaker.filter(|id| view.ports.get(*id).is_some());
        }
    }

    /// There is a speaker exactly while a port is usable.
    fn check(&self, view: &View<'_>) {
        let speaker = self.speaker.map(|id| view.ports.get(id));
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

//! Every frame through every port. [bonding.rst: broadcast]

use bond_monitors::Time;

use super::spreading::Speaker;
use super::{Change, Forwarding, Mode, ModeSaved, View};
use crate::ids::PortId;
use crate::outbox::Outbox;
use crate::plan::{ForwardingPlan, Spread, Tx};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Broadcast {
    speaker: Speaker,
}

impl Mode for Broadcast {
    fn on_change(&mut self, _now: Time, change: &Change<'_>, view: &View<'_>, _out: &mut Outbox) {
        self.speaker.on_change(change, view);
    }

    fn forwarding(&self, view: &View<'_>) -> Forwarding {
        let tx = Tx {
            kind: Spread::All,
            ports: view.senders(),
        };
        Forwarding::new(tx, view)
    }

    fn speaker(&self) -> Option<PortId> {
        self.speaker.port()
    }

    fn save(&self) -> ModeSaved {
        self.speaker.save()
    }

    fn adopt(&mut self, saved: &ModeSaved, _plan: &ForwardingPlan, view: &View<'_>, _out: &mut Outbox) {
        self.speaker.adopt(saved, view);
    }

    fn check(&self, view: &View<'_>) {
        self.speaker.check(view);
    }
}

//! Everything through every port. [bonding.rst: broadcast]

use crate::mode::{Mode, View};
use crate::plan::{Spread, TxPolicy};

pub(crate) struct Broadcast;

impl Mode for Broadcast {
    fn spread(&self) -> Spread {
        Spread::All
    }

    fn tx(&self, view: &View<'_>) -> TxPolicy {
        match view.senders() {
            ports if ports.is_empty() => TxPolicy::Drop,
            ports => TxPolicy::All(ports),
        }
    }
}

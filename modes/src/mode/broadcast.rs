//! Every frame through every port. [bonding.rst: broadcast]

use super::spreading::{Spreading, Way};
use super::{Forwarding, View};
use crate::ids::PortId;
use crate::plan::{Spread, Tx};

pub(crate) type Broadcast = Spreading<Copies>;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Copies;

impl Way for Copies {
    const TITLE: &'static str = "fault-tolerance (broadcast)";

    fn forwarding(_speaker: Option<PortId>, view: &View<'_>) -> Forwarding {
        let tx = Tx {
            kind: Spread::All,
            ports: view.senders(),
        };
        Forwarding::new(tx, view)
    }
}

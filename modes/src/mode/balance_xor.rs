//! Each flow through the port that its hash names. [bonding.rst: balance-xor]

use super::spreading::{Spreading, Way};
use super::{Forwarding, View};
use crate::ids::PortId;
use crate::plan::{Spread, Tx};

pub(crate) type BalanceXor = Spreading<ByHash>;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ByHash;

impl Way for ByHash {
    const TITLE: &'static str = "load balancing (xor)";

    fn forwarding(_speaker: Option<PortId>, view: &View<'_>) -> Forwarding {
        let tx = Tx {
            kind: Spread::Hash(view.options.xmit_hash_policy),
            ports: view.senders(),
        };
        Forwarding::new(tx, view)
    }
}

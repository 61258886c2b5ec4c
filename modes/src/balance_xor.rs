//! Each flow through the port that its hash names. [bonding.rst: balance-xor]

use crate::mode::{Mode, View};
use crate::plan::{Spread, TxPolicy};

pub(crate) struct BalanceXor;

impl Mode for BalanceXor {
    fn spread(&self) -> Spread {
        Spread::Hash
    }

    fn tx(&self, view: &View<'_>) -> TxPolicy {
        match view.senders() {
            ports if ports.is_empty() => TxPolicy::Drop,
            ports => TxPolicy::Hash {
                ports,
                policy: view.options.xmit_hash_policy,
            },
        }
    }
}

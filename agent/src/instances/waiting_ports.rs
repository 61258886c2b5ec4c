//! What is known of the ports of bonds that wait to be taken over, beside the picture of the host.

use std::collections::BTreeSet;

use bond_modes::PortId;
use bond_monitors::Time;

/// Ports of bonds that wait.
#[derive(Default)]
pub(super) struct WaitingPorts {
    /// They failed since the order of takeovers was last made.
    pub(super) failed: BTreeSet<PortId>,
    /// They had no carrier at the last poll.
    pub(super) polled_off: BTreeSet<PortId>,
    /// When the next poll begins.
    pub(super) next_poll: Time,
    /// The last one is not answered.
    pub(super) is_polled: bool,
}

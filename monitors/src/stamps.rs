//! When a port was heard: the stamps that a data plane puts on frames that arrive.

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// The last arrivals at one port, whether the bond let them in or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiveStamps {
    /// A frame that somebody else sent.
    pub any: Option<Time>,
    /// Such a frame that is ARP or IPv6.
    pub probes: Option<Time>,
    /// A frame that one of our own ports sent and the network brought back.
    pub own: Option<Time>,
}

//! Receive stamps: the data plane records the times of arriving frames.

use crate::time::Time;

/// Times of the last frames at one port, whether accepted or dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveStamps {
    /// A frame of another host.
    pub any: Option<Time>,
    /// Such a frame that is ARP or IPv6.
    pub probes: Option<Time>,
    /// A frame that a port of the bond sent and the network returned.
    pub own: Option<Time>,
}

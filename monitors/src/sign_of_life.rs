//! Frames that count as a sign of life of a port.

use serde::{Deserialize, Serialize};

/// Frames that count as a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignOfLife {
    /// Any frame of another host.
    Any,
    /// Any such frame that is ARP or IPv6.
    Probes,
    /// A validated answer or probe.
    Validated,
}

//! Why a bond is unmonitored.

/// Why a bond is unmonitored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmonitored {
    /// Neither carrier nor targets are monitored.
    NoMonitor,
    /// No target is reached through the bond.
    NoTarget,
}

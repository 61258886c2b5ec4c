//! Why a bond is unmonitored.

/// Why nothing tells whether ports work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmonitored {
    /// Neither carrier nor targets are watched.
    NoMonitor,
    /// No target is reached through the bond.
    NoTarget,
}

//! A loss of carrier, as a data plane tells of it.

use bond_modes::PortId;
use bond_monitors::Time;

/// A loss of carrier that a data plane reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CarrierLoss {
    /// Index of the bond's interface.
    pub(super) bond: u32,
    pub(super) port: PortId,
    pub(super) at: Time,
    /// The plane has failed over.
    pub(super) failed_over: bool,
}

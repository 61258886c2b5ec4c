//! Ports as the drivers know them.

use bond_modes::PortStatus;

use crate::control::proto::BondReport;

/// Ports that are in the bond, in the order of attaching: the drivers know no others.
pub(super) fn attached(bond: &BondReport) -> impl DoubleEndedIterator<Item = &PortStatus> {
    bond.ports.iter().filter_map(|port| port.status.as_ref())
}

/// The primary port, if it is attached. [bond_options.c: bond_option_primary_set]
pub(super) fn attached_primary(bond: &BondReport) -> Option<&PortStatus> {
    let wanted = bond.status.primary.as_deref()?;
    attached(bond).find(|port| port.name == wanted)
}

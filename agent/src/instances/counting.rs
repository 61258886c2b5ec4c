//! Which bonds are to be counted.

use std::collections::BTreeSet;

use super::gathered::Gathered;
use super::id::InstanceId;

/// Bonds whose ports are to be counted.
#[derive(Default)]
pub(super) struct Counting {
    pub(super) asked: Gathered<InstanceId>,
    /// Those that are not counted yet.
    pub(super) open: BTreeSet<InstanceId>,
    /// Those of them whose modes asked.
    pub(super) by_mode: BTreeSet<InstanceId>,
}

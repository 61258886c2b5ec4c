//! Interfaces of a bond that are being looked at.

use std::collections::BTreeSet;

use bond_modes::PortId;

/// An interface that is to be looked at because of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// A port of a bond.
    Port(PortId),
    /// The bond's own interface.
    Device,
    /// The far end of that: the interface with this index.
    Wire(u32),
}

/// What is known of a repair: what others changed is put back.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// While it goes on: what looks found wrong meanwhile, which may be the state before.
    seen: Option<BTreeSet<Look>>,
    /// The next program that is done ends it.
    last_program: bool,
}

impl Repair {
    /// Changes by others are put back from now on.
    pub(super) fn begin(&mut self) {
        self.seen.get_or_insert_default();
    }

    /// Something is not as the bond needs it; whether that is news. It is not while changes are put back, and is looked at again
    /// afterwards.
    pub(super) fn is_news(&mut self, what: Look) -> bool {
        self.seen.as_mut().is_none_or(|seen| {
            seen.insert(what);
            false
        })
    }

    /// The repair ends with the next program of the plan.
    pub(super) fn end_with_program(&mut self) {
        self.last_program = true;
    }

    /// Whether a repair ends with the program that was just done.
    pub(super) fn ends_with_program(&self) -> bool {
        self.last_program
    }

    /// Changes by others have been put back; what is to be looked at again.
    pub(super) fn end(&mut self) -> BTreeSet<Look> {
        self.last_program = false;
        self.seen.take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_during_a_repair_is_no_news_and_looked_at_again() {
        let mut repair = Repair::default();
        assert!(repair.is_news(Look::Device));
        repair.begin();
        assert!(!repair.is_news(Look::Device));
        repair.begin();
        assert!(!repair.is_news(Look::Wire(7)));
        assert_eq!(repair.end(), [Look::Device, Look::Wire(7)].into());
        assert!(repair.is_news(Look::Device));
        assert_eq!(repair.end(), [].into());
    }
}

//! Interfaces of a bond that are being looked at.

use std::collections::{BTreeMap, BTreeSet};

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

/// Those that are asked for and not answered.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// With whether there was another event meanwhile.
    asked: BTreeMap<Look, bool>,
    /// While changes by others are put back: what looks found wrong meanwhile, which may be the state before.
    repair: Option<BTreeSet<Look>>,
    /// The next program that is done ends that.
    last_program: bool,
}

impl Looks {
    /// Whether the interface is to be looked at now. If that is being done already, it is done once more afterwards.
    pub(super) fn begin(&mut self, what: Look) -> bool {
        let runs = self.asked.contains_key(&what);
        self.asked.insert(what, runs);
        !runs
    }

    /// It was looked at; whether that is to be done once more.
    pub(super) fn end(&mut self, what: Look) -> bool {
        self.asked.remove(&what) == Some(true)
    }

    /// Changes by others are put back from now on.
    pub(super) fn begin_repair(&mut self) {
        self.repair.get_or_insert_default();
    }

    /// Something is not as the bond needs it; whether that is news. It is not while changes are put back, and is looked at again
    /// afterwards.
    pub(super) fn is_news(&mut self, what: Look) -> bool {
        self.repair.as_mut().is_none_or(|seen| {
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
    pub(super) fn end_repair(&mut self) -> BTreeSet<Look> {
        self.last_program = false;
        self.repair.take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_during_a_look_lead_to_one_more() {
        let mut looks = Looks::default();
        assert!(looks.begin(Look::Device));
        assert!(looks.begin(Look::Wire(7)), "another interface");
        assert!(!looks.begin(Look::Device) && !looks.begin(Look::Device));
        assert!(looks.end(Look::Device));
        assert!(looks.begin(Look::Device));
        assert!(!looks.end(Look::Device) && !looks.end(Look::Wire(7)));
    }

    #[test]
    fn what_is_seen_during_a_repair_is_no_news_and_looked_at_again() {
        let mut looks = Looks::default();
        assert!(looks.is_news(Look::Device));
        looks.begin_repair();
        assert!(!looks.is_news(Look::Device));
        looks.begin_repair();
        assert!(!looks.is_news(Look::Wire(7)));
        assert_eq!(looks.end_repair(), [Look::Device, Look::Wire(7)].into());
        assert!(looks.is_news(Look::Device));
        assert_eq!(looks.end_repair(), [].into());
    }
}

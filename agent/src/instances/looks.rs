//! Interfaces of a bond that are being looked at.

use std::collections::BTreeMap;

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

/// Those that are asked for and not answered; with whether there was another event meanwhile.
#[derive(Debug, Default)]
pub(super) struct Looks(BTreeMap<Look, bool>);

impl Looks {
    /// Whether the interface is to be looked at now. If that is being done already, it is done once more afterwards.
    pub(super) fn begin(&mut self, what: Look) -> bool {
        let runs = self.0.contains_key(&what);
        self.0.insert(what, runs);
        !runs
    }

    /// It was looked at; whether that is to be done once more.
    pub(super) fn end(&mut self, what: Look) -> bool {
        self.0.remove(&what) == Some(true)
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
}

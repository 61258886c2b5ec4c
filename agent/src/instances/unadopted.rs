//! Bonds that are expected and not there.
//!
//! Some are not adopted yet: a start has not come to them, or it failed, because the kernel is short of memory, or another program
//! holds its lock for seconds. They forward as before. Until adoption succeeds, their saved state stays as it is and no other bond
//! gets their names. Others are bonds of the option files that could not be made, for want of descriptors, or because another
//! interface has the name. They are tried again until they can be made, or until a client adds or deletes a bond of that name.

use std::collections::BTreeSet;
use std::time::Duration;

use bond_modes::PortId;
use bond_monitors::Time;

use super::id::InstanceId;
use crate::config::BondSpec;
use crate::dataplane::PlaneError;
use crate::saved::SavedBond;

/// The pause before a bond that could not be adopted is tried again, at first.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A bond that is to be adopted, or to be made after all.
#[derive(Clone)]
pub(super) struct Unadopted {
    /// Its name when it was looked for last, also that of its state file.
    pub(super) name: String,
    pub(super) state: State,
    /// Its place among the bonds: the order in which they are taken over is not theirs.
    pub(super) place: Option<InstanceId>,
    /// The lines of the option files that concern it, to be followed afterwards.
    pub(super) specs: Vec<BondSpec>,
    /// Those under its name were followed when it was adopted, or made.
    pub(super) followed: bool,
    /// Attempts that failed.
    pub(super) failures: u32,
    /// When the first one failed.
    pub(super) failed_since: Option<Time>,
    /// Why the last one failed, or why there was none.
    pub(super) reason: String,
    /// When the next one is made; `None` before the first one, which a start makes in its turn.
    pub(super) retry: Option<Time>,
    /// An attempt is being made.
    pub(super) in_hand: bool,
}

/// What is known of a bond from an earlier agent.
#[derive(Clone)]
pub(super) enum State {
    Saved(Box<SavedBond>),
    /// The file cannot be read for now.
    Unread,
    /// There is none.
    Lost,
    /// There is no such bond: the option files name it, and it could not be made.
    Unmade,
}

/// Why a bond is not there after an attempt.
pub(super) enum NotThere {
    /// There may be one, which could not be looked for or taken over.
    Unadopted(PlaneError),
    /// There is none, and none could be made for this reason.
    Unmade(String),
}

impl From<PlaneError> for NotThere {
    fn from(error: PlaneError) -> NotThere {
        NotThere::Unadopted(error)
    }
}

impl Unadopted {
    pub(super) fn new(name: &str, state: State) -> Unadopted {
        Unadopted {
            name: name.to_owned(),
            state,
            place: None,
            specs: Vec::new(),
            followed: false,
            failures: 0,
            failed_since: None,
            reason: "bondd has just started and takes over one bond after the other".to_owned(),
            retry: None,
            in_hand: false,
        }
    }

    /// Its state, if it has been read.
    pub(super) fn saved(&self) -> Option<&SavedBond> {
        match &self.state {
            State::Saved(saved) => Some(saved),
            State::Unread | State::Lost | State::Unmade => None,
        }
    }

    /// Whether it is one of the option files that could not be made, so that nothing forwards for it.
    pub(super) fn is_unmade(&self) -> bool {
        matches!(self.state, State::Unmade)
    }

    /// Its interface, if it is known.
    pub(super) fn ifindex(&self) -> Option<u32> {
        self.saved().map(|saved| saved.ifindex)
    }

    /// Whether one of these is a port of it, as its state says.
    pub(super) fn has_any(&self, ports: &BTreeSet<PortId>) -> bool {
        self.saved()
            .is_some_and(|saved| saved.originals.keys().any(|port| ports.contains(port)))
    }
}

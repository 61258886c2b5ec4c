//! What a start has left to do, one step after the other: changes of one bond each, for the most part.
//!
//! Stages come in the order of their harm if they are late: bonds that forward are unmonitored until they are taken over; ports can
//! only be attached once the bonds that lose them have given them back; and nothing uses a bond yet that is to be made.

use std::collections::{BTreeSet, VecDeque};

use super::id::InstanceId;
use super::task::Task;
use crate::config::BondSpec;

/// What happens at a time, the earliest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Bonds with a saved state are taken over.
    Saved,
    /// So are bonds whose state was lost.
    Orphans,
    /// It is found out what this kernel can do, for bonds that are to be made.
    Examine,
    /// Bonds that are there follow the option files, or are left behind by them.
    Change,
    /// They get the ports that they miss.
    Attach,
    /// The other bonds of the files are made and get their ports.
    Make,
    /// The status files show what there is.
    End,
    /// Nothing is left.
    Done,
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make a change.
    Change(Task),
    /// Remove the status files of bonds that are gone.
    Prune,
    /// Wait until all status files are written.
    Files,
}

/// The steps of the present stage, and what later ones need.
#[derive(Debug)]
pub(super) struct Agenda {
    stage: Stage,
    steps: VecDeque<Step>,
    /// The lines of the option files that were not followed yet, by bond.
    specs: Vec<BondSpec>,
    /// All bonds that the files name.
    named: BTreeSet<String>,
}

impl Agenda {
    /// Nothing to do.
    pub(super) fn empty() -> Agenda {
        Agenda {
            stage: Stage::Done,
            steps: VecDeque::new(),
            specs: Vec::new(),
            named: BTreeSet::new(),
        }
    }

    /// Takes these saved bonds over, then follows the files.
    pub(super) fn new(saved: impl IntoIterator<Item = String>, specs: &[BondSpec]) -> Agenda {
        let adopted = saved.into_iter().map(|bond| Step::Change(Task::Adopt(bond)));
        Agenda {
            stage: Stage::Saved,
            steps: adopted.collect(),
            specs: specs.to_vec(),
            named: specs.iter().map(|spec| spec.name.clone()).collect(),
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// The next step of this stage.
    pub(super) fn pop(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Begins the next stage, for which [`Agenda::add`] is to be called.
    pub(super) fn advance(&mut self) -> Stage {
        self.stage = match self.stage {
            Stage::Saved => Stage::Orphans,
            Stage::Orphans => Stage::Examine,
            Stage::Examine => Stage::Change,
            Stage::Change => Stage::Attach,
            Stage::Attach => Stage::Make,
            Stage::Make => Stage::End,
            Stage::End | Stage::Done => Stage::Done,
        };
        self.stage
    }

    /// Adds steps behind the others.
    pub(super) fn add(&mut self, steps: impl IntoIterator<Item = Step>) {
        self.steps.extend(steps);
    }

    /// Adds steps before all others.
    pub(super) fn add_first(&mut self, steps: Vec<Step>) {
        steps.into_iter().rev().for_each(|step| self.steps.push_front(step));
    }

    /// Orders the bonds that are to be taken over: those with the least value come first.
    pub(super) fn order_takeovers(&mut self, value: impl Fn(&str) -> u8) {
        let value = |step: &Step| match step {
            Step::Change(Task::Adopt(bond)) => value(bond),
            _ => u8::MAX,
        };
        self.steps.make_contiguous().sort_by_cached_key(value);
    }

    /// The lines about this bond, if they were not followed yet.
    pub(super) fn spec(&self, name: &str) -> Option<&BondSpec> {
        self.specs.iter().find(|spec| spec.name == name)
    }

    /// The lines about this bond, which count as followed from now on.
    pub(super) fn take_spec(&mut self, name: &str) -> Option<BondSpec> {
        let place = self.specs.iter().position(|spec| spec.name == name)?;
        Some(self.specs.remove(place))
    }

    /// The lines that were not followed yet.
    pub(super) fn specs(&self) -> &[BondSpec] {
        &self.specs
    }

    /// Whether the files name this bond.
    pub(super) fn names(&self, bond: &str) -> bool {
        self.named.contains(bond)
    }

    /// Whether the ports of this bond are attached in their turn, which may matter: the first one gives the bond its address.
    pub(super) fn owes_ports(&self, at: InstanceId) -> bool {
        let of_it = |step: &Step| matches!(step, Step::Change(Task::Attach(of, _)) if *of == at);
        self.stage < Stage::Attach || self.steps.iter().any(of_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_comes_once_and_what_is_added_first_is_done_first() {
        let saved = ["bond0", "bond1"].map(str::to_owned);
        let mut agenda = Agenda::new(saved, &[]);
        let adopt = |name: &str| Some(Step::Change(Task::Adopt(name.to_owned())));
        assert_eq!(agenda.pop(), adopt("bond0"));
        let attach = |port: &str| Step::Change(Task::Attach(InstanceId(1), port.to_owned()));
        agenda.add_first(vec![attach("a"), attach("b")]);
        let left: Vec<Option<Step>> = (0..4).map(|_| agenda.pop()).collect();
        assert_eq!(left, [Some(attach("a")), Some(attach("b")), adopt("bond1"), None]);
        let mut stages = vec![agenda.stage()];
        while agenda.stage() != Stage::Done {
            stages.push(agenda.advance());
        }
        assert!(stages.is_sorted() && stages.len() == 8, "{stages:?}");
    }

    #[test]
    fn the_bonds_of_the_least_value_are_taken_over_next_in_their_order() {
        let saved = ["bond0", "bond1", "bond2", "bond3"].map(str::to_owned);
        let mut agenda = Agenda::new(saved, &[]);
        agenda.order_takeovers(|bond| u8::from(!["bond1", "bond3"].contains(&bond)));
        let adopted = std::iter::from_fn(|| match agenda.pop() {
            Some(Step::Change(Task::Adopt(bond))) => Some(bond),
            _ => None,
        });
        assert_eq!(adopted.collect::<Vec<_>>(), ["bond1", "bond3", "bond0", "bond2"]);
    }

    #[test]
    fn ports_wait_for_their_turn_only_until_it_has_come() {
        let mut agenda = Agenda::new([], &[]);
        let (one, other) = (InstanceId(1), InstanceId(2));
        assert!(agenda.owes_ports(one), "its turn comes in a later stage");
        while agenda.advance() != Stage::Attach {}
        agenda.add([Step::Change(Task::Attach(one, "a".to_owned()))]);
        assert!(agenda.owes_ports(one) && !agenda.owes_ports(other));
        agenda.pop();
        assert!(!agenda.owes_ports(one));
    }
}

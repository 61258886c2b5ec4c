//! Results of an input, collected while the parts of a bond handle it.

use std::collections::VecDeque;

use bond_monitors::MacAddr;

use crate::action::{Action, Notice};
use crate::ids::PortId;

/// Actions in their order; notices come after the actions of their input.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    actions: VecDeque<Action>,
    notices: Vec<Notice>,
    moves: Vec<AddressMove>,
}

/// An address that a mode moves. [bond_main.c: bond_do_fail_over_mac]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressMove {
    /// The bond's interface gets this one.
    Bond(MacAddr),
    /// This port gets this one for its own.
    Port(PortId, MacAddr),
}

impl Outbox {
    /// Something to do.
    pub fn act(&mut self, action: Action) {
        if action == Action::ReadReceiveStamps {
            // One reading is enough for all who ask; it comes after the actions that the last of them asked for before it.
            self.actions.retain(|asked| *asked != Action::ReadReceiveStamps);
        }
        self.actions.push_back(action);
    }

    /// Whether this action is still to be done.
    pub fn has(&self, action: &Action) -> bool {
        self.actions.contains(action)
    }

    /// Something to report, once all actions of this input are listed.
    pub fn notify(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    /// An address to move at once.
    pub fn move_address(&mut self, to: AddressMove) {
        self.moves.push(to);
    }

    /// Addresses to move, in order.
    pub fn take_moves(&mut self) -> Vec<AddressMove> {
        std::mem::take(&mut self.moves)
    }

    /// Ends an input: its notices follow its actions.
    pub fn close_input(&mut self) {
        self.actions.extend(self.notices.drain(..).map(Action::Notify));
    }

    /// The next action.
    pub fn pop(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}

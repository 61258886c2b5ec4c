//! The outcome of a plan: which of its parts could not be done, and why.

use bond_modes::{ForwardingPlan, PortId};
use bond_monitors::MacAddr;

use super::error::PlaneError;
#[cfg(test)]
use super::step::Failures;

/// A part of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlanPart {
    /// All of it: the plane can do nothing of such a plan.
    Plan,
    /// The address of the bond's interface.
    Mac,
    /// The carrier of the bond's interface.
    Carrier,
    /// Through which ports frames leave, and how they are spread.
    Tx,
    /// Where marked frames leave.
    Steer,
    /// The addresses of the bond and its ports, known as its own.
    OwnMacs,
    /// Which senders above the bond are remembered.
    Senders,
    /// The mark of a device of ours.
    Mark,
    /// That the port is attached.
    Port(PortId),
    /// That the programs are all of this build.
    Programs,
    /// The program on a port, taken over from an earlier agent.
    Program(PortId),
    /// The address of a port.
    PortMac(PortId),
    /// The MTU of a port.
    Mtu(PortId),
    /// Promiscuity of a port.
    Promisc(PortId),
    /// Every multicast group on a port.
    Allmulti(PortId),
    /// Which frames a port lets in.
    Accept(PortId),
}

/// The outcome of a plan.
#[derive(Debug, Default)]
pub struct Applied {
    unfulfilled: Vec<(PlanPart, PlaneError)>,
    mac_left: Option<MacAddr>,
}

impl Applied {
    /// Nothing of a plan can be done; `known` is the address of the bond's interface.
    pub fn refused(error: PlaneError, known: MacAddr, plan: &ForwardingPlan) -> Applied {
        Applied {
            unfulfilled: vec![(PlanPart::Plan, error)],
            mac_left: Some(known).filter(|mac| *mac != plan.mac),
        }
    }

    /// Records the end of one step for a part of the plan; says whether it was done.
    pub fn note(&mut self, part: PlanPart, result: Result<(), PlaneError>) -> bool {
        match result {
            Ok(()) => true,
            Err(error) => {
                self.unfulfilled.push((part, error));
                false
            }
        }
    }

    /// What could not be done and stays so: not what concerns ports that have gone, whose event makes another plan.
    pub fn lasting(&self) -> impl Iterator<Item = (PlanPart, &PlaneError)> {
        let lasting = self.unfulfilled.iter();
        let lasting = lasting.filter(|(_, error)| !matches!(error, PlaneError::PortGone { .. }));
        lasting.map(|(part, error)| (*part, error))
    }

    /// As [`Applied::note`], for the step that sets the bond's address; `known` is the address before it.
    pub fn note_mac(&mut self, known: MacAddr, result: Result<(), PlaneError>) -> bool {
        let done = self.note(PlanPart::Mac, result);
        if !done {
            self.mac_left = Some(known);
        }
        done
    }

    /// The address that the bond's interface has kept, as far as the plane knows, because the plan's could not be set. One that
    /// someone set meanwhile is not meant.
    pub fn mac_left(&self) -> Option<MacAddr> {
        self.mac_left
    }

    /// Whether everything was done.
    pub fn is_complete(&self) -> bool {
        self.unfulfilled.is_empty()
    }

    /// Whether trying again can help.
    pub fn may_pass(&self) -> bool {
        self.unfulfilled.iter().any(|(_, error)| error.may_pass())
    }

    /// The parts that failed, in the order of the steps.
    #[cfg(test)]
    pub fn parts(&self) -> Vec<PlanPart> {
        self.unfulfilled.iter().map(|(part, _)| *part).collect()
    }

    /// One failure for all of them.
    #[cfg(test)]
    pub fn result(self) -> Result<(), PlaneError> {
        let mut errors = Failures::default();
        for (_, error) in self.unfulfilled {
            errors.note(Err(error));
        }
        errors.result()
    }
}

//! Losses of carrier that a data plane saw before any link event, and what it made of them by itself.

use bond_modes::{Bond, Event, NoFailover};
use bond_monitors::Time;

use super::Instances;
use super::carrier_loss::CarrierLoss;
use super::id::InstanceId;
use crate::control::proto::FailoverReport;
use crate::dataplane::PlaneBond;
use crate::text::chain;

impl Instances {
    /// A plane saw that a port of a bond lost its carrier, which may have left the bond by now. A note of a bond that may yet be taken
    /// over waits for that.
    pub(super) fn on_carrier_lost(&mut self, now: Time, loss: CarrierLoss) {
        let Some(bond) = self.bonds.on_device(loss.bond) else {
            if !self.has_started() || self.has_unadopted() {
                self.early_losses.push(loss);
            }
            return;
        };
        self.overtaken(bond);
        // A poll that was asked before may be answered with what was then.
        self.polls.told(loss.port);
        self.untold.carrier_told(loss.port);
        let CarrierLoss {
            port, at, failed_over, ..
        } = loss;
        self.feed(now, bond, Event::CarrierLost { port, at, failed_over });
    }

    /// Notes of losses may be missing: of these bonds nothing may be prepared any more. What cannot be noted moves no traffic, so else
    /// their last plans are in force; and the carriers are read anew.
    pub(super) fn on_notes_lost(&mut self, now: Time, bonds: &[InstanceId]) {
        let can = |at: &&InstanceId| {
            let traffic = self.bonds[**at].traffic.as_ref();
            traffic.is_some_and(|traffic| traffic.fails_over().is_ok())
        };
        let bonds: Vec<InstanceId> = bonds.iter().filter(can).copied().collect();
        if bonds.is_empty() {
            return;
        }
        log::warn!(
            "notes of lost carriers were lost, reading the state of every interface and preparing failovers anew"
        );
        self.untold.prepare_anew(bonds);
        self.resync_later(now);
    }

    /// Prepares a failover anew, after notes may have been lost.
    pub(super) fn prepare_anew(&mut self, now: Time, at: InstanceId) {
        if self.bonds.get(at).is_some() {
            self.overtaken(at);
            self.bonds[at].bond.prepare_anew(now);
            self.drain(now, at);
        }
    }

    /// Reads anew what the plane made of a bond.
    fn overtaken(&mut self, at: InstanceId) {
        let instance = &mut self.bonds[at];
        if let Some(Err(error)) = instance.traffic.as_mut().map(|traffic| traffic.overtaken()) {
            log::warn!("{}: {}", instance.name, chain(&error));
        }
    }

    /// Handles the losses that waited for a bond which is there now. Others wait on, as long as a bond is to come.
    pub(super) fn take_early_losses(&mut self, now: Time) {
        for loss in std::mem::take(&mut self.early_losses) {
            self.on_carrier_lost(now, loss);
        }
    }

    /// Whether a bond's plane can fail over by itself may have changed with a plan: what it needs could be had later.
    pub(super) fn follow_ability(&mut self, now: Time, at: InstanceId) {
        let instance = &mut self.bonds[at];
        let can = instance
            .traffic
            .as_ref()
            .is_some_and(|traffic| traffic.fails_over().is_ok());
        if instance.bond.set_plane_fails_over(now, can) {
            self.drain(now, at);
        }
    }

    /// Whether the kernel fails over by itself for a bond; nothing if its plane cannot do such a thing on any kernel.
    pub(super) fn failover(&self, at: InstanceId) -> Option<FailoverReport> {
        let instance = &self.bonds[at];
        let traffic = instance.traffic.as_ref()?;
        let prepared = traffic.fails_over();
        let why_not = match &prepared {
            Ok(true) => None,
            Ok(false) => Some(why_not(&instance.bond, traffic.why_unprepared())),
            Err(why) => Some(why.clone()),
        };
        Some(FailoverReport {
            possible: prepared.is_ok(),
            in_kernel: why_not.is_none(),
            why_not,
        })
    }
}

/// Whether the plane of a bond can fail over by itself.
pub(super) fn can_fail_over(plane: &dyn PlaneBond) -> bool {
    plane.traffic().is_some_and(|traffic| traffic.fails_over().is_ok())
}

fn why_not(bond: &Bond, failed: Option<String>) -> String {
    let Some(why) = bond.why_no_failover() else {
        return failed.unwrap_or_else(|| "the last plan is not in force yet".to_owned());
    };
    let why = match why {
        NoFailover::ArpMonitor => "targets decide about ports, not carrier",
        NoFailover::NoMonitor => "nothing decides about ports: miimon is 0",
        NoFailover::UseCarrier => "use_carrier is 0",
        NoFailover::BondDown => "the bond is down",
        NoFailover::NoOtherPort => "no other port has its carrier",
        NoFailover::ManyPorts => "more than four ports send",
        NoFailover::Downdelay => "downdelay is not 0",
        NoFailover::Otherwise => "more than the traffic would have to change, or the other ports may not be used yet",
    };
    why.to_owned()
}

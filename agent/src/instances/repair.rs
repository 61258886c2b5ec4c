//! Changes that other programs make to a bond: they are put back, each with a line in the log, and not without limit.
//!
//! An event may be older than the agent's own last change. So it only makes the agent read the state from the kernel, which
//! decides.

use bond_monitors::Time;

use super::Instances;
use super::id::InstanceId;
use super::rate_limit::Permit;
use crate::text::chain;

impl Instances {
    /// Puts back a change by another program, unless that was done too often lately. `what` completes "another program changed".
    pub(super) fn put_back(&mut self, now: Time, at: InstanceId, what: &str) {
        let instance = &mut self.bonds[at];
        let name = instance.name.clone();
        match instance.repairs.permit(now) {
            Permit::Given => {
                log::warn!("{name}: another program changed {what}, putting it back");
                return self.repair(at);
            }
            Permit::Ended => {
                log::error!("{name}: another program changes {what} again and again, leaving it for a minute")
            }
            Permit::Refused => {}
        }
        // So that the next plan, of a failover say, is compared with the state in the kernel.
        let plane = instance.plane.clone();
        self.threads.kernel.ask(move |_| {
            if let Err(error) = plane.refresh() {
                log::debug!("{name}: {}", chain(&error));
            }
            Box::new(|_, _| {})
        });
    }

    /// Repairs those of these bonds whose pause without repairs is over.
    pub(super) fn repair_after_pause(&mut self, now: Time, due: &[InstanceId]) {
        for &at in due {
            if self.bonds[at].repairs.end_pause(now) {
                self.repair(at);
            }
        }
    }
}

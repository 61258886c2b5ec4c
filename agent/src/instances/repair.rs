//! Changes that other programs make to a bond: they are put back, each with a line in the log, and not without limit.
//!
//! An event may be older than the agent's own last change. So it only makes the agent read the state from the kernel, which
//! decides.

use bond_modes::PortId;
use bond_monitors::Time;

use super::Instances;
use super::carrier_loss::CarrierLoss;
use super::id::InstanceId;
use super::looks::Look;
use super::rate_limit::Permit;
use super::unfulfilled::Foreign;
use crate::dataplane::Report;
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
        self.when_free(at, move |instances| {
            instances.threads.kernel.ask(move |kernel| {
                if let Err(error) = plane.refresh(kernel) {
                    log::debug!("{name}: {}", chain(&error));
                }
                Box::new(|_, _| {})
            });
        });
    }

    /// Whether IPv6 is on at a port: frames for the bond would end there. Then it is switched off, with a limit as of
    /// [`Instances::put_back`] for each port: all get it by one write of a sysctl.
    pub(super) fn on_ipv6_seen(&mut self, now: Time, at: InstanceId, (port, name): (PortId, &str), is_on: bool) {
        let instance = &mut self.bonds[at];
        let bond = instance.name.clone();
        let limit = instance.ipv6_repairs.entry(port).or_default();
        let is_given = is_on && limit.permit(now) == Permit::Given;
        let left = (is_on && !is_given).then(|| {
            let what = format!("keep IPv6 off on {name}");
            let why = "another program switches it on again and again, so it is left for a minute";
            (what, why.to_owned()).into()
        });
        instance.unfulfilled.note(now, &bond, Foreign::Ipv6(port), left);
        if !is_given {
            return;
        }
        log::warn!("{bond}: another program switched IPv6 on at {name}, switching it off");
        let forwarder = instance.plane.clone();
        self.when_free(at, move |instances| {
            instances.threads.kernel.ask(move |kernel| {
                if let Some(Err(error)) = forwarder.if_there(kernel, |plane| plane.keep_ipv6_off(port)) {
                    log::error!("{bond}: {}", chain(&error));
                }
                Box::new(|_, _| {})
            });
        });
    }

    /// A data plane has reported these changes. The thread that waits for the kernel judges who made them.
    pub(super) fn on_reports(&mut self, now: Time, plane: &str, reports: Vec<Report>) {
        for report in reports {
            match report {
                Report::Settings { device, .. } => {
                    if let Some(at) = self.bonds.on_device(device) {
                        self.judge(at, report);
                    }
                }
                Report::CarrierLost {
                    bond,
                    port,
                    at,
                    failed_over,
                } => {
                    let loss = CarrierLoss {
                        bond,
                        port,
                        at,
                        failed_over,
                    };
                    self.on_carrier_lost(now, loss);
                }
                Report::FailsOver { bond } => {
                    if let Some(at) = self.bonds.on_device(bond) {
                        self.follow_ability(now, at);
                    }
                }
                Report::Lost => {
                    let mut bonds = self.bonds.ids();
                    bonds.retain(|at| self.bonds[*at].plane.name() == plane);
                    bonds.iter().for_each(|at| self.judge(*at, Report::Lost));
                    self.on_notes_lost(now, &bonds);
                }
            }
        }
    }

    fn judge(&mut self, at: InstanceId, report: Report) {
        let forwarder = self.bonds[at].plane.clone();
        if !forwarder.take_report(report) {
            return;
        }
        self.when_free(at, move |instances| {
            instances.threads.kernel.ask(move |kernel| {
                let is_changed = forwarder.is_changed_by_others(kernel);
                Box::new(move |instances, now| {
                    if is_changed && instances.bonds.get(at).is_some() {
                        instances.put_back(now, at, "how it forwards");
                    }
                })
            });
        });
    }

    /// Repairs those of these bonds whose pause without repairs is over.
    pub(super) fn repair_after_pause(&mut self, now: Time, due: &[InstanceId]) {
        for &at in due {
            if self.bonds[at].repairs.end_pause(now) {
                self.repair(at);
            }
            if self.bonds[at].guard_repairs.end_pause(now) {
                self.look_after_at(at, now);
            }
            let limits = self.bonds[at].ipv6_repairs.iter_mut();
            let over = limits.filter_map(|(port, limit)| limit.end_pause(now).then_some(*port));
            let over: Vec<PortId> = over.collect();
            over.into_iter().for_each(|port| self.look_at(at, Look::Port(port)));
        }
    }
}

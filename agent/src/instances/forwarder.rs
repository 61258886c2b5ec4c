//! A bond's plane, which the loop shares with the threads that may wait for the kernel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use bond_modes::{Epoch, ForwardingPlan};

use crate::dataplane::{Applied, PlaneBond, PlaneError, PortSigns, Report, lock};
use crate::may_wait::MayWait;

/// The plane of one bond, and the plan that it is to do.
pub(super) struct Forwarder {
    name: &'static str,
    signs: PortSigns,
    /// `None` once the bond is removed.
    plane: Mutex<Option<Box<dyn PlaneBond>>>,
    plan: Mutex<Option<(Epoch, ForwardingPlan)>>,
    /// Work that comes before anything else that is done with the plane.
    left: Mutex<Vec<Work>>,
    /// The thread is to do the plan, and has not begun.
    asked: AtomicBool,
    /// What was reported of the bond and is still to be judged.
    reports: Mutex<Vec<Report>>,
}

/// Something done with a plane.
type Work = Box<dyn FnOnce(&mut dyn PlaneBond) + Send>;

/// How the thread did a plan.
pub(super) struct Programmed {
    pub(super) epoch: Epoch,
    pub(super) applied: Applied,
}

impl Forwarder {
    pub(super) fn new(plane: Box<dyn PlaneBond>) -> Forwarder {
        Forwarder {
            name: plane.plane(),
            signs: plane.port_signs(),
            plane: Mutex::new(Some(plane)),
            plan: Mutex::new(None),
            left: Mutex::new(Vec::new()),
            asked: AtomicBool::new(false),
            reports: Mutex::new(Vec::new()),
        }
    }

    /// The name of the plane.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// What link messages say of a port that is as the bond needs it.
    pub(super) fn signs(&self) -> PortSigns {
        self.signs
    }

    /// Does something with the plane. It may wait for the kernel, and for another thread that is at work on this bond, or on another
    /// bond of the same plane.
    ///
    /// # Panics
    /// If the bond was removed.
    pub(super) fn with<T>(&self, _: &mut impl MayWait, work: impl FnOnce(&mut dyn PlaneBond) -> T) -> T {
        let mut plane = self.up_to_date();
        work(plane.as_mut().expect("the bond is there").as_mut())
    }

    /// As [`Forwarder::with`], but nothing if the bond was removed.
    pub(super) fn if_there<T>(&self, _: &mut impl MayWait, work: impl FnOnce(&mut dyn PlaneBond) -> T) -> Option<T> {
        self.up_to_date().as_mut().map(|plane| work(plane.as_mut()))
    }

    /// Takes the plane out, to end it.
    ///
    /// # Panics
    /// As [`Forwarder::with`].
    pub(super) fn take(&self, _: &mut impl MayWait) -> Box<dyn PlaneBond> {
        self.up_to_date().take().expect("the bond is there")
    }

    /// Leaves work for whoever has the plane next, without waiting for it. The thread is to be asked to [`catch
    /// up`](Forwarder::catch_up).
    pub(super) fn leave(&self, work: impl FnOnce(&mut dyn PlaneBond) + Send + 'static) {
        lock(&self.left).push(Box::new(work));
    }

    /// Does what was left. Nothing if the bond was removed.
    pub(super) fn catch_up(&self, _: &mut impl MayWait) {
        drop(self.up_to_date());
    }

    /// The plane, once what was left is done.
    fn up_to_date(&self) -> MutexGuard<'_, Option<Box<dyn PlaneBond>>> {
        let mut plane = lock(&self.plane);
        let left = std::mem::take(&mut *lock(&self.left));
        if let Some(plane) = plane.as_mut() {
            left.into_iter().for_each(|work| work(plane.as_mut()));
        }
        plane
    }

    /// The newest plan, which the thread does when it comes to this bond.
    pub(super) fn set_plan(&self, epoch: Epoch, plan: &ForwardingPlan) {
        *lock(&self.plan) = Some((epoch, plan.clone()));
    }

    /// Notes that the thread is to do the plan; whether it is to be asked for that.
    pub(super) fn is_to_be_asked(&self) -> bool {
        !self.asked.swap(true, Ordering::SeqCst)
    }

    /// Reads what others may have changed, so that the next plan puts it back. Nothing if the bond was removed.
    pub(super) fn refresh(&self, _: &mut impl MayWait) -> Result<(), PlaneError> {
        self.up_to_date().as_mut().map_or(Ok(()), |plane| plane.refresh())
    }

    /// Takes what was reported of the bond; whether the thread is to be asked to judge it.
    pub(super) fn take_report(&self, report: Report) -> bool {
        let mut reports = lock(&self.reports);
        let is_first = reports.is_empty();
        if reports.len() == REPORTS_KEPT {
            // As many as that are a reason to ask the kernel, whatever they say.
            *reports = vec![Report::Lost];
        } else {
            reports.push(report);
        }
        is_first
    }

    /// Whether the reports until now show that another program changed the bond. Not if the bond was removed.
    pub(super) fn is_changed_by_others(&self, _: &mut impl MayWait) -> bool {
        let mut plane = self.up_to_date();
        let reports = std::mem::take(&mut *lock(&self.reports));
        plane.as_mut().is_some_and(|plane| plane.changed_by_others(&reports))
    }

    /// Does the newest plan. `None` if the bond was removed, or has no plan.
    pub(super) fn program(&self, _: &mut impl MayWait) -> Option<Programmed> {
        let mut plane = self.up_to_date();
        let plane = plane.as_mut()?;
        // What is asked for from now on is another job.
        self.asked.store(false, Ordering::SeqCst);
        let (epoch, plan) = lock(&self.plan).clone()?;
        let applied = plane.program(&plan);
        Some(Programmed { epoch, applied })
    }
}

/// Reports of a bond that are kept while the thread is busy, which may be for long.
const REPORTS_KEPT: usize = 64;

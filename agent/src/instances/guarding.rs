//! The guard: what the planes have in the kernel for bonds and no event reports is looked after, and put back.
//!
//! Every bond is looked after once in each round, some bonds at a time, by the thread that waits for the kernel: so no plan waits for
//! all of them, and an idle agent has little to do. A bond of which something was put back is looked after sooner: who took it away may
//! insist. What cannot be put back, or is taken away again and again, is shown as not done until it is right.

use std::collections::BTreeSet;
use std::sync::Arc;

use bond_monitors::Time;

use super::Instances;
use super::forwarder::Forwarder;
use super::guard::{BONDS_A_JOB, SOON};
use super::id::InstanceId;
use super::instance::Instance;
use super::logged_failures::Subject;
use super::rate_limit::Permit;
use super::unfulfilled::{Foreign, Said};
use crate::dataplane::{Amiss, Kept, PlaneError};
use crate::text::chain;

/// What was found of a bond.
type Found = (InstanceId, Result<Vec<Amiss>, PlaneError>);

impl Instances {
    /// When `ask_guard` has something to do.
    pub fn guard_timeout(&self) -> Option<Time> {
        if self.guard.asked || self.bonds.iter().next().is_none() {
            return None;
        }
        let sooner = self.guard.sooner.next();
        Some(sooner.map_or(self.guard.next, |sooner| sooner.min(self.guard.next)))
    }

    /// Has a bond looked after at that time, besides its turn.
    pub(super) fn look_after_at(&mut self, at: InstanceId, when: Time) {
        self.guard.sooner.set(at, Some(when));
    }

    /// Has the bonds looked after that are due.
    pub(super) fn ask_guard(&mut self, now: Time) {
        if self.guard_timeout().is_none_or(|due| due > now) {
            return;
        }
        let mut these: BTreeSet<InstanceId> = self.guard.sooner.due(now).into_iter().take(BONDS_A_JOB).collect();
        for at in &these {
            self.guard.sooner.set(*at, None);
        }
        if self.guard.next <= now {
            let all = self.bonds.ids();
            these.extend(self.guard.next_turn(now, &all));
        }
        let at_work = self.underway.at_work.filter(|at| these.remove(at));
        if let Some(at) = at_work {
            // A change has its plane, and may hold it for long.
            self.look_after_at(at, now + SOON);
        }
        let planes = these.into_iter();
        let planes: Vec<_> = planes
            .filter_map(|at| Some((at, self.bonds.get(at)?.plane.clone())))
            .collect();
        if planes.is_empty() {
            return;
        }
        self.guard.asked = true;
        self.threads.kernel.ask(move |kernel| {
            let look =
                |(at, plane): (InstanceId, Arc<Forwarder>)| Some((at, plane.if_there(kernel, |plane| plane.amiss())?));
            let found: Vec<Found> = planes.into_iter().filter_map(look).collect();
            Box::new(move |instances, now| {
                instances.guard.asked = false;
                for (at, found) in found {
                    instances.on_looked_after(now, at, found);
                }
            })
        });
    }

    fn on_looked_after(&mut self, now: Time, at: InstanceId, found: Result<Vec<Amiss>, PlaneError>) {
        let Some(instance) = self.bonds.get(at) else { return };
        if found.as_ref().is_ok_and(Vec::is_empty) && !instance.has_amiss() {
            return;
        }
        let instance = &mut self.bonds[at];
        let found = found.map_err(|error| chain(&error));
        let doing = "look after what it has in the kernel";
        let looked = instance.failures.record(&instance.name, Subject::Bond, doing, found);
        instance.unlooked = looked.is_none();
        let Some(found) = looked else { return };
        let now_amiss: BTreeSet<Kept> = found.iter().map(|amiss| amiss.what).collect();
        for right in instance.unfulfilled.kept().difference(&now_amiss) {
            instance
                .unfulfilled
                .note(now, &instance.name, Foreign::Kept(*right), None);
        }
        instance.dirty = true;
        let (mendable, lost): (Vec<Amiss>, Vec<Amiss>) = found.into_iter().partition(|amiss| amiss.mending.is_some());
        for amiss in lost {
            let why = amiss.why.clone();
            instance.note_amiss(now, &amiss, why);
        }
        if !mendable.is_empty() {
            self.mend(now, at, mendable);
        }
    }

    /// Puts these back, unless that was done too often lately.
    fn mend(&mut self, now: Time, at: InstanceId, found: Vec<Amiss>) {
        let instance = &mut self.bonds[at];
        let name = instance.name.clone();
        let known = instance.unfulfilled.kept();
        let permit = instance.guard_repairs.permit(now);
        if permit != Permit::Given {
            for amiss in &found {
                let why = format!(
                    "another program {} again and again, so that is left for a minute",
                    amiss.done
                );
                instance.note_amiss(now, amiss, why);
            }
            return;
        }
        // Of others the log has why they could not be put back.
        for amiss in found.iter().filter(|amiss| !known.contains(&amiss.what)) {
            let mending = amiss.mending.unwrap_or_default();
            log::warn!("{name}: another program {}, {mending}", amiss.done);
        }
        let plane = instance.plane.clone();
        self.when_free(at, move |instances| {
            instances.threads.kernel.ask(move |kernel| {
                let mut done = Vec::new();
                plane.if_there(kernel, |plane| {
                    done.extend(found.into_iter().map(|amiss| {
                        let put_back = plane.put_back(amiss.what);
                        (amiss, put_back)
                    }));
                });
                Box::new(move |instances, now| instances.on_mended(now, at, done))
            });
        });
    }

    fn on_mended(&mut self, now: Time, at: InstanceId, done: Vec<(Amiss, Result<(), PlaneError>)>) {
        let Some(instance) = self.bonds.get(at) else { return };
        let name = instance.name.clone();
        let (mut all, mut moved) = (true, false);
        let instance = &mut self.bonds[at];
        for (amiss, done) in done {
            match done {
                Ok(()) => {
                    let what = Foreign::Kept(amiss.what);
                    instance.unfulfilled.note(now, &name, what, None);
                    moved |= amiss.what == Kept::Wire;
                }
                Err(PlaneError::PortGone { .. }) => {}
                Err(error) => {
                    all = false;
                    instance.note_amiss(now, &amiss, chain(&error));
                }
            }
        }
        instance.dirty = true;
        if moved {
            // Its carrier, and what else of it a plan sets.
            self.repair(at);
        }
        if all {
            self.look_after_at(at, now + SOON);
        }
    }
}

impl Instance {
    /// Whether anything of what is looked after was not right, or could not be read.
    fn has_amiss(&self) -> bool {
        self.unlooked || !self.unfulfilled.kept().is_empty()
    }

    fn note_amiss(&mut self, now: Time, amiss: &Amiss, why: String) {
        let said = Said {
            what: amiss.lacks.clone(),
            why,
            is_cut: amiss.is_cut,
        };
        let what = Foreign::Kept(amiss.what);
        self.unfulfilled.note(now, &self.name, what, Some(said));
    }
}

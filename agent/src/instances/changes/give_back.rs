//! Gives back ports that have left their bonds. What cannot be given back is kept and tried again, until the interface is gone or
//! becomes a port again.

use std::collections::BTreeMap;

use bond_modes::PortId;
use bond_monitors::Time;

use super::super::Instances;
use super::super::id::InstanceId;
use crate::dataplane::step::twice;
use crate::dataplane::{OriginalPort, PlaneError};
use crate::saved::{LeftPort, SavedBond};

impl Instances {
    /// Gives back a port that its bond does not use any more.
    pub(in crate::instances) fn give_back(&mut self, now: Time, at: InstanceId, port: PortId, original: OriginalPort) {
        let instance = &mut self.bonds[at];
        let detach = || instance.plane.with(|plane| plane.detach(port, &original));
        if let Err(error) = twice(detach).or_else(unless_gone) {
            instance.unrestored.insert(port, original);
            let bond = instance.name.clone();
            self.return_failed(now, &bond, port, &error);
        }
    }

    /// Gives back the ports of a bond whose interface is gone.
    pub(in crate::instances) fn give_back_all(&mut self, now: Time, saved: &mut SavedBond) {
        let (bond, plane) = (saved.name.clone(), saved.plane().to_owned());
        log::warn!("{bond}: its interface is gone, giving its ports back");
        self.leave(&bond, &plane, std::mem::take(&mut saved.unrestored));
        for (port, original) in std::mem::take(&mut saved.originals) {
            if let Err(error) = twice(|| self.give_back_orphan(&bond, &plane, port, &original)).or_else(unless_gone) {
                self.leave(&bond, &plane, [(port, original)].into());
                self.return_failed(now, &bond, port, &error);
            }
        }
        // First this, so that there are settings on disk at any time.
        self.save_left();
        let removal = self.store.removal(&[saved.ifindex].into());
        let _ = self.work_on_files(removal);
    }

    /// Keeps settings of ports that outlive their bond.
    pub(in crate::instances) fn leave(&mut self, bond: &str, plane: &str, ports: BTreeMap<PortId, OriginalPort>) {
        let left = ports.into_iter().map(|(port, original)| {
            let (bond, plane) = (bond.to_owned(), plane.to_owned());
            (port, LeftPort { bond, plane, original })
        });
        self.unrestored.extend(left);
    }

    pub(in crate::instances) fn return_failed(&mut self, now: Time, bond: &str, port: PortId, error: &PlaneError) {
        let link = self.links.by_index(port.0).ok().flatten();
        let name = link.map_or_else(|| port.to_string(), |link| link.report.name);
        self.returns.failed(now, port, format!("{bond}: {name}"), error);
    }

    /// When the next port is tried again.
    pub(in crate::instances) fn give_back_timeout(&mut self) -> Option<Time> {
        let left = self.left_ports().into_iter();
        left.map(|port| self.returns.retry(port)).min()
    }

    /// Makes the attempts that are due.
    pub(in crate::instances) fn give_back_due(&mut self, now: Time) {
        for port in self.left_ports() {
            if self.returns.retry(port) <= now {
                self.try_give_back(now, port);
            }
        }
    }

    fn left_ports(&mut self) -> Vec<PortId> {
        let mut left = self.bonds.left_ports();
        left.extend(self.unrestored.keys());
        left
    }

    fn try_give_back(&mut self, now: Time, port: PortId) {
        let link = match self.links.by_index(port.0) {
            Ok(Some(link)) => link,
            Ok(None) => return self.forget_unrestored(port),
            Err(source) => {
                let doing = format!("read {port}");
                let error = PlaneError::Kernel { doing, source };
                return self.returns.failed(now, port, port.to_string(), &error);
            }
        };
        let name = link.report.name.clone();
        if self.bonds.wanting(&name).is_some() {
            self.returns.wait(now, port, &name);
            return;
        }
        let (bond, done) = match self.bonds.keeping(port).first() {
            Some(at) => {
                let instance = &mut self.bonds[*at];
                let original = instance.unrestored[&port].clone();
                (
                    instance.name.clone(),
                    instance.plane.with(|plane| plane.detach(port, &original)),
                )
            }
            None => {
                let left = self.unrestored[&port].clone();
                let done = self.give_back_orphan(&left.bond, &left.plane, port, &left.original);
                (left.bond, done)
            }
        };
        match done.or_else(unless_gone) {
            Ok(is_back) => {
                if is_back {
                    log::info!("{bond}: {name}: given back as it was");
                }
                self.forget_unrestored(port);
            }
            Err(error) => self.return_failed(now, &bond, port, &error),
        }
    }

    fn give_back_orphan(
        &mut self,
        bond: &str,
        plane: &str,
        port: PortId,
        original: &OriginalPort,
    ) -> Result<bool, PlaneError> {
        self.planes.known(plane)?.give_back(bond, port, original)
    }

    /// The original settings of an interface that has not got them back.
    pub(in crate::instances) fn unrestored(&mut self, port: PortId) -> Option<&OriginalPort> {
        let keeper = self.bonds.keeping(port).first().copied();
        let kept = keeper.and_then(|at| self.bonds.get(at)?.unrestored.get(&port));
        kept.or_else(|| self.unrestored.get(&port).map(|left| &left.original))
    }

    /// An interface has its settings again, is a port, or is gone.
    pub(in crate::instances) fn forget_unrestored(&mut self, port: PortId) {
        self.returns.forget(port);
        for at in self.bonds.keeping(port) {
            self.bonds[at].unrestored.remove(&port);
            self.bonds[at].dirty = true;
        }
        if self.unrestored.remove(&port).is_some() {
            self.save_left();
        }
    }

    /// A failure is logged by the store, and tried again each second.
    pub(in crate::instances) fn save_left(&mut self) {
        let left = self.store.left(&self.unrestored);
        self.left_unsaved = self.work_on_files(left).is_err();
    }
}

/// One that has gone needs nothing given back.
fn unless_gone(error: PlaneError) -> Result<bool, PlaneError> {
    match error {
        PlaneError::PortGone { .. } => Ok(false),
        error => Err(error),
    }
}

//! Gives back ports that have left their bonds. What cannot be given back is kept and tried again, until the interface is gone or
//! becomes a port again.

use bond_modes::PortId;

use super::super::id::InstanceId;
use super::super::tools::Tools;
use super::change::Change;
use crate::dataplane::step::twice;
use crate::dataplane::{OriginalPort, PlaneError, name_of};
use crate::saved::SavedBond;
use crate::text::chain;

impl Change<'_> {
    /// Gives back a port that its bond does not use any more.
    pub(in crate::instances) fn give_back(&mut self, at: InstanceId, port: PortId) {
        let Some(original) = self.bonds[at].unrestored.get(&port).cloned() else {
            return;
        };
        let detached = self.on_plane(at, |plane| twice(|| plane.detach(port, &original)));
        match detached.or_else(unless_gone) {
            Ok(_) => self.forget_unrestored(port),
            Err(error) => {
                let bond = self.bonds[at].name.clone();
                self.return_failed(&bond, port, &error);
            }
        }
    }

    /// Gives back the ports of a bond whose interface is gone.
    pub(in crate::instances) fn give_back_all(&mut self, saved: &mut SavedBond) {
        let (bond, plane) = (saved.name.clone(), saved.plane().to_owned());
        log::warn!("{bond}: its interface is gone, giving its ports back");
        self.leave(&bond, &plane, std::mem::take(&mut saved.unrestored));
        let device = saved.ifindex;
        if let Err(error) = self.unlocked(|tools| tools.planes.known(&plane)?.forget(device)) {
            // It is done first when a port is given back.
            log::debug!("{bond}: {}", chain(&error));
        }
        for (port, original) in std::mem::take(&mut saved.originals) {
            let given_back = self.unlocked(|tools| twice(|| give_back_orphan(tools, &bond, &plane, port, &original)));
            if let Err(error) = given_back.or_else(unless_gone) {
                self.leave(&bond, &plane, [(port, original)].into());
                self.return_failed(&bond, port, &error);
            }
        }
        self.remove_state(saved.ifindex);
    }

    /// Puts the next attempt off, after one that failed.
    pub(in crate::instances) fn return_failed(&mut self, bond: &str, port: PortId, error: &PlaneError) {
        let link = self.unlocked(|tools| tools.links.by_index(port.0)).ok().flatten();
        let name = link.map_or_else(|| port.to_string(), |link| link.report.name);
        let now = self.now();
        self.returns.failed(now, port, format!("{bond}: {name}"), error);
    }

    /// Makes another attempt to give back a port.
    pub(in crate::instances) fn try_give_back(&mut self, port: PortId) {
        let link = match self.read_index(port.0) {
            Ok(Some(link)) => link,
            Ok(None) => return self.forget_unrestored(port),
            Err(source) => {
                let doing = format!("read {}", name_of(port));
                let error = PlaneError::Kernel { doing, source };
                let now = self.now();
                return self.returns.failed(now, port, name_of(port), &error);
            }
        };
        let name = link.report.name.clone();
        let wanting = self.bonds.wanting(&name).and_then(|at| self.bonds.get(at));
        // One that stands on its bond stays out until a person has changed that.
        if wanting.is_some_and(|instance| !instance.attempts.is_circle(&name)) {
            let now = self.now();
            self.returns.wait(now, port, &name);
            return;
        }
        let (bond, done) = match self.bonds.keeping(port).first() {
            Some(at) => {
                let instance = &self.bonds[*at];
                let (bond, original) = (instance.name.clone(), instance.unrestored[&port].clone());
                (bond, self.on_plane(*at, |plane| plane.detach(port, &original)))
            }
            None => {
                let Some(left) = self.left.ports.get(&port).cloned() else {
                    return;
                };
                let give_back =
                    |tools: &mut Tools| give_back_orphan(tools, &left.bond, &left.plane, port, &left.original);
                let done = self.unlocked(give_back);
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
            Err(error) => self.return_failed(&bond, port, &error),
        }
    }
}

fn give_back_orphan(
    tools: &mut Tools,
    bond: &str,
    plane: &str,
    port: PortId,
    original: &OriginalPort,
) -> Result<bool, PlaneError> {
    tools.planes.known(plane)?.give_back(bond, port, original)
}

/// One that has gone needs nothing given back.
pub(in crate::instances) fn unless_gone(error: PlaneError) -> Result<bool, PlaneError> {
    match error {
        PlaneError::PortGone { .. } => Ok(false),
        error => Err(error),
    }
}

//! What is kept for each bond, and the sockets, programs and pins that all bonds of the plane share.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::Sender;

use bond_modes::PortId;

use super::bpf::BondBpf;
use super::device::{DeviceKind, NewBonds, Suitable};
use super::failover::InKernel;
use super::forwarding::{Forwarding, Short};
use super::hook::{Attached, Hold};
use super::lists;
use super::object::Loader;
use super::pins::{BondPins, Pins};
use super::programs::Programs;
use crate::dataplane::PlaneError;
use crate::dataplane::step::{BPF, step, step_with};
use crate::netlink::RouteSocket;

/// What plans are done with, and what else must not wait while a bond is made: locked for one call, and not with [`Shared`].
pub(super) struct Planning {
    pub(super) links: RouteSocket,
    /// For programs that a plan exchanges.
    pub(super) loader: Loader,
}

/// What bonds are made with, taken over and removed, and ports attached and given back. It is locked for the length of one such call,
/// and none of these calls makes another. Such a call may wait for the kernel; see the plane's module.
pub(super) struct Shared {
    pub(super) run_dir: PathBuf,
    pub(super) new_bonds: NewBonds,
    /// Found out when first needed.
    pub(super) suitable: Suitable,
    pub(super) links: RouteSocket,
    /// Inode number of the network namespace.
    pub(super) netns: u64,
    /// For the programs of all bonds.
    pub(super) loader: Loader,
    /// What fails over by itself.
    pub(super) in_kernel: InKernel,
    /// For the lists of all bonds.
    pub(super) restocker: Sender<Short>,
    /// Opened when the first bond needs it: it may have to be mounted.
    pub(super) pins: Option<Pins>,
    /// See [`Shared::swept_pins`].
    pub(super) swept: bool,
    /// Indexes of bonds that are gone and of which something is still pinned.
    pub(super) unforgotten: BTreeSet<u32>,
    /// Indexes of the bonds that were made or taken over.
    pub(super) taken: BTreeSet<u32>,
    /// A grace period has passed since no earlier agent writes the maps of the others.
    pub(super) settled: bool,
}

/// A bond that this process made or took over.
pub(super) struct Bond {
    pub(super) ifindex: u32,
    pub(super) wire: u32,
    pub(super) kind: DeviceKind,
    pub(super) pins: BondPins,
    pub(super) programs: Programs,
    /// How the programs on ports are attached.
    pub(super) hook: Attached,
    /// The wire was seen in another network namespace.
    pub(super) wire_left: bool,
    /// Links that keep the programs in place while this process runs: on the device and on ports.
    pub(super) tx_hold: Hold,
    pub(super) port_holds: BTreeMap<PortId, Hold>,
    pub(super) forwarding: Forwarding,
}

impl Bond {
    /// The attached ports.
    pub(super) fn ports(&self) -> Vec<PortId> {
        self.forwarding.with(|now| now.applied.ports.keys().copied().collect())
    }

    /// Notes whether programs of an earlier agent are still to be taken over.
    pub(super) fn note_unfinished(&self) {
        let unfinished = self.programs.are_stale() || !self.holds_all();
        self.forwarding.with(|now| now.unfinished = unfinished);
    }

    /// Whether the programs on all ports are ours.
    pub(super) fn holds_all(&self) -> bool {
        self.ports().iter().all(|port| self.port_holds.contains_key(port))
    }
}

impl Shared {
    /// The folder of pins. The first call opens it.
    pub(super) fn pins(&mut self) -> Result<&Pins, PlaneError> {
        let pins = match self.pins.take() {
            Some(mut pins) => {
                // Without the lock forwarding goes on all the same; only another agent could tidy up too much.
                if let Err(error) = pins.retry_lock() {
                    log::debug!("cannot lock the folder of pins: {error}");
                }
                pins
            }
            None => {
                let open = || {
                    format!(
                        "mount a bpffs under {} (or mount one on /sys/fs/bpf)",
                        self.run_dir.display()
                    )
                };
                step_with(&BPF, open, || Pins::open(&self.run_dir, self.netns))?
            }
        };
        Ok(self.pins.insert(pins))
    }

    /// The same, without stale pins, unless another agent has the folder. The first call removes them, for which each bond that has
    /// pins is looked for: bonds that forward already are taken over before that.
    pub(super) fn swept_pins(&mut self) -> Result<&Pins, PlaneError> {
        self.pins()?;
        let pins = self.pins.as_ref().expect("they were just opened");
        if !self.swept && pins.is_locked() {
            sweep(pins, &mut self.links, &self.in_kernel)?;
            self.swept = true;
        }
        Ok(pins)
    }

    /// Takes over the lists that an earlier agent wrote into these maps. One grace period serves all bonds, as that agent ended
    /// before this one got the lock; not a bond that this one had already.
    pub(super) fn take_over_lists(&mut self, ifindex: u32, bpf: &mut BondBpf) -> io::Result<()> {
        let is_new = self.taken.insert(ifindex);
        if !bpf.has_old_lists() {
            return Ok(());
        }
        if !is_new || !self.settled {
            lists::grace_period();
            self.settled = self.pins.as_ref().is_some_and(Pins::is_locked);
        }
        bpf.take_over_lists()
    }

    /// Where what fails over in the kernel is pinned, if no other agent has the folder now.
    pub(super) fn failover_folder(&mut self) -> Option<PathBuf> {
        let pins = self.pins.as_mut()?;
        if let Err(error) = pins.retry_lock() {
            log::debug!("cannot lock the folder of pins: {error}");
        }
        pins.is_locked().then(|| pins.failover())
    }

    /// The folder of pins of an earlier agent, if there is one; opens none.
    pub(super) fn find_pins(&self) -> Result<Option<Pins>, PlaneError> {
        step(
            || "look for the pins".to_owned(),
            || Pins::find(&self.run_dir, self.netns),
        )
    }

    /// Removes what is pinned for a bond that is gone. If another interface has its index, what is pinned stays.
    pub(super) fn forget_bond(&mut self, device: u32) -> Result<(), PlaneError> {
        self.unforgotten.insert(device);
        let found = match &self.pins {
            Some(_) => None,
            None => self.find_pins()?,
        };
        if let Some(pins) = self.pins.as_ref().or(found.as_ref()) {
            let link = step(|| format!("read interface {device}"), || self.links.by_index(device))?;
            if link.is_none() {
                self.in_kernel.forget(device);
                step(
                    || "remove the pins of a bond that is gone".to_owned(),
                    || pins.bond(device).remove(),
                )?;
                sweep_prepared(pins, &self.in_kernel);
            }
        }
        self.unforgotten.remove(&device);
        Ok(())
    }

    /// Does that for the bonds for which it failed.
    pub(super) fn forget_bonds(&mut self) -> Result<(), PlaneError> {
        let mut left = self.unforgotten.clone().into_iter();
        left.try_for_each(|device| self.forget_bond(device))
    }
}

/// Removes the pins of all bonds that are gone.
fn sweep(pins: &Pins, links: &mut RouteSocket, in_kernel: &InKernel) -> Result<(), PlaneError> {
    let alive = |ifindex| !matches!(links.by_index(ifindex), Ok(None));
    step(|| "remove stale pins".to_owned(), || pins.sweep(alive))?;
    sweep_prepared(pins, in_kernel);
    if let Err(error) = pins.sweep_namespaces() {
        log::warn!("cannot look for pins that nothing uses: {error}");
    }
    Ok(())
}

fn sweep_prepared(pins: &Pins, in_kernel: &InKernel) {
    let prepared = match pins.has_bonds() {
        true => in_kernel.sweep(),
        false => in_kernel.close(),
    };
    if let Err(error) = prepared {
        log::warn!("cannot remove what was prepared for bonds that are gone: {error}");
    }
}

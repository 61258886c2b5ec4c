//! The tc data plane: eBPF classifier programs between the two ends of a device and the ports.
//!
//! ```text
//!   stack - bond0 ======= wire<N>  <- bond_tx: out of a port
//!                            |
//!                     eth0  eth1   <- port_rx: out of the wire, hence into bond0, or refused
//! ```
//! `bond0` is one end of a veth pair or of a netkit device, so its counters, captures, qdiscs and carrier are those of a real
//! device; its carrier is the administrative state of the other end. On netkit, `bond_tx` is on `bond0` itself. The programs (`bpf/*.bpf.c`) forward on their own: everything they need is in maps
//! pinned by name, and they stay attached without this process. So a new agent *observes*: it takes over device, maps and ports,
//! exchanges programs of another build for its own in place, and reads back the plan in force.
//!
//! | File | What |
//! |---|---|
//! | `bpf/`, `object` | the programs: one for ports, and one for the wire for each way of spreading |
//! | `layout`, `maps`, `upgrade` | the maps of one bond and what they hold; those of an earlier layout |
//! | `bpf`, `programs` | the maps of one bond, read and written; its programs |
//! | `bond`, `forwarding`, `adopt` | what is kept for a bond; what is in force of it; bonds taken over |
//! | `failover/` | what the kernel does by itself when a port loses its carrier |
//! | `lists`, `restock` | lists of ports that are never seen half written; how the loop always finds room for the next |
//! | `guard` | what is put back if another program takes it away, and no event says so |
//! | `hook`, `sys` | how programs are attached: tcx or netkit links, or clsact filters |
//! | `bpffs`, `pins` | where the pins are |
//! | `device/`, `port` | the device of a bond, of either kind; ports taken in, given back, taken over |
//! | `queues` | traffic that an operator sends through a port of his choice |
//! | `program`, `traffic` | from the plan in force to the wanted one, and in which order; the steps of it that are a failover |
//!
//! Five threads use the plane:
//! - The loop moves the traffic of bonds by [`Traffic`].
//! - The thread of changes makes and removes bonds, and attaches and detaches ports.
//! - The kernel thread does the rest of a plan, forgets ports that are gone, and reads again what other programs may have changed.
//! - `bondd-lists`, of `restock`, waits for grace periods of the kernel, so that lists of ports find room.
//! - `failover` brings the program of `failover/` into the kernel, or puts it in the place of another build's, and lets bonds enter and
//!   leave its maps.
//!
//! The examiner of `doctor` is none of them: it loads programs of its own, and reads here only why the kernel does not fail over. These
//! are the locks:
//! - The one of `Shared`, for all bonds. A call that makes requests holds it to its end, however long the kernel's RTNL lock
//!   keeps it waiting. The next such call of another thread waits for it, whatever its bond. It has the lock of the folder of pins,
//!   too, so `failover` takes it, with nothing else locked, to ask whether this agent has the folder by now.
//! - The one of `Forwarding`, for each bond. All threads hold it for reads and writes of maps only: never across a netlink
//!   request, the loading or attaching of a program, a sysctl, a file or a grace period.
//! - Those of `InKernel`, for all bonds. One is for who may wait for a grace period of the kernel, which is `failover`, and
//!   now and then who has that of `Shared`; never who has that of `Forwarding`. The others are held for single map requests.
//!
//! [`Traffic`] takes the second only, so a failover waits for no lock of the kernel but the map's. The plan that the traffic
//! followed last counts for every map write of all threads.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bond_modes::{BondOptions, ForwardingPlan, PortId};

use self::bond::{Bond, Planning, Shared};
use self::device::Suitable;
use self::failover::{InKernel, LossWatch};
use self::object::Loader;
use self::pins::Pins;
use super::lock::lock;
use super::port::switch_ipv6_off;
use super::step::step;
use super::{
    Adopted, Amiss, Applied, BondDevice, BondName, Examiner, Kept, Observed, OriginalPort, Plane, PlaneBond,
    PlaneError, PlaneReport, PortBase, PortCounters, PortSigns, Traffic, Watch, can,
};
use crate::netlink::RouteSocket;
use crate::text::chain;

mod adopt;
mod bond;
mod bpf;
mod bpffs;
mod counted;
mod device;
mod errors;
mod failover;
mod folder;
mod forwarding;
mod guard;
mod hook;
mod layout;
mod lists;
mod maps;
mod object;
mod pins;
mod port;
mod port_hook;
mod program;
mod programs;
mod queues;
mod restock;
mod sys;
#[cfg(test)]
mod tests;
mod traffic;
mod upgrade;

pub use self::device::{DeviceChoice, NewBonds, is_bond};
pub use self::failover::FailoverChoice;
pub use self::hook::Hook;

/// The tc data plane of one network namespace: the one in which it was opened.
pub struct TcPlane {
    shared: Arc<Mutex<Shared>>,
    planning: Arc<Mutex<Planning>>,
    run_dir: PathBuf,
    new_bonds: NewBonds,
    suitable: Suitable,
    in_kernel: InKernel,
}

/// A bond of this plane.
pub struct TcBond {
    shared: Arc<Mutex<Shared>>,
    planning: Arc<Mutex<Planning>>,
    bond: Bond,
}

impl TcPlane {
    /// A plane for the network namespace of the calling thread. Where the machine has no bpffs, one is mounted under `run_dir`
    /// when the first bond needs it. A bond that is there keeps what it is made of.
    pub fn open(run_dir: &Path, new_bonds: NewBonds, failover: FailoverChoice) -> Result<TcPlane, PlaneError> {
        let links = step(|| "open a netlink socket".to_owned(), RouteSocket::open)?;
        let netns = step(
            || "read the network namespace".to_owned(),
            || fs::metadata("/proc/thread-self/ns/net"),
        )?;
        let suitable = Suitable::default();
        let planning = Planning {
            links: step(|| "open a netlink socket".to_owned(), RouteSocket::open)?,
            loader: Loader::default(),
        };
        let in_kernel = step(|| "make a descriptor".to_owned(), || InKernel::new(failover))?;
        let shared = Shared {
            run_dir: run_dir.to_owned(),
            new_bonds,
            suitable: suitable.clone(),
            links,
            netns: netns.ino(),
            loader: Loader::default(),
            in_kernel: in_kernel.clone(),
            restocker: step(|| "start a thread".to_owned(), restock::start)?,
            pins: None,
            swept: false,
            unforgotten: BTreeSet::new(),
            taken: BTreeSet::new(),
            settled: false,
        };
        let shared = Arc::new(Mutex::new(shared));
        let all = Arc::downgrade(&shared);
        in_kernel.ask_for_folder(move || lock(&*all.upgrade()?).failover_folder());
        Ok(TcPlane {
            shared,
            planning: Arc::new(Mutex::new(planning)),
            run_dir: run_dir.to_owned(),
            new_bonds,
            suitable,
            in_kernel,
        })
    }

    fn handle(&self, bond: Bond) -> TcBond {
        TcBond {
            shared: Arc::clone(&self.shared),
            planning: Arc::clone(&self.planning),
            bond,
        }
    }

    /// Makes a bond; see [`Plane::create`].
    fn make(&mut self, name: &str) -> Result<(TcBond, BondDevice), PlaneError> {
        let (bond, device) = lock(&self.shared).make_bond(name)?;
        Ok((self.handle(bond), device))
    }

    /// Takes a bond over; see [`Plane::adopt`].
    fn take_over(&mut self, name: &str) -> Result<Option<(TcBond, Observed)>, PlaneError> {
        let found = lock(&self.shared).adopt(name)?;
        Ok(found.map(|(bond, observed)| (self.handle(bond), observed)))
    }
}

impl TcBond {
    fn name(&self) -> BondName {
        self.bond.forwarding.with(|now| now.name.clone())
    }

    /// Locks the folder of pins again if someone has removed it, with the pins of all bonds; unless another thread uses what all bonds
    /// share, which this does not wait for.
    fn keep_lock(&self) {
        if let Ok(mut shared) = self.shared.try_lock()
            && let Some(pins) = &mut shared.pins
            && let Err(error) = pins.keep_lock()
        {
            log::debug!("cannot lock the folder of pins: {error}");
        }
    }
}

impl Plane for TcPlane {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&mut self) -> Result<(), PlaneError> {
        if self.suitable.is_known() {
            return Ok(());
        }
        let loader = &mut lock(&self.shared).loader;
        self.suitable.examine(self.new_bonds, loader).map(drop)
    }

    fn can(&mut self, options: &BondOptions) -> Result<(), PlaneError> {
        check(options)
    }

    fn examiner(&self) -> Examiner {
        let (run_dir, new_bonds, suitable) = (self.run_dir.clone(), self.new_bonds, self.suitable.clone());
        let in_kernel = self.in_kernel.clone();
        Arc::new(move |options| {
            let probed = suitable.examine(new_bonds, &mut Loader::default()).map(drop);
            let [usable, exact] = [probed, check(options)].map(|done| done.map_err(|error| chain(&error)));
            let ends = Pins::would_be_short_lived(&run_dir);
            PlaneReport {
                short_lived: ends.then(|| why_short_lived(&run_dir)),
                device: suitable.text(new_bonds),
                failover: Some(match in_kernel.why_not() {
                    None => "in the kernel".to_owned(),
                    Some(why) => format!("by bondd: {why}"),
                }),
                ..PlaneReport::new(NAME, usable, exact)
            }
        })
    }

    fn bonds(&mut self) -> Result<Vec<BondName>, PlaneError> {
        lock(&self.shared).find_bonds()
    }

    fn create(&mut self, name: &str, _: &BondOptions) -> Result<(Box<dyn PlaneBond>, BondDevice), PlaneError> {
        let (bond, device) = self.make(name)?;
        Ok((Box::new(bond), device))
    }

    fn adopt(&mut self, name: &str) -> Result<Option<Adopted>, PlaneError> {
        let found = self.take_over(name)?;
        Ok(found.map(|(bond, observed)| (Box::new(bond) as Box<dyn PlaneBond>, observed)))
    }

    fn forget(&mut self, device: u32) -> Result<(), PlaneError> {
        lock(&self.shared).forget_bond(device)
    }

    fn give_back(&mut self, bond: &str, port: PortId, original: &OriginalPort) -> Result<bool, PlaneError> {
        lock(&self.shared).give_back_orphan(bond, port, original)
    }

    fn watch(&mut self) -> Option<Box<dyn Watch>> {
        Some(Box::new(LossWatch::new(self.in_kernel.clone(), NAME)))
    }

    fn short_lived(&self) -> Option<String> {
        let shared = lock(&self.shared);
        let ends = match &shared.pins {
            Some(pins) => pins.are_short_lived(),
            None => Pins::would_be_short_lived(&shared.run_dir),
        };
        ends.then(|| why_short_lived(&self.run_dir))
    }

    fn close(&mut self) -> io::Result<()> {
        let shared = &mut *lock(&self.shared);
        let pins = match shared.pins.take() {
            Some(pins) => Some(pins),
            None => Pins::find(&shared.run_dir, shared.netns)?,
        };
        let Some(pins) = pins else { return Ok(()) };
        if !pins.has_bonds() {
            // A thread may be about to pin something.
            self.in_kernel.close()?;
        }
        pins.release()
    }
}

impl PlaneBond for TcBond {
    fn plane(&self) -> &'static str {
        NAME
    }

    fn can(&mut self, options: &BondOptions) -> Result<(), PlaneError> {
        check(options)
    }

    fn attach(&mut self, port: PortId, base: &PortBase) -> Result<(), PlaneError> {
        let name = self.name();
        lock(&self.shared).take_in(&name, &mut self.bond, port, base)
    }

    fn detach(&mut self, port: PortId, original: &OriginalPort) -> Result<bool, PlaneError> {
        let name = self.name();
        lock(&self.shared).give_back(&name, &mut self.bond, port, original)
    }

    fn forget(&mut self, port: PortId) -> Result<(), PlaneError> {
        let name = self.name();
        port::forget(&mut lock(&self.planning).links, &name, &mut self.bond, port)
    }

    fn program(&mut self, plan: &ForwardingPlan) -> Applied {
        let (name, known) = self.bond.forwarding.with(|now| (now.name.clone(), now.applied.mac));
        if let Err(error) = can::check(plan) {
            return Applied::refused(error, known, plan);
        }
        let planning = &mut *lock(&self.planning);
        program::apply(&mut planning.links, &mut planning.loader, &name, &mut self.bond, plan)
    }

    fn traffic(&self) -> Option<Box<dyn Traffic>> {
        Some(Box::new(self.bond.forwarding.clone()))
    }

    fn refresh(&mut self) -> Result<(), PlaneError> {
        let name = self.name();
        adopt::refresh(&mut lock(&self.planning).links, &name, &mut self.bond)
    }

    fn amiss(&mut self) -> Result<Vec<Amiss>, PlaneError> {
        let name = self.name();
        guard::amiss(&mut lock(&self.planning).links, &name, &mut self.bond)
    }

    fn put_back(&mut self, what: Kept) -> Result<(), PlaneError> {
        let name = self.name();
        self.keep_lock();
        guard::put_back(&mut lock(&self.planning), &name, &mut self.bond, what)
    }

    fn outlive(&mut self) -> Result<(), PlaneError> {
        let name = self.name();
        self.keep_lock();
        guard::outlive(&mut lock(&self.planning), &name, &mut self.bond)
    }

    fn keep_ipv6_off(&mut self, port: PortId) -> Result<(), PlaneError> {
        match self.bond.ports().contains(&port) {
            true => switch_ipv6_off(&mut lock(&self.planning).links, port),
            false => Ok(()),
        }
    }

    fn counters(&mut self, port: PortId) -> Result<PortCounters, PlaneError> {
        self.bond.forwarding.counters(port)
    }

    fn port_signs(&self) -> PortSigns {
        PortSigns {
            allmulti: true,
            ..PortSigns::default()
        }
    }

    fn renamed(&mut self, new: &str) {
        self.bond.forwarding.with(|now| now.name = new.to_owned());
        adopt::label_all(&mut lock(&self.planning).links, new, &self.bond);
    }

    fn destroy(self: Box<Self>) -> Result<(), PlaneError> {
        let name = self.name();
        let TcBond { shared, bond, .. } = *self;
        let ifindex = bond.ifindex;
        bond.forwarding.with(|now| {
            // First out of force: a loss that is not counted any more must not leave what is prepared in force.
            let ended = now.unprepare().map(drop);
            let forgotten = now
                .prepared
                .take()
                .map_or(Ok(()), |mut prepared| prepared.forget_ports());
            for error in [ended, forgotten].into_iter().filter_map(Result::err) {
                log::debug!("{name}: {error}");
            }
        });
        // First its descriptors, or the programs would outlive their pins.
        drop(bond);
        lock(&shared).remove_bond(&name, ifindex)
    }
}

/// Everything that a plan for this agent's planes can say is exact here.
pub fn check(options: &BondOptions) -> Result<(), PlaneError> {
    can::check_spread(&bond_modes::spread(options))
}

/// What the plane is called.
pub const NAME: &str = "tc";

fn why_short_lived(run_dir: &Path) -> String {
    let point = run_dir.join("bpf");
    let point = point.display();
    format!(
        "they stop forwarding when the last process of this mount namespace ends, because no bpffs outside it is within reach; \
         before bondd is started, run outside it `mount -t bpf bpf /sys/fs/bpf`, or for `ip netns exec` \
         `mkdir -p {point} && mount -t bpf bpf {point}`"
    )
}

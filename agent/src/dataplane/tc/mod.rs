//! The tc data plane: eBPF classifier programs between a veth pair and the ports.
//!
//! ```text
//!   stack - bond0 ======= wire<N>  <- bond_tx: out of a port
//!                            |
//!                     eth0  eth1   <- port_rx: out of the wire, hence into bond0, or refused
//! ```
//! `bond0` is one end of a veth pair, so its counters, captures, qdiscs and carrier are those of a real device; its carrier is
//! the administrative state of the other end. The programs (`bpf/*.bpf.c`) forward on their own: everything they need is in maps
//! pinned by name, and they stay attached without this process. So a new agent *observes*: it takes over device, maps and ports,
//! exchanges programs of another build for its own in place, and reads back the plan in force.
//!
//! | File | What |
//! |---|---|
//! | `bpf/`, `object` | the programs: one for ports, and one for the wire for each way of spreading |
//! | `maps`, `upgrade` | the maps of one bond; those of an earlier layout |
//! | `bpf` | programs and maps of one bond together |
//! | `lists` | lists of ports that are never seen half written |
//! | `hook`, `sys` | how programs are attached: tcx links or clsact filters |
//! | `bpffs`, `pins` | where the pins are |
//! | `device`, `port` | the pair; ports taken in, given back, taken over |
//! | `queues` | traffic that an operator sends through a port of his choice |
//! | `program` | from the plan in force to the wanted one, and in which order |

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use crate::dataplane::wanted::{PortPlan, Wanted};
use bond_modes::PortId;
use bond_monitors::{Carrier, LinkReport, ReceiveStamps};
use nix::sched::{CloneFlags, unshare};

use self::bpf::BondBpf;
use self::hook::{Attached, Hold, Place};
use self::object::{Kind, Loader, TX, Way};
use self::pins::{BondPins, Pins};
use super::port::{port_alias, read_original};
use super::step::{BPF, Failures, HOOK, VETH, step, step_with, unknown};
use super::{
    Applied, BondBase, BondDevice, BondName, Dataplane, Observed, OriginalPort, PlaneError, PortBase, PortCounters,
};
use crate::netlink::{Link, Links};

mod bpf;
mod bpffs;
mod device;
mod errors;
mod hook;
mod lists;
mod maps;
mod object;
mod pins;
mod port;
mod program;
mod queues;
mod sys;
#[cfg(test)]
mod tests;
mod upgrade;

pub use self::hook::Hook;

/// The tc data plane of one network namespace: the one in which it was opened.
pub struct TcPlane {
    run_dir: PathBuf,
    hook: Hook,
    links: Links,
    /// Inode number of the network namespace.
    netns: u64,
    /// The kernel has what bonds need; what it lacks may still come, with a module.
    usable: bool,
    /// For the programs of all bonds.
    loader: Loader,
    /// Opened when the first bond needs it: it may have to be mounted.
    pins: Option<Pins>,
    bonds: BTreeMap<BondName, Bond>,
}

/// A bond that this process made or took over.
struct Bond {
    ifindex: u32,
    wire: u32,
    pins: BondPins,
    bpf: BondBpf,
    hook: Attached,
    /// What keeps the programs in place while this process runs: on the wire and on ports.
    wire_hold: Hold,
    port_holds: BTreeMap<PortId, Hold>,
    /// The plan in force. Its `ports` are the attached ones.
    applied: Wanted,
    /// Ports whose all-multicast somebody took off.
    lost_allmulti: BTreeSet<PortId>,
    /// Whether marks of an operator are told from other traffic.
    steered: bool,
}

impl TcPlane {
    /// A plane for the network namespace of the calling thread. Where the machine has no bpffs, one is mounted under `run_dir`
    /// when the first bond needs it. `hook` is for new bonds; one that is there keeps the hook it has.
    pub fn open(run_dir: &Path, hook: Hook) -> Result<TcPlane, PlaneError> {
        let links = step(|| "open a netlink socket".to_owned(), Links::open)?;
        let netns = step(
            || "read the network namespace".to_owned(),
            || fs::metadata("/proc/thread-self/ns/net"),
        )?;
        Ok(TcPlane {
            run_dir: run_dir.to_owned(),
            hook,
            links,
            netns: netns.ino(),
            usable: false,
            loader: Loader::default(),
            pins: None,
            bonds: BTreeMap::new(),
        })
    }

    /// The place for pins; opened, and freed of what is stale, when first asked for.
    fn pins(&mut self) -> Result<&Pins, PlaneError> {
        let pins = match self.pins.take() {
            Some(pins) => pins,
            None => {
                let open = || {
                    format!(
                        "mount a bpffs under {} (or mount one on /sys/fs/bpf)",
                        self.run_dir.display()
                    )
                };
                let pins = step_with(&BPF, open, || Pins::open(&self.run_dir, self.netns))?;
                sweep(&pins, &mut self.links)?;
                if let Err(error) = pins.sweep_namespaces() {
                    log::warn!("cannot remove the pins of network namespaces that are gone: {error}");
                }
                pins
            }
        };
        Ok(self.pins.insert(pins))
    }

    /// Removes the pins of bonds that are gone, if there is a place for pins at all.
    fn sweep_pins(&mut self) -> Result<(), PlaneError> {
        match &self.pins {
            Some(pins) => sweep(pins, &mut self.links),
            None => Pins::find(&self.run_dir, self.netns).map_or(Ok(()), |pins| sweep(&pins, &mut self.links)),
        }
    }

    fn bond(&self, name: &str) -> Result<&Bond, PlaneError> {
        self.bonds.get(name).ok_or_else(|| unknown(name))
    }

    /// Takes a pair of ours over, with its ports.
    fn adopt(&mut self, name: &str, pair: &device::Pair) -> Result<Bond, PlaneError> {
        let pins = self.pins()?.bond(pair.bond.ifindex);
        step(|| "make a folder for pins".to_owned(), || pins.create())?;
        let mut bond = self.equip(name, pair, pins)?;
        let ports = self.adopt_ports(name, &mut bond)?;
        let read = || format!("read the maps of {name}");
        bond.applied.tx = step(read, || bond.bpf.tx())?;
        bond.applied.queues = bond.bpf.queues().clone();
        bond.steered = !bond.applied.queues.is_empty();
        // While nothing is sent the kind is not kept anywhere, and makes no difference.
        bond.applied.spread = bond.applied.tx.spread().unwrap_or(bond.applied.spread);
        bond.applied.rx = step(read, || bond.bpf.accepted())?;
        bond.applied.ports = ports
            .into_iter()
            .map(|(port, link)| (port, settings(&link, &pair.bond)))
            .collect();
        program::keep_own(name, &mut bond)?;
        if bond.bpf.is_stale() {
            step(|| format!("set up the maps of {name}"), || bond.bpf.mark_attached())?;
        }
        if pair.wire.alias != device::wire_alias(name) {
            self.label(name, &bond);
        }
        Ok(bond)
    }

    /// Names the bond on its wire and ports. The aliases are labels for people; a failure does no harm.
    fn label(&mut self, name: &str, bond: &Bond) {
        let ports = bond.applied.ports.keys().map(|port| (port.0, port_alias(name)));
        for (ifindex, alias) in ports.chain([(bond.wire, device::wire_alias(name))]) {
            if let Err(error) = self.links.set_alias(ifindex, &alias) {
                log::warn!("{name}: cannot set an alias: {error}");
            }
        }
    }

    fn report(&mut self, link: &Link) -> LinkReport {
        let (speed, duplex) = self.links.speed_duplex(&link.report.name);
        LinkReport {
            speed,
            duplex,
            ..link.report.clone()
        }
    }
}

impl Dataplane for TcPlane {
    fn name(&self) -> &'static str {
        "tc"
    }

    fn probe(&mut self) -> Result<(), PlaneError> {
        if self.usable {
            return Ok(());
        }
        let (hook, loader) = (self.hook, &mut self.loader);
        // In a namespace of its own nobody sees the devices come and go, and it ends with the thread whatever happens. A kernel
        // without network namespaces does it in the only one there is.
        let probe = move || {
            let _ = unshare(CloneFlags::CLONE_NEWNET);
            probe_here(hook, loader)
        };
        thread::scope(|scope| scope.spawn(probe).join()).unwrap_or_else(|_| {
            Err(PlaneError::Kernel {
                doing: "find out what this kernel can do".to_owned(),
                source: io::Error::other("the probing thread panicked"),
            })
        })?;
        self.usable = true;
        Ok(())
    }

    fn bonds(&mut self) -> Result<Vec<BondName>, PlaneError> {
        self.find_bonds()
    }

    fn observe(&mut self, bond: &BondName) -> Result<Option<Observed>, PlaneError> {
        let Some(pair) = self.find_pair(bond)? else {
            self.bonds.remove(bond);
            return Ok(None);
        };
        let known = self
            .bonds
            .remove(bond)
            .filter(|known| known.ifindex == pair.bond.ifindex);
        let adopted = match known {
            Some(known) => known,
            None => self.adopt(bond, &pair)?,
        };
        let adopted = self.bonds.entry(bond.clone()).or_insert(adopted);
        let plan = adopted.applied.clone();
        let mut ports = Vec::new();
        for &port in plan.ports.keys() {
            if let Some(link) = step(|| format!("read {port}"), || self.links.by_index(port.0))? {
                ports.push((port, self.report(&link)));
            }
        }
        Ok(Some(Observed {
            ifindex: pair.bond.ifindex,
            report: self.report(&pair.bond),
            ports,
            plan,
        }))
    }

    fn create(&mut self, bond: &BondName, _: &BondBase) -> Result<BondDevice, PlaneError> {
        let made = self.make_bond(bond)?;
        let ifindex = made.ifindex;
        self.bonds.insert(bond.clone(), made);
        let read = step(|| format!("read {bond}"), || self.links.by_index(ifindex));
        match read.and_then(|link| link.ok_or_else(|| unknown(bond))) {
            Ok(link) => Ok(BondDevice {
                ifindex,
                report: self.report(&link),
            }),
            Err(error) => {
                // The first error tells more than one of the clean-up.
                let _ = self.destroy(bond);
                Err(error)
            }
        }
    }

    fn original(&mut self, port: PortId) -> Result<OriginalPort, PlaneError> {
        read_original(&mut self.links, port)
    }

    fn attach(&mut self, bond: &BondName, port: PortId, base: &PortBase) -> Result<(), PlaneError> {
        self.take_in(bond, port, base)
    }

    fn detach(&mut self, bond: &BondName, port: PortId, original: &OriginalPort) -> Result<(), PlaneError> {
        self.give_back(bond, port, original)
    }

    fn program(&mut self, bond: &BondName, plan: &Wanted) -> Applied {
        match self.bonds.get_mut(bond) {
            Some(in_force) => program::apply(&mut self.links, &mut self.loader, bond, in_force, plan),
            None => unknown(bond).into(),
        }
    }

    fn refresh(&mut self, bond: &BondName) -> Result<(), PlaneError> {
        let known = self.bonds.get_mut(bond).ok_or_else(|| unknown(bond))?;
        let links = &mut self.links;
        if let Some(link) = step(|| format!("read {bond}"), || links.by_index(known.ifindex))? {
            known.applied.mac = link.report.mac;
        }
        if let Some(wire) = step(|| format!("read the wire of {bond}"), || links.by_index(known.wire))? {
            known.applied.carrier = Carrier::from_bool(wire.report.admin_up);
            if known.steered {
                queues::tie(bond, &wire)?;
            }
        }
        known.lost_allmulti.clear();
        for &port in known.applied.ports.keys() {
            match step(|| format!("read {port}"), || links.by_index(port.0))? {
                Some(link) if !link.allmulti_flag => known.lost_allmulti.insert(port),
                _ => false,
            };
        }
        Ok(())
    }

    fn destroy(&mut self, bond: &BondName) -> Result<(), PlaneError> {
        let ifindex = match self.bonds.remove(bond) {
            Some(known) => Some(known.ifindex),
            None => self.find_pair(bond)?.map(|pair| pair.bond.ifindex),
        };
        ifindex.map_or(Ok(()), |ifindex| self.remove_bond(bond, ifindex))
    }

    fn renamed(&mut self, old: &str, new: &BondName) {
        let Some(bond) = self.bonds.remove(old) else { return };
        self.label(new, &bond);
        self.bonds.insert(new.clone(), bond);
    }

    fn close(&mut self) -> io::Result<()> {
        match self.pins.take().or_else(|| Pins::find(&self.run_dir, self.netns)) {
            Some(pins) => pins.release(),
            None => Ok(()),
        }
    }

    fn counters(&mut self, bond: &BondName, port: PortId) -> Result<PortCounters, PlaneError> {
        let bpf = &self.bond(bond)?.bpf;
        step(|| format!("read the counters of {port}"), || bpf.counters(port))
    }

    fn heard(&mut self, bond: &BondName, port: PortId) -> Result<ReceiveStamps, PlaneError> {
        let bpf = &self.bond(bond)?.bpf;
        step(|| format!("read the stamps of {port}"), || bpf.heard(port))
    }
}

fn sweep(pins: &Pins, links: &mut Links) -> Result<(), PlaneError> {
    let alive = |ifindex| !matches!(links.by_index(ifindex), Ok(None));
    step(|| "remove stale pins".to_owned(), || pins.sweep(alive))
}

/// Does once, with devices that go away, what every bond needs.
fn probe_here(hook: Hook, loader: &mut Loader) -> Result<(), PlaneError> {
    let mut links = step(|| "open a netlink socket".to_owned(), Links::open)?;
    let load = || {
        // The loops and the helper for copies besides what all have: whatever any program asks for of the kernel.
        loader.load(Kind::Tx(Way::All), None)?;
        loader.load(Kind::Rx, None)?;
        loader.load(Kind::Tx(Way::One), None)
    };
    let mut program = step_with(&BPF, || "load the programs".to_owned(), load)?;
    step_with(
        &VETH,
        || "make a veth device".to_owned(),
        || links.add_veth(PROBE, PROBE_PEER),
    )?;
    let mut errors = Failures::default();
    let place = Place {
        interface: PROBE,
        pin: None,
        program: TX,
    };
    let attach = || hook::attach_first(program.program(), place, hook).map(|_| ());
    errors.note(step_with(&HOOK, || "attach a program".to_owned(), attach));
    errors.note(step(
        || "remove the veth device".to_owned(),
        || match links.by_name(PROBE)? {
            Some(link) => links.delete(link.ifindex),
            None => Ok(()),
        },
    ));
    errors.result()
}

/// A port's settings as a plan words them. Every port has all-multicast on, so report the bond's setting.
fn settings(port: &Link, bond: &Link) -> PortPlan {
    PortPlan {
        mac: port.report.mac,
        mtu: port.report.mtu,
        promisc: port.promisc_flag,
        allmulti: bond.report.allmulti,
    }
}

const PROBE: &str = "bondd-probe0";
const PROBE_PEER: &str = "bondd-probe1";

//! The programs and maps of one bond, loaded from the object file that the build made of `bond.bpf.c`.
//!
//! The maps are pinned by name: loading takes over those of an earlier agent and makes the ones that are missing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::size_of;

use aya::maps::{Array, HashMap, MapData, MapError, MapInfo, MapType, PerCpuHashMap, PerCpuValues};
use aya::programs::tc::TcError;
use aya::programs::{ProgramError, SchedClassifier};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};
use bond_modes::{Accept, PortId, TxPolicy};
use bond_monitors::{Heard, MacAddr, Time};

use super::lists::{List, Lists, is_list};
use super::pins::BondPins;
use crate::dataplane::PortCounters;

/// One bond's programs in the kernel and its maps. Dropping it leaves both in force as far as they are pinned or attached.
pub struct BondBpf {
    programs: Ebpf,
    state: Array<MapData, u32>,
    lists: Lists,
    accept: HashMap<MapData, u32, u32>,
    counters: PerCpuHashMap<MapData, u32, Counters>,
    heard: PerCpuHashMap<MapData, u32, Stamps>,
    queues: Array<MapData, u32>,
    own: HashMap<MapData, [u8; 6], u32>,
    /// What `own` holds.
    own_addresses: BTreeSet<MacAddr>,
}

impl BondBpf {
    /// Loads the programs. With `pins`, on the maps that are pinned there; without, on maps that vanish with this value.
    pub fn load(pins: Option<&BondPins>) -> io::Result<BondBpf> {
        raise_memlock();
        let taken_over = pins.is_some_and(|pins| pins.map(LISTS).exists());
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        if let Some(pins) = pins {
            for (name, shape) in MAPS {
                check_shape(pins, name, shape)?;
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let mut programs = loader.load(OBJECT).map_err(load_error)?;
        for name in [TX, RX] {
            classifier(&mut programs, name).load().map_err(program_error)?;
        }
        let mut map = |name: &str| programs.take_map(name).ok_or_else(|| not_in_object(name));
        let (state, lists) = (map(STATE)?, map(LISTS)?);
        let (accept, counters) = (map(ACCEPT)?, map(COUNTERS)?);
        let (heard, own, queues) = (map(HEARD)?, map(OWN)?, map(QUEUES)?);
        trim_heap();
        let state: Array<MapData, u32> = state.try_into().map_err(map_error)?;
        let selector = state.get(&SLOT_TX, 0).map_err(map_error)?;
        let own: HashMap<MapData, [u8; 6], u32> = own.try_into().map_err(map_error)?;
        let own_addresses: Result<_, _> = own.keys().map(|key| key.map(MacAddr)).collect();
        Ok(BondBpf {
            lists: Lists::new(lists.try_into().map_err(map_error)?, taken_over, selector),
            state,
            accept: accept.try_into().map_err(map_error)?,
            counters: counters.try_into().map_err(map_error)?,
            heard: heard.try_into().map_err(map_error)?,
            queues: queues.try_into().map_err(map_error)?,
            own_addresses: own_addresses.map_err(map_error)?,
            own,
            programs,
        })
    }

    /// The program for the wire.
    pub fn bond_tx(&mut self) -> &mut SchedClassifier {
        classifier(&mut self.programs, TX)
    }

    /// The program for ports.
    pub fn port_rx(&mut self) -> &mut SchedClassifier {
        classifier(&mut self.programs, RX)
    }

    /// Tells the programs which interface the wire is.
    pub fn set_wire(&mut self, ifindex: u32) -> io::Result<()> {
        self.state.set(SLOT_WIRE, ifindex, 0).map_err(map_error)
    }

    /// Where frames of the stack leave.
    pub fn tx(&self) -> io::Result<TxPolicy> {
        match self.selector()? {
            0 => Ok(TxPolicy::Drop),
            list if is_list(list) => self.lists.policy(list),
            port => Ok(TxPolicy::One(PortId(port))),
        }
    }

    /// Moves the traffic: one write of four bytes. A list of ports is prepared aside before.
    pub fn set_tx(&mut self, tx: &TxPolicy) -> io::Result<()> {
        let selector = match tx {
            TxPolicy::Drop => 0,
            TxPolicy::One(port) => port.0,
            list => {
                let in_force = self.selector()?;
                self.lists.prepare(list, in_force)?
            }
        };
        self.state.set(SLOT_TX, selector, 0).map_err(map_error)?;
        self.lists.restock(selector);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn lists(&mut self) -> &mut Lists {
        &mut self.lists
    }

    fn selector(&self) -> io::Result<u32> {
        self.state.get(&SLOT_TX, 0).map_err(map_error)
    }

    /// Where frames leave that an operator marked, by queue.
    pub fn queues(&self) -> io::Result<BTreeMap<u16, PortId>> {
        let mut chosen = BTreeMap::new();
        for queue in 1..self.queues.len() as u16 {
            match self.queues.get(&queue.into(), 0).map_err(map_error)? {
                0 => None,
                port => chosen.insert(queue, PortId(port)),
            };
        }
        Ok(chosen)
    }

    /// Sends frames of a queue through a port, or as all others. Queue 0 has those without a mark.
    pub fn set_queue(&mut self, queue: u16, port: Option<PortId>) -> io::Result<()> {
        if queue == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let port = port.map_or(0, |port| port.0);
        self.queues.set(queue.into(), port, 0).map_err(map_error)
    }

    /// What is let in, by port.
    pub fn accepted(&self) -> io::Result<BTreeMap<PortId, Accept>> {
        let mut rules = BTreeMap::new();
        for entry in self.accept.iter() {
            let (port, rule) = entry.map_err(map_error)?;
            match rule {
                ACCEPT_ALL => rules.insert(PortId(port), Accept::All),
                ACCEPT_UNICAST => rules.insert(PortId(port), Accept::Unicast),
                _ => None,
            };
        }
        Ok(rules)
    }

    /// Lets frames in from a port, or nothing any more.
    pub fn set_accept(&mut self, port: PortId, rule: Option<Accept>) -> io::Result<()> {
        let value = match rule {
            None => return gone_is_fine(self.accept.remove(&port.0)),
            Some(Accept::All) => ACCEPT_ALL,
            Some(Accept::Unicast) => ACCEPT_UNICAST,
        };
        self.accept.insert(port.0, value, 0).map_err(map_error)
    }

    /// The attached ports: those that are counted.
    pub fn ports(&self) -> io::Result<Vec<PortId>> {
        self.counters
            .keys()
            .map(|key| key.map(PortId).map_err(map_error))
            .collect()
    }

    /// Starts to count a port from zero. Without this the programs neither send through it nor let anything in.
    pub fn add_port(&mut self, port: PortId) -> io::Result<()> {
        self.heard.insert(port.0, zeros()?, 0).map_err(map_error)?;
        self.counters.insert(port.0, zeros()?, 0).map_err(map_error)
    }

    /// Listens on a port too that an agent without that map attached.
    pub fn listen(&mut self, port: PortId) -> io::Result<()> {
        match self.heard.insert(port.0, zeros()?, NEW_ONLY).map_err(map_error) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            done => done,
        }
    }

    /// Forgets a port: nothing goes through it in either direction any more.
    pub fn remove_port(&mut self, port: PortId) -> io::Result<()> {
        self.set_accept(port, None)?;
        for (queue, _) in self.queues()?.into_iter().filter(|(_, chosen)| *chosen == port) {
            self.set_queue(queue, None)?;
        }
        gone_is_fine(self.heard.remove(&port.0))?;
        gone_is_fine(self.counters.remove(&port.0))
    }

    /// Takes these addresses, and no others, for those of the bond and its ports: frames from them that arrive were sent by us.
    pub fn set_own(&mut self, addresses: &BTreeSet<MacAddr>) -> io::Result<()> {
        let known = self.own_addresses.clone();
        for old in known.difference(addresses) {
            gone_is_fine(self.own.remove(&old.0))?;
            self.own_addresses.remove(old);
        }
        for new in addresses.difference(&known) {
            self.own.insert(new.0, 1, 0).map_err(map_error)?;
            self.own_addresses.insert(*new);
        }
        Ok(())
    }

    /// As [`BondBpf::set_own`], besides those that are known.
    pub fn add_own(&mut self, addresses: impl IntoIterator<Item = MacAddr>) -> io::Result<()> {
        let all = self.own_addresses.iter().copied().chain(addresses).collect();
        self.set_own(&all)
    }

    /// When what was heard on a port, on whatever CPU.
    pub fn heard(&self, port: PortId) -> io::Result<Heard> {
        let per_cpu = self.heard.get(&port.0, 0).map_err(map_error)?;
        let last = |stamp: fn(&Stamps) -> u64| {
            per_cpu
                .iter()
                .map(stamp)
                .max()
                .filter(|at| *at > 0)
                .map(Time::from_nanos)
        };
        Ok(Heard {
            any: last(|stamps| stamps.any_ns),
            probes: last(|stamps| stamps.probes_ns),
            own: last(|stamps| stamps.own_ns),
        })
    }

    /// Traffic of a port, over all CPUs.
    pub fn counters(&self, port: PortId) -> io::Result<PortCounters> {
        let per_cpu = self.counters.get(&port.0, 0).map_err(map_error)?;
        Ok(per_cpu.iter().fold(PortCounters::default(), |sum, cpu| PortCounters {
            tx_frames: sum.tx_frames + cpu.tx_frames,
            tx_bytes: sum.tx_bytes + cpu.tx_bytes,
            rx_frames: sum.rx_frames + cpu.rx_frames,
            rx_bytes: sum.rx_bytes + cpu.rx_bytes,
            rx_dropped: sum.rx_dropped + cpu.rx_dropped,
            last_rx: sum.last_rx.max(cpu.last_rx_ns),
        }))
    }
}

/// `struct port_counters` of bond.bpf.c.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Counters {
    tx_frames: u64,
    tx_bytes: u64,
    rx_frames: u64,
    rx_bytes: u64,
    rx_dropped: u64,
    last_rx_ns: u64,
}

// SAFETY: six integers without padding; every bit pattern is a value.
unsafe impl aya::Pod for Counters {}

/// `struct heard` of bond.bpf.c.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Stamps {
    any_ns: u64,
    probes_ns: u64,
    own_ns: u64,
}

// SAFETY: three integers without padding; every bit pattern is a value.
unsafe impl aya::Pod for Stamps {}

/// The value of a port that is new in a per-CPU map.
fn zeros<T: aya::Pod + Default>() -> io::Result<PerCpuValues<T>> {
    let cpus = nr_cpus().map_err(|(_, error)| error)?;
    PerCpuValues::try_from(vec![T::default(); cpus])
}

fn classifier<'a>(programs: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    programs
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .expect("bond.bpf.c, compiled into this binary, has both classifiers")
}

/// A map that a very different version pinned must not be taken for ours.
fn check_shape(pins: &BondPins, name: &str, (map_type, key_size, value_size): Shape) -> io::Result<()> {
    let path = pins.map(name);
    if !path.exists() {
        return Ok(());
    }
    let info = MapInfo::from_pin(&path).map_err(map_error)?;
    let same = info.map_type().is_ok_and(|found| found == map_type)
        && info.key_size() as usize == key_size
        && info.value_size() as usize == value_size;
    if same {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} was pinned by another version of bondd; delete the bond with that version first",
        path.display()
    )))
}

/// Kernels before 5.11 charge maps to RLIMIT_MEMLOCK, whose default is too low for them. Later ones do not care, so a refusal
/// matters only if loading fails too.
fn raise_memlock() {
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the pointer is to a live value of the type that setrlimit reads.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}

/// A new loader parses the types of the whole kernel, some 20 MB, whether they are wanted or not. Without this the agent would
/// hold on to that memory for good.
fn trim_heap() {
    // SAFETY: gives unused pages of the heap back; touches nothing that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

fn not_in_object(name: &str) -> io::Error {
    io::Error::other(format!("the compiled programs have no map {name}"))
}

fn gone_is_fine(removed: Result<(), MapError>) -> io::Result<()> {
    match removed.map_err(map_error) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn load_error(error: EbpfError) -> io::Error {
    match error {
        EbpfError::FileError { error, .. } => error,
        EbpfError::MapError(error) => map_error(error),
        EbpfError::ProgramError(error) => program_error(error),
        other => io::Error::other(other),
    }
}

/// The kernel's errno out of aya's error, for the caller to act on; anything else keeps its text.
pub fn map_error(error: MapError) -> io::Error {
    match error {
        MapError::CreateError { io_error, .. } | MapError::IoError(io_error) => io_error,
        MapError::SyscallError(error) => error.io_error,
        MapError::PinError {
            error: aya::pin::PinError::SyscallError(error),
            ..
        } => error.io_error,
        MapError::KeyNotFound | MapError::ElementNotFound => io::ErrorKind::NotFound.into(),
        other => io::Error::other(other),
    }
}

/// The kernel's errno out of aya's error, for the caller to act on; anything else keeps its text.
pub fn program_error(error: ProgramError) -> io::Error {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            log::debug!("the kernel refuses a program: {verifier_log}");
            io_error
        }
        ProgramError::SyscallError(error) => error.io_error,
        ProgramError::IOError(error) => error,
        ProgramError::MapError(error) => map_error(error),
        ProgramError::TcError(error) => tc_error(error),
        ProgramError::NetlinkError(error) => netlink_error(error),
        other => io::Error::other(other),
    }
}

/// The kernel's errno out of aya's error, for the caller to act on; anything else keeps its text.
pub fn tc_error(error: TcError) -> io::Error {
    match error {
        TcError::NetlinkError(error) => netlink_error(error),
        TcError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

fn netlink_error(error: aya::sys::NetlinkError) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error),
    }
}

/// Name of the program on ports, also the name of its clsact filter.
pub const RX: &str = "port_rx";
/// Name of the program on the wire, also the name of its clsact filter.
pub const TX: &str = "bond_tx";

const STATE: &str = "state";
const ACCEPT: &str = "accept";
const COUNTERS: &str = "counters";
const LISTS: &str = "lists";
const TURNS: &str = "turns";
const HEARD: &str = "heard";
const OWN: &str = "own";
const SENT: &str = "sent";
const QUEUES: &str = "queues";

/// Type of a map, sizes of its keys and of its values.
type Shape = (MapType, usize, usize);
/// An interface index or the number of a slot.
const INDEX: usize = size_of::<u32>();
const MAC: usize = size_of::<MacAddr>();
const MAPS: [(&str, Shape); 9] = [
    (STATE, (MapType::Array, INDEX, size_of::<u32>())),
    (ACCEPT, (MapType::Hash, INDEX, size_of::<u32>())),
    (COUNTERS, (MapType::PerCpuHash, INDEX, size_of::<Counters>())),
    (LISTS, (MapType::Array, INDEX, size_of::<List>())),
    (TURNS, (MapType::PerCpuArray, INDEX, size_of::<u32>())),
    (HEARD, (MapType::PerCpuHash, INDEX, size_of::<Stamps>())),
    (OWN, (MapType::Hash, MAC, size_of::<u32>())),
    (SENT, (MapType::LruHash, MAC, size_of::<u32>())),
    (QUEUES, (MapType::Array, INDEX, size_of::<u32>())),
];

/// BPF_NOEXIST
const NEW_ONLY: u64 = 1;
const SLOT_TX: u32 = 0;
const SLOT_WIRE: u32 = 1;
const ACCEPT_UNICAST: u32 = 1;
const ACCEPT_ALL: u32 = 2;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bond.bpf.o"));

#[cfg(test)]
mod tests {
    use aya::programs::{TestRun, TestRunOptions};

    use super::*;

    /// Runs `bond_tx` on one frame that stands for `segments`; says what it returned.
    fn transmit(bpf: &mut BondBpf, segments: u32) -> u32 {
        let frame = [0u8; 60];
        let mut context = [0u8; SK_BUFF_SIZE];
        context[GSO_SEGS..GSO_SEGS + 4].copy_from_slice(&segments.to_ne_bytes());
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame);
        options.ctx_in = Some(&context);
        bpf.bond_tx().test_run(options).unwrap().return_value
    }

    #[test]
    fn segments_of_offloaded_frames_are_counted_as_frames() {
        let port = PortId(12);
        let mut bpf = BondBpf::load(None).unwrap();
        bpf.add_port(port).unwrap();
        bpf.set_tx(&TxPolicy::One(port)).unwrap();
        assert_eq!(transmit(&mut bpf, 0), REDIRECT);
        assert_eq!(transmit(&mut bpf, 10), REDIRECT);
        assert_eq!(bpf.counters(port).unwrap().tx_frames, 11);
    }

    #[test]
    fn a_selector_that_names_no_port_of_the_bond_drops() {
        let mut bpf = BondBpf::load(None).unwrap();
        bpf.add_port(PortId(12)).unwrap();
        assert_eq!(transmit(&mut bpf, 0), SHOT);
        for selector in [13, 12 | 1 << 31] {
            bpf.set_tx(&TxPolicy::One(PortId(selector))).unwrap();
            assert_eq!(transmit(&mut bpf, 0), SHOT, "{selector:#x}");
        }
        assert_eq!(bpf.counters(PortId(12)).unwrap(), PortCounters::default());
    }

    #[test]
    fn a_port_that_was_removed_is_not_counted_and_lets_nothing_in() {
        let port = PortId(12);
        let mut bpf = BondBpf::load(None).unwrap();
        bpf.add_port(port).unwrap();
        bpf.set_accept(port, Some(Accept::Unicast)).unwrap();
        assert_eq!(bpf.accepted().unwrap(), BTreeMap::from([(port, Accept::Unicast)]));
        bpf.remove_port(port).unwrap();
        bpf.remove_port(port).unwrap();
        assert_eq!(
            (bpf.ports().unwrap(), bpf.accepted().unwrap()),
            (vec![], BTreeMap::new())
        );
        assert_eq!(bpf.counters(port).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// Offset of `gso_segs` in `struct __sk_buff`, and how much of it is passed. [linux/bpf.h]
    const GSO_SEGS: usize = 164;
    const SK_BUFF_SIZE: usize = 192;
    /// TC_ACT_SHOT and TC_ACT_REDIRECT. [linux/pkt_cls.h]
    const SHOT: u32 = 2;
    const REDIRECT: u32 = 7;
}

//! The programs that the build made of `bpf/*.bpf.c`, and how they get into the kernel.
//!
//! There is one program for ports, and one for the wire for each way of spreading, so that the kernel checks and keeps only what
//! a bond needs. They all use the same maps. Of another version's or build's programs only the maps are taken over.

use std::io;
use std::path::PathBuf;
use std::sync::LazyLock;

use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use bond_modes::XmitHashPolicy;
use bond_modes::plan::{Spread, Tx};

use super::errors::{load_error, program_error};
use super::layout::MAPS;

/// A way of spreading that has a program of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// All frames leave through one port.
    One,
    /// One port after the other.
    Turns,
    /// A copy through each of a few ports.
    All,
    /// A copy through each of many ports.
    AllMany,
    /// By a hash over the Ethernet header or the VLAN tag.
    Ether,
    /// By a hash over IP right behind the Ethernet header.
    Ip,
    /// By a hash over what is inside of tunnels.
    Encap,
}

impl Way {
    /// All of them.
    pub const VALUES: [Way; 7] = [
        Way::One,
        Way::Turns,
        Way::All,
        Way::AllMany,
        Way::Ether,
        Way::Ip,
        Way::Encap,
    ];

    /// The way of spreading; `None` if nothing is sent, which every program can do.
    pub fn of(tx: &Tx) -> Option<Way> {
        if tx.is_nowhere() {
            return None;
        }
        match tx.kind {
            Spread::One => Some(Way::One),
            Spread::RoundRobin { .. } => Some(Way::Turns),
            Spread::All if tx.ports.len() <= FEW => Some(Way::All),
            Spread::All => Some(Way::AllMany),
            Spread::Hash(policy) => Some(match policy {
                XmitHashPolicy::Layer2 | XmitHashPolicy::VlanSrcmac => Way::Ether,
                XmitHashPolicy::Layer23 | XmitHashPolicy::Layer34 => Way::Ip,
                XmitHashPolicy::Encap23 | XmitHashPolicy::Encap34 => Way::Encap,
            }),
            // Such a plan was refused.
            Spread::Buckets { .. } => None,
        }
    }

    /// Whether its program is to send so. That for copies through many ports stays until there are clearly fewer: loading it
    /// takes 200 ms, and one port that comes and goes must not have it exchanged each time.
    pub fn serves(self, tx: &Tx) -> bool {
        match Way::of(tx) {
            Some(Way::All) => self == Way::All || (self == Way::AllMany && tx.ports.len() > FEW_AGAIN),
            way => way.is_none_or(|way| way == self),
        }
    }

    /// Its key in the map `transmit`. [maps.bpf.h: TX_ONE]
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The one with this key.
    pub fn from_number(number: u32) -> Option<Way> {
        Way::VALUES.into_iter().find(|way| way.number() == number)
    }
}

/// A program of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On ports.
    Rx,
    /// On the wire.
    Tx(Way),
}

impl Kind {
    /// Name in the kernel, also that of the clsact filter.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Rx => RX,
            Kind::Tx(_) => TX,
        }
    }

    fn object(self) -> (&'static str, &'static [u8]) {
        match self {
            Kind::Rx => ("port_rx", PORT_RX),
            Kind::Tx(Way::One) => ("tx_one", TX_ONE),
            Kind::Tx(Way::Turns) => ("tx_turns", TX_TURNS),
            Kind::Tx(Way::All) => ("tx_all", TX_ALL),
            Kind::Tx(Way::AllMany) => ("tx_all_many", TX_ALL_MANY),
            Kind::Tx(Way::Ether) => ("tx_ether", TX_ETHER),
            Kind::Tx(Way::Ip) => ("tx_ip", TX_IP),
            Kind::Tx(Way::Encap) => ("tx_encap", TX_ENCAP),
        }
    }
}

/// What all programs of this build are known by: programs on a hook that another agent loaded from the same build need no
/// exchange. Not 0.
pub static BUILD: LazyLock<u64> = LazyLock::new(|| {
    let programs = Way::VALUES.into_iter().map(Kind::Tx).chain([Kind::Rx]);
    fingerprint(programs.flat_map(|kind| kind.object().1.iter().copied()))
});

/// A number for object files, the same in every build of this program from the same ones. Not 0. (FNV-1a)
pub fn fingerprint(bytes: impl Iterator<Item = u8>) -> u64 {
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    hash | 1
}

/// A program in the kernel. Dropping it leaves it in force where it is attached.
pub struct Loaded {
    programs: Ebpf,
    kind: Kind,
}

impl Loaded {
    /// Which program it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// To be attached.
    pub fn program(&mut self) -> &mut SchedClassifier {
        classifier(&mut self.programs, self.kind.name())
    }

    /// The maps that it was loaded with.
    pub fn take_map(&mut self, name: &str) -> io::Result<aya::maps::Map> {
        let map = self.programs.take_map(name);
        map.ok_or_else(|| io::Error::other(format!("the compiled programs have no map {name}")))
    }
}

/// Brings programs into the kernel. One is kept for all bonds: making one reads the types of the whole kernel, some 20 MB,
/// whether they are wanted or not.
#[derive(Default)]
pub struct Loader {
    loader: Option<EbpfLoader<'static>>,
    /// It was given places of pins, and keeps using them.
    pinned: bool,
    /// The kernel does not tell programs its tick.
    without_tick: bool,
}

impl Loader {
    /// Loads a program. With `pins`, on the maps that are pinned at these places, which are made if they are not there; without,
    /// on maps that vanish with the program.
    pub fn load(&mut self, kind: Kind, pins: Option<&dyn Fn(&str) -> PathBuf>) -> io::Result<Loaded> {
        #[cfg(test)]
        crate::netlink::tests::asks::may_wait();
        raise_memlock();
        if pins.is_none() && self.pinned {
            return Loader::default().load(kind, None);
        }
        let object = kind.object().1;
        if self.without_tick {
            return self.load_object(kind, &reading_the_clock(object), pins);
        }
        match self.load_object(kind, object, pins) {
            // The answer of kernels before 5.6, for one.
            Err(error) if kind == Kind::Rx && error.raw_os_error() == Some(libc::EINVAL) => {
                let loaded = self.load_object(kind, &reading_the_clock(object), pins)?;
                log::debug!("no tick in programs, reading the clock");
                self.without_tick = true;
                Ok(loaded)
            }
            done => done,
        }
    }

    fn load_object(&mut self, kind: Kind, object: &[u8], pins: Option<&dyn Fn(&str) -> PathBuf>) -> io::Result<Loaded> {
        let loader = self.loader.get_or_insert_with(new_loader);
        if let Some(pins) = pins {
            self.pinned = true;
            for (name, _) in MAPS {
                loader.map_pin_path(name, pins(name));
            }
        }
        let mut programs = loader.load(object).map_err(load_error)?;
        classifier(&mut programs, kind.name()).load().map_err(program_error)?;
        Ok(Loaded { programs, kind })
    }
}

/// A program that calls for the clock in place of the tick. Its time is then always later than that of its last stamp, so that it
/// stamps with every frame.
fn reading_the_clock(object: &[u8]) -> Vec<u8> {
    let call = |helper: u32| [[CALL, 0, 0, 0], helper.to_ne_bytes()].concat();
    let (tick, clock) = (call(TICK), call(CLOCK));
    let mut object = object.to_vec();
    // Instructions are aligned in the file, too.
    for instruction in object.chunks_exact_mut(tick.len()) {
        if instruction == tick {
            instruction.copy_from_slice(&clock);
        }
    }
    object
}

fn new_loader() -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    loader
}

fn classifier<'a>(programs: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    programs
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .expect("each object file, compiled into this binary, has a classifier of that name")
}

/// Kernels before 5.11 charge maps to RLIMIT_MEMLOCK, whose default is too low for them. Later ones do not care, so a refusal
/// matters only if loading fails too.
pub fn raise_memlock() {
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the pointer is to a live value of the type that setrlimit reads.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}

/// Name of the program on ports, also the name of its clsact filter.
pub const RX: &str = "port_rx";
/// Name of the program on the wire, whichever it is, also the name of its clsact filter.
pub const TX: &str = "bond_tx";

/// The call of a helper by its number, and the numbers of two. [linux/bpf.h]
const CALL: u8 = 0x85;
const TICK: u32 = 118;
const CLOCK: u32 = 5;

/// Most ports that the smaller program for copies serves. [tx_all.bpf.c: FEW]
pub const FEW: usize = 16;
/// Most ports with which the program for many copies is exchanged for the smaller one again.
pub const FEW_AGAIN: usize = 12;

static PORT_RX: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/port_rx.bpf.o"));
static TX_ONE: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tx_one.bpf.o"));
static TX_TURNS: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tx_turns.bpf.o"));
static TX_ALL: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tx_all.bpf.o"));
static TX_ALL_MANY: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tx_all_many.bpf.o"));
static TX_ETHER: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tx_ether.bpf.o"));
static TX_IP: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tx_ip.bpf.o"));
static TX_ENCAP: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tx_encap.bpf.o"));

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aya::programs::{TestRun, TestRunOptions};
    use bond_modes::PortId;
    use bond_modes::plan::Accept;

    use super::*;
    use crate::clock;
    use crate::dataplane::tc::bpf::BondBpf;
    use crate::dataplane::tc::maps::Maps;

    /// Sends so many frames of no protocol that is a probe in at a port; how often they moved the stamp of "any", and for how long
    /// that took.
    fn stamps(loader: &mut Loader, frames: u32) -> (u32, Duration) {
        let mut rx = loader.load(Kind::Rx, None).unwrap();
        let mut bpf = BondBpf::on(Maps::of(&mut rx).unwrap()).unwrap();
        bpf.add_port(LOOPBACK, LOOPBACK.0).unwrap();
        bpf.set_accept(LOOPBACK, Accept::All).unwrap();
        let start = clock::now();
        let (mut moved, mut last) = (0, None);
        for _ in 0..frames {
            let mut options = TestRunOptions::new();
            options.data_in = Some(&[0; 60]);
            rx.program().test_run(options).unwrap();
            let any = bpf.heard(LOOPBACK).unwrap().any;
            moved += u32::from(any != last);
            last = any;
        }
        assert_eq!(bpf.counters(LOOPBACK).unwrap().rx_frames, u64::from(frames));
        (moved, clock::now().since(start))
    }

    #[test]
    fn frames_are_stamped_once_a_tick() {
        let (moved, took) = stamps(&mut Loader::default(), FRAMES);
        let ticks = took.as_millis() as u32 + 2;
        assert!((1..=ticks).contains(&moved), "{moved} stamps in {took:?}");
    }

    #[test]
    fn on_a_kernel_without_ticks_every_frame_is_stamped() {
        let mut loader = Loader {
            without_tick: true,
            ..Loader::default()
        };
        assert_eq!(stamps(&mut loader, FRAMES).0, FRAMES);
    }

    #[test]
    fn only_the_call_for_the_tick_is_replaced() {
        let changed = reading_the_clock(PORT_RX);
        let differ = changed.iter().zip(PORT_RX).filter(|(new, old)| new != old);
        assert_eq!((differ.count(), changed.len()), (1, PORT_RX.len()));
    }

    const FRAMES: u32 = 2_000;
    /// Test runs come in by it.
    const LOOPBACK: PortId = PortId(1);
}

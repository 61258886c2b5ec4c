//! The layout of the maps and of their values: an interface between versions of bondd, as a newer agent takes over the pinned maps
//! of an older one. [`upgrade`](super::upgrade) has the way from the layout before.

use std::mem::size_of;

use aya::Pod;
use aya::maps::MapType;
use bond_monitors::MacAddr;

use super::lists::List;

/// `struct transmit` of maps.bpf.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transmit {
    /// Where frames leave.
    pub selector: u32,
    /// Not 0: all senders are remembered.
    pub remember_all: u32,
}

// SAFETY: two integers without padding; every bit pattern is a value.
unsafe impl Pod for Transmit {}

/// `struct port` of maps.bpf.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Its slot in `rules`.
    pub rule: u32,
    /// Index of the wire.
    pub wire: u32,
    /// What went through it.
    pub counters: Counters,
    /// When frames of each kind of sender came.
    pub stamps: Stamps,
}

// SAFETY: integers without padding; every bit pattern is a value.
unsafe impl Pod for Port {}

/// `struct near` of maps.bpf.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Near {
    /// What is counted of the port that has this slot.
    pub port: Port,
    /// Its index; 0 if no port has the slot.
    pub ifindex: u32,
    /// Fills the last word.
    pub unused: u32,
}

// SAFETY: integers without padding; every bit pattern is a value.
unsafe impl Pod for Near {}

/// Counters in `struct port`; a value of its own in the first layout.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames let in.
    pub rx_frames: u64,
    /// Bytes let in.
    pub rx_bytes: u64,
    /// Frames refused.
    pub rx_dropped: u64,
    /// For the programs alone: the tick of the kernel's clock in which they last stamped a frame from elsewhere.
    pub any_tick: u64,
}

// SAFETY: six integers without padding; every bit pattern is a value.
unsafe impl Pod for Counters {}

/// Stamps in `struct port`; a value of its own in the first layout.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// A frame from elsewhere.
    pub any_ns: u64,
    /// One that is ARP or IPv6.
    pub probes_ns: u64,
    /// A frame of the bond's own.
    pub own_ns: u64,
}

// SAFETY: three integers without padding; every bit pattern is a value.
unsafe impl Pod for Stamps {}

/// `struct state` of maps.bpf.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// [`LAYOUT`].
    pub layout: u32,
    /// Number of the [`Way`](super::object::Way) whose program is on the wire.
    pub program: u32,
    /// The number of the build of all programs that are attached; 0 while they are being exchanged.
    pub build: u64,
}

// SAFETY: integers without padding; every bit pattern is a value.
unsafe impl Pod for State {}

/// The version of all these maps together. The first one had none.
pub const LAYOUT: u32 = 3;
/// The version before. It had no `near`, so its programs find no port there; all else is the same.
pub const WITHOUT_NEAR: u32 = 2;

/// Type of a map, sizes of its keys and of its values.
pub type Shape = (MapType, usize, usize);
/// Names and shapes of all maps. [maps.bpf.h]
pub const MAPS: [(&str, Shape); 10] = [
    (STATE, (MapType::Array, INDEX, size_of::<State>())),
    (TRANSMIT, (MapType::Array, INDEX, size_of::<Transmit>())),
    (LISTS, (MapType::Array, INDEX, size_of::<List>())),
    (TURNS, (MapType::PerCpuArray, INDEX, size_of::<u32>())),
    (NEAR, (MapType::PerCpuArray, INDEX, size_of::<Near>())),
    (PORTS, (MapType::PerCpuHash, INDEX, size_of::<Port>())),
    (RULES, (MapType::Array, INDEX, size_of::<u32>())),
    (OWN, (MapType::Hash, MAC, size_of::<u32>())),
    (SENT, (MapType::LruHash, MAC, size_of::<u32>())),
    (QUEUES, (MapType::Array, INDEX, size_of::<u32>())),
];
/// What `state` was in the layout without a version.
pub const FIRST_STATE: Shape = (MapType::Array, INDEX, size_of::<u32>());

/// An interface index or the number of a slot.
pub const INDEX: usize = size_of::<u32>();
const MAC: usize = size_of::<MacAddr>();

/// Name of the map that carries the version.
pub const STATE: &str = "state";
/// Name of the map with one value for each program that can be on the wire: where its frames leave.
pub const TRANSMIT: &str = "transmit";
/// Name of the map of lists of ports.
pub const LISTS: &str = "lists";
/// Name of the map that counts frames for round robin.
pub const TURNS: &str = "turns";
/// Name of the map of attached ports that are found by the lowest bits of their index.
pub const NEAR: &str = "near";
/// How many it holds. [maps.bpf.h: NEAR]
pub const NEAR_SLOTS: usize = 8;
/// Name of the map of the other attached ports.
pub const PORTS: &str = "ports";
/// Name of the map that says which frames are accepted.
pub const RULES: &str = "rules";
/// Name of the map of the addresses of the bond and its ports.
pub const OWN: &str = "own";
/// Name of the map of senders above the bond.
pub const SENT: &str = "sent";
/// Name of the map with the port of each transmit queue.
pub const QUEUES: &str = "queues";

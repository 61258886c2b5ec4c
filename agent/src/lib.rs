//! bondd: Linux bonding as a userspace agent. The library behind the programs `bondd`, `bondctl` and `ifenslave`.
//!
//! The agent turns the world into events for the pure bond machine of `bond-modes`, runs its actions against the kernel, and
//! owns the only clock. Forwarding never depends on this process: it runs in pinned BPF programs, also while we crash.

pub mod control;
pub mod ctl;
pub mod dataplane;

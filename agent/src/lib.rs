//! bondd: Linux bonding as a userspace agent. The library behind the programs `bondd`, `bondctl` and `ifenslave`.
//!
//! The agent turns the world into events for the pure bond machine of `bond-modes`, runs its actions against the kernel, and
//! owns the only clock. Forwarding never depends on this process: the kernel's team driver or pinned BPF programs do it, also while
//! we crash.

mod apart;
mod capabilities;
pub mod clock;
pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod dataplane;
mod descriptors;
mod elsewhere;
mod heap;
pub mod host;
pub mod instances;
mod locks;
pub mod logging;
pub mod may_wait;
pub mod netlink;
pub mod origins;
pub mod packet;
mod plane_option;
pub mod priority;
mod regular_file;
pub mod run;
pub mod saved;
pub mod signals;
pub mod status;
pub mod text;
mod threads;
mod vital_thread;
mod worker;

//! Harness of the end-to-end tests, the demo and the benchmark: network namespaces, cables that can be pulled, counted traffic, and a
//! running `bondd` with its clients.
//!
//! Everything made here is removed when its value is dropped, also while a failed test unwinds. Failures panic with a
//! message that names the command or object, because these are the only callers.

pub mod bins;
pub mod capture;
pub mod competitors;
pub mod control;
pub mod daemon;
pub mod debian;
pub mod fidelity;
pub mod fuzz_options;
pub mod held_lock;
pub mod held_thread;
pub mod in_kernel;
pub mod instructions;
pub mod lab;
pub mod lab_failover;
pub mod load;
pub mod machine;
pub mod many;
pub mod many_bonds;
pub mod netns;
pub mod process;
pub mod proof;
pub mod pulls;
pub mod queue;
pub mod raw;
pub mod recorded;
pub mod sim;
pub mod throughput;
pub mod traffic;
pub mod unsubscribe;
pub mod vm;
pub mod wait;

pub use capture::Capture;
pub use daemon::{Daemon, Settings};
pub use lab::{Bench, BondAndSwitch, TwoBonds};
pub use netns::{Cable, Netns, Switch};
pub use traffic::{Flow, Rate, Tally};
pub use wait::{until, wait_for};

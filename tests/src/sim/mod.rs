//! Simulation of the pure core: a bond, a model kernel and virtual time, without any interface of the machine.
//!
//! [`World`] drives one bond the way the agent does: every input is followed by draining its actions, and time jumps from
//! deadline to deadline. [`random`] walks such a world with seeded actions and checks invariants after each.

pub mod arp;
pub mod kernel;
pub mod net;
pub mod random;
pub mod rng;
pub mod world;

pub use kernel::{Kernel, Nic, PlanFailures, Undone};
pub use net::Net;
pub use rng::Rng;
pub use world::{AttachFails, Sent, SetsMac, Slow, World};

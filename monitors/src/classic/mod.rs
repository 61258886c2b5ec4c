//! The ARP monitor of the kernel's driver: targets are asked through the ports, and silent ports go down.
//! [bonding.rst: ARP monitor operation]
//!
//! The verdict about one port depends on the others: if one port carries all traffic, only that one is probed, and the others
//! count as up while they hear it. So a port's [`ArpMonitor`] keeps its evidence and verdict, the [`rules`] derive the verdict,
//! and the owner of the ports applies the rules and schedules the probes.
//!
//! Neighbour solicitations for IPv6 follow the same rules.

pub mod answer;
pub mod port;
pub mod rules;
pub mod window;

pub use self::answer::{ProbeAnswer, probe};
pub use self::port::{ArpMonitor, ArpState, Trial};
pub use self::rules::{Outcome, Rule, Standing};
pub use self::window::Window;

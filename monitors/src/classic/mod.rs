//! The ARP monitor of the kernel's driver: targets are asked through the ports, and ports that stay silent are given up.
//! [bonding.rst: ARP monitor operation]
//!
//! The verdict on one port depends on the others: where one port carries everything only that one is probed, and the others are
//! believed while they hear it. So a port's [`ArpMonitor`] keeps what is known of it and its verdict, the [`rules`] say what the
//! verdict is, and whoever owns the ports applies them and decides who is asked when.
//!
//! Neighbour solicitations for IPv6 follow the same rules.

pub mod answer;
pub mod port;
pub mod rules;
pub mod window;

pub use self::answer::{AnswerKind, ProbeAnswer, probe};
pub use self::port::{Answer, ArpMonitor, Trial};
pub use self::rules::{Outcome, Rule, Standing};
pub use self::window::Window;

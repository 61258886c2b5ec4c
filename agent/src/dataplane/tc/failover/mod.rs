//! Failover by the kernel itself, where it allows tracing programs.
//!
//! With each plan the agent prepares what follows if a port loses its carrier ([`prepare`]), and one program for all its
//! bonds, as the kernel marks that carrier as lost, does it in the same microsecond, whether the agent is busy, stopped or
//! gone. It notes that, and the agent takes the note for the fact that it is: see `Event::CarrierLost` of the core.
//!
//! What is prepared for a bond is in force as a whole while its number stands in the bond's map `transmit`, and nothing is after the
//! first loss of a carrier at any of its ports: the program counts losses, and the number is good for one count. Program and agent
//! write one selector: the program only if it is as it was when the failover was prepared, so what the agent wrote meanwhile stays.
//!
//! Program, maps and notes are pinned beside the bonds, so an agent that starts takes them over. Without the ability, or with
//! `--in-kernel-failover off`, all is as if this were not there.

mod attempts;
mod entering;
mod entries;
mod equip;
mod in_kernel;
pub mod layout;
mod open;
pub mod prepare;
mod watch;

pub use self::entries::{Prepared, Standing, losses};
pub use self::equip::equip;
pub use self::in_kernel::{FailoverChoice, InKernel};
#[cfg(test)]
pub use self::open::{NOTES_OF_TESTS, REFUSED};
pub use self::watch::LossWatch;

/// Ports for whose loss lists are prepared, at most: as many as a plan names, with room for the next ones beside them.
pub const MOST_PREPARED: usize = 4;
/// Lists that are left when some are prepared: for the plans of a loop that does not wait.
pub const LISTS_LEFT: usize = 4;

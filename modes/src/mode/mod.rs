//! The modes, one file each, and the list of them.
//!
//! A new mode is a file here, its `mod` line and its row in [`for_each_mode`].

mod active_backup;
mod any;
mod balance_rr;
mod balance_xor;
mod broadcast;
mod contract;
#[cfg(test)]
mod heartbeat;
mod spreading;

pub(crate) use any::AnyMode;
pub use any::{mode_title, moving_macs, options_in_force, spread};
pub(crate) use contract::{Announces, Change, Forwarding, Mode, ModeSaved, View};

use crate::named::named;

/// Hands every mode to a macro: documentation, name in [`ModeName`], name and number in the kernel's driver, type.
macro_rules! for_each_mode {
    ($then:ident) => {
        $then! {
            /// One port after the other.
            BalanceRr = "balance-rr" 0 => super::balance_rr::BalanceRr,
            /// One port carries everything, the others wait.
            ActiveBackup = "active-backup" 1 => super::active_backup::ActiveBackup,
            /// Each flow through the port that its hash names.
            BalanceXor = "balance-xor" 2 => super::balance_xor::BalanceXor,
            /// Everything through every port.
            Broadcast = "broadcast" 3 => super::broadcast::Broadcast,
            /// Beats between both ends, in tests only.
            #[cfg(test)]
            Heartbeat = "test-heartbeat" 255 => super::heartbeat::Heartbeat,
        }
    };
}
pub(crate) use for_each_mode;

/// Modes of the kernel's driver that are not there yet, each with its number; one that comes moves to [`for_each_mode`].
/// [bonding.rst: mode]
pub(crate) const ABSENT: &[(&str, u8)] = &[("802.3ad", 4), ("balance-tlb", 5), ("balance-alb", 6)];

macro_rules! mode_name {
    ($($(#[$doc:meta])* $name:ident = $text:literal $number:literal => $mode:path,)+) => {
        named! {
            /// How traffic is spread.
            ModeName { $($(#[$doc])* $name = $text $number,)+ }
        }
    };
}
for_each_mode!(mode_name);

//! Who may wait for the kernel or for a disk.

/// Shows that the holder's thread may wait, and has not locked what the loop needs. The loop has none, so it can neither use a bond's
/// plane nor do anything in the folder of states.
pub trait MayWait {}

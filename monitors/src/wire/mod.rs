//! Frame formats, each with byte fixtures.

pub mod arp;
pub mod ethernet;
pub mod mac;
pub mod nd;

pub use mac::MacAddr;

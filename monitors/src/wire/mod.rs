//! Frame formats: parse and emit, each with byte fixtures.

pub mod announce;
pub mod arp;
pub mod ethernet;
pub mod mac;
pub mod nd;

pub use mac::MacAddr;

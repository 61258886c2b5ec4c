//! Frame formats, each with byte fixtures.

pub mod arp;
pub mod ethernet;
pub mod igmp;
pub mod mac;
pub mod membership;
pub mod mld;
pub mod nd;
pub mod rarp;

mod checksum;
mod icmpv6;
#[cfg(test)]
mod tests;

pub use mac::MacAddr;

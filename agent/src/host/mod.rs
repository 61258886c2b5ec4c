//! The agent's picture of the interfaces of its network namespace: what there is, what stands on what, and their addresses.
//!
//! The kernel's events keep it up to date. A reading of everything begins it, and mends it after lost events. So no fact about an
//! interface costs a request to the kernel, and none a search.

mod picture;
mod reading;
mod refresh;
#[cfg(test)]
mod tests;

pub use self::picture::{Host, Moves, Relation};
pub use self::reading::Read;

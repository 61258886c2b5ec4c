//! The same scenario played to the kernel's bonding driver and to bondd, compared.
//!
//! [`scenario`] reads the files of `tests/fidelity/`; [`guest`] plays them, in the lab's machine, on each column in fresh network
//! namespaces and prints observations, [`heard`] among them; [`compare`] holds the columns against each other; [`differences`] knows the differences
//! that are wanted; [`random`] invents further scenarios; [`host`] starts the machines.

pub mod compare;
pub mod differences;
pub mod frame;
pub mod guest;
pub mod heard;
pub mod host;
pub mod random;
pub mod random_probing;
pub mod scenario;

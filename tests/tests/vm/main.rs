//! Tests in the lab's machines. One program, so that they run side by side: a machine takes one processor and computes without a
//! pause, because waiting costs it nothing.

mod fidelity;
mod files;
mod fixed_mac;
mod guest;
mod path_dead;
mod team;

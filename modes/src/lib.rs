//! The bond machine: which port carries the traffic, and what the kernel should do about it.
//!
//! A [`Bond`] is a value. Facts go in as [`Event`]s with a time, wishes as option sets; [`Action`]s come out. It has no socket,
//! clock, thread, lock or logger; the agent owns those.
#![forbid(unsafe_code)]

pub mod action;
pub mod event;
pub mod options;
pub mod plan;
pub mod status;

pub use action::{Action, Notice, SwitchReason};
pub use event::{Event, LocalAddress, PortFacts};
pub use plan::{Accept, Epoch, ForwardingPlan, PortId, PortPlan, TxPolicy};
pub use status::{BondStatus, LinkWord, OptionValue, PortStatus, Role, Snapshot, UpDown};

//! The bond machine: which port carries the traffic, and what the kernel should do about it.
//!
//! A [`Bond`] is a value. Facts go in as [`Event`]s with a time, wishes as option sets; [`Action`]s come out. It has no socket,
//! clock, thread, lock or logger; the agent owns those.
#![forbid(unsafe_code)]

pub mod action;
pub mod bond;
mod current;
mod deadline;
mod delays;
pub mod event;
pub mod hash;
pub mod ids;
pub mod machine;
mod mode;
mod named;
pub mod options;
mod outbox;
pub mod plan;
pub mod port;
mod probing;
mod roles;
pub mod status;
mod warning;
mod watch;

pub use action::{Action, Notice, SwitchReason};
pub use bond::{AdoptedState, Bond, NoFailover, Saved};
pub use event::{Counters, Event, HostBehind, LocalAddress, Reach, TargetPath};
pub use hash::XmitHashPolicy;
pub use ids::{Epoch, PortId};
pub use machine::Machine;
pub use mode::{mode_title, moving_macs, options_in_force, spread};
pub use options::{BondOptions, OptionError, OptionValue};
pub use plan::{Accept, Failover, ForwardingPlan, PortPlan, Spread, Tx};
pub use port::{Port, PortFacts, Ports};
pub use status::{
    AnswerStatus, BondStatus, EvidenceStatus, LinkWord, ModeStatus, PortStatus, Role, Snapshot, TargetStatus, UpDown,
};
pub use warning::Warning;

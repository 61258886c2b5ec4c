//! The bond machine: which port carries the traffic, and what the kernel should do about it.
//!
//! A [`Bond`] is a value. Facts go in as [`Event`]s with a time, wishes as option sets; [`Action`]s come out. It has no socket,
//! clock, thread, lock or logger; the agent owns those.
#![forbid(unsafe_code)]

pub mod action;
mod active_backup;
pub mod adopt;
mod balance_rr;
mod balance_xor;
pub mod bond;
mod broadcast;
mod choice;
mod configure;
mod device;
pub mod event;
pub mod hash;
pub mod ids;
mod links;
mod mode;
mod named;
mod notify;
pub mod options;
pub mod plan;
pub mod port;
mod probing;
pub mod select;
pub mod status;

pub use action::{Action, Notice, SwitchReason};
pub use adopt::{Saved, Seen};
pub use bond::Bond;
pub use event::{Event, LocalAddress, Reach, Station, TargetPath};
pub use hash::XmitHashPolicy;
pub use ids::{Epoch, PortId};
pub use mode::spread;
pub use options::{BondOptions, OptionError, OptionValue};
pub use plan::{Accept, ForwardingPlan, PortPlan, Spread, TxPolicy};
pub use port::{Port, PortFacts, Ports};
pub use status::{
    AnswerStatus, BondStatus, EvidenceStatus, LinkWord, PortStatus, Role, Snapshot, TargetStatus, UpDown,
};

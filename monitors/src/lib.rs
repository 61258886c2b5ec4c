//! Monitors of a port's link: vocabulary, detectors, delays and wire formats of bondd.
//!
//! Everything here is pure: time comes in as an argument ([`Time`]), facts come in as values, verdicts go out as
//! values. No clock, socket, thread or logger.
#![forbid(unsafe_code)]

pub mod carrier;
pub mod classic;
pub mod combine;
pub mod damping;
pub mod debounce;
pub mod evidence;
pub mod frames;
pub mod health;
pub mod link;
pub mod monitor;
pub mod sign_of_life;
pub mod stamps;
pub mod time;
pub mod wire;

pub use carrier::CarrierMonitor;
pub use classic::{ArpMonitor, ArpState, Trial, Window};
pub use combine::Combine;
pub use damping::{Damping, DampingRule};
pub use debounce::{Debounce, Delays, LinkState};
pub use evidence::{Answer, AnswerKind, Evidence};
pub use frames::{FrameKinds, WantedFrames};
pub use health::{AnyMonitor, Health};
pub use link::{Carrier, Duplex, LinkReport, Speed};
pub use monitor::{Ask, Fact, Monitor, Verdict};
pub use sign_of_life::SignOfLife;
pub use stamps::ReceiveStamps;
pub use time::{Pause, Time};
pub use wire::MacAddr;

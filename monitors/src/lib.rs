//! Is a port's link good? Link vocabulary, detectors, delays and wire formats of bondd.
//!
//! Everything here is pure: time comes in as an argument ([`Time`]), facts come in as values, verdicts go out as
//! values. No clock, socket, thread or logger.
#![forbid(unsafe_code)]

pub mod arp;
pub mod debounce;
pub mod evidence;
pub mod frames;
pub mod heard;
pub mod link;
pub mod mii;
pub mod time;
pub mod wire;

pub use arp::{Answer, AnswerKind, ArpMonitor, Trial, Window};
pub use debounce::{Debounce, LinkState};
pub use evidence::Evidence;
pub use frames::FrameKinds;
pub use heard::Heard;
pub use link::{Carrier, Duplex, LinkReport, Speed};
pub use mii::MiiMonitor;
pub use time::{Pause, Time};
pub use wire::MacAddr;

//! What the verdict of a monitor rests on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// What the verdict of a monitor rests on. Each monitor fills in the facts that it judges by and leaves the others empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// When a frame that counts last arrived; `None` for never.
    pub heard: Option<Time>,
    /// The last sign of life of each target that has given one.
    pub answers: BTreeMap<IpAddr, Answer>,
}

/// The last sign of life of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it came.
    pub at: Time,
    /// Its kind.
    pub by: AnswerKind,
    /// Later time without questions, which does not count as silence.
    pub paused: Duration,
}

impl Answer {
    /// From when on its silence counts.
    pub fn counts_from(self) -> Time {
        self.at + self.paused
    }
}

/// Evidence that the path to a target works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerKind {
    /// The target answered through this port.
    Reply,
    /// This backup port received the active port's question, which the target answers, through the network.
    Request,
}

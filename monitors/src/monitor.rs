//! The trait of monitors: facts about one port go in, requests and a verdict come out.
//!
//! A monitor does not depend on the mode or on the other monitors of its port; [`Health`](crate::Health) combines them.

use crate::evidence::Evidence;
use crate::frames::FrameKinds;
use crate::link::Carrier;
use crate::stamps::ReceiveStamps;
use crate::time::Time;

/// One way to find out whether a port works.
pub trait Monitor {
    /// Adds a fact. Requests that follow from it are added to `asks`.
    fn on_fact(&mut self, now: Time, fact: Fact<'_>, asks: &mut Vec<Ask>);

    /// Lets time pass. A call before the time is harmless.
    fn on_timeout(&mut self, _now: Time, _asks: &mut Vec<Ask>) {}

    /// When [`Monitor::on_timeout`] is to be called.
    fn poll_timeout(&self) -> Option<Time> {
        None
    }

    /// The verdict from all facts so far.
    fn verdict(&self) -> Verdict;

    /// What the verdict rests on, beside carrier.
    fn evidence(&self) -> Evidence {
        Evidence::default()
    }

    /// Kinds of frames that it wants to see.
    fn wants(&self) -> FrameKinds {
        FrameKinds::NONE
    }
}

/// A fact about a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact<'a> {
    /// A link event, or the answer to [`Ask::PollCarrier`]. The later of the two wins.
    Carrier(Carrier),
    /// The answer to [`Ask::ReadStamps`]; `None` if they could not be read, which is no evidence about the port.
    Stamps(Option<&'a ReceiveStamps>),
    /// A frame of a kind that [`Monitor::wants`], from the destination address on.
    Frame(&'a [u8]),
    /// Whether the port was in use before this monitor began: before a restart, or under another monitor. It counts until the
    /// monitor has a verdict.
    Before {
        /// It was in use.
        usable: bool,
    },
}

/// A request of a monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Read the port's carrier.
    PollCarrier,
    /// Read when the port was last heard.
    ReadStamps,
    /// Send this frame, from the destination address on, through the port.
    Send {
        /// Without FCS.
        frame: Vec<u8>,
    },
}

/// Verdict of a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Up,
    /// It does not.
    Down,
    /// Unknown.
    Unknown,
}

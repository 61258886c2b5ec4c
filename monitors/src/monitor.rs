//! What a monitor is: facts about one port go in, requests and a verdict come out.
//!
//! A monitor knows neither the mode nor the other monitors of its port; [`Health`](crate::Health) combines them.

use crate::frames::FrameKinds;
use crate::link::Carrier;
use crate::stamps::ReceiveStamps;
use crate::time::Time;

/// One way to tell whether a port works.
pub trait Monitor {
    /// Takes a fact in. What is wanted because of it is added to `asks`.
    fn on_fact(&mut self, now: Time, fact: Fact<'_>, asks: &mut Vec<Ask>);

    /// Lets time pass. A call before the time is harmless.
    fn on_timeout(&mut self, _now: Time, _asks: &mut Vec<Ask>) {}

    /// When [`Monitor::on_timeout`] has something to do.
    fn poll_timeout(&self) -> Option<Time> {
        None
    }

    /// What it makes of all facts so far.
    fn verdict(&self) -> Verdict;

    /// When the port last showed that it works; none if it never did, or if the monitor does not go by single moments.
    fn last_sign(&self) -> Option<Time> {
        None
    }

    /// Kinds of frames that it wants to see.
    fn wants(&self) -> FrameKinds {
        FrameKinds::NONE
    }
}

/// Something that is known about a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact<'a> {
    /// A link event, or the answer to [`Ask::PollCarrier`]. The later of the two wins.
    Carrier(Carrier),
    /// The answer to [`Ask::ReadStamps`]; none where they could not be read, which says nothing about the port.
    Stamps(Option<&'a ReceiveStamps>),
    /// A frame of a kind that [`Monitor::wants`], from the destination address on.
    Frame(&'a [u8]),
    /// The port was in use, or was not, when nobody watched it: before a restart, or under another monitor. That stands until the
    /// monitor knows better.
    Before {
        /// It was in use.
        usable: bool,
    },
}

/// Something that a monitor wants done.
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

/// What a monitor says about its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Up,
    /// It does not.
    Down,
    /// Nobody knows: the port is not blamed and not praised.
    Unknown,
}

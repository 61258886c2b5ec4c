//! Kinds of frames that a monitor or a mode wants to see.

use std::net::Ipv4Addr;
use std::ops::BitOr;

use crate::wire::{MacAddr, ethernet};

/// A set of kinds of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameKinds(u8);

impl FrameKinds {
    /// No frame.
    pub const NONE: FrameKinds = FrameKinds(0);
    /// ARP.
    pub const ARP: FrameKinds = FrameKinds(1);
    /// IPv6. Of a port's frames only neighbour discovery is passed on, for which this is asked.
    pub const IPV6: FrameKinds = FrameKinds(2);
    /// Slow protocols: LACP and marker. [802.3 annex 57A]
    pub const SLOW: FrameKinds = FrameKinds(4);

    /// The kind of a frame, behind its tags; the empty set for other frames.
    pub fn of(frame: &[u8]) -> FrameKinds {
        match ethernet::strip(frame).map(|outer| outer.ethertype) {
            Some(ethernet::ARP) => FrameKinds::ARP,
            Some(ethernet::IPV6) => FrameKinds::IPV6,
            Some(SLOW_PROTOCOLS) => FrameKinds::SLOW,
            _ => FrameKinds::NONE,
        }
    }

    /// The kinds of both sets.
    pub const fn or(self, other: FrameKinds) -> FrameKinds {
        FrameKinds(self.0 | other.0)
    }

    /// Whether it contains no kind.
    pub fn is_empty(self) -> bool {
        self == FrameKinds::NONE
    }

    /// Whether the two sets have a kind in common.
    pub fn meets(self, other: FrameKinds) -> bool {
        self.0 & other.0 != 0
    }

    /// The kinds of this set that are not in the other.
    pub fn without(self, other: FrameKinds) -> FrameKinds {
        FrameKinds(self.0 & !other.0)
    }
}

/// Frames that a bond needs from its ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedFrames {
    /// Of these kinds.
    pub kinds: FrameKinds,
    /// Of ARP no more than what these two groups of hosts say to each other; everything if there is nobody in the first.
    pub arp_between: (Vec<Ipv4Addr>, Vec<Ipv4Addr>),
}

impl From<FrameKinds> for WantedFrames {
    fn from(kinds: FrameKinds) -> WantedFrames {
        WantedFrames {
            kinds,
            ..WantedFrames::default()
        }
    }
}

impl BitOr for FrameKinds {
    type Output = FrameKinds;

    fn bitor(self, other: FrameKinds) -> FrameKinds {
        self.or(other)
    }
}

/// Where frames of slow protocols go. [802.3 annex 57A]
pub const SLOW_GROUP: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 2]);

/// EtherType of slow protocols.
const SLOW_PROTOCOLS: u16 = 0x8809;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_of_the_kind_of_its_ethertype_behind_its_tags() {
        let frame = |types: &[u8]| [&[2; 12], types, &[0; 8]].concat();
        assert_eq!(FrameKinds::of(&frame(&[8, 6])), FrameKinds::ARP);
        assert_eq!(FrameKinds::of(&frame(&[0x86, 0xdd])), FrameKinds::IPV6);
        assert_eq!(FrameKinds::of(&frame(&[0x88, 9])), FrameKinds::SLOW);
        assert_eq!(FrameKinds::of(&frame(&[0x81, 0, 0, 7, 8, 6])), FrameKinds::ARP);
        assert_eq!(FrameKinds::of(&frame(&[8, 0])), FrameKinds::NONE);
        assert_eq!(FrameKinds::of(&[2; 13]), FrameKinds::NONE);
    }

    #[test]
    fn sets_join_and_meet() {
        let both = FrameKinds::ARP | FrameKinds::IPV6;
        assert!(both.meets(FrameKinds::IPV6) && !both.meets(FrameKinds::SLOW));
        assert_eq!(both.without(FrameKinds::ARP), FrameKinds::IPV6);
        assert!(FrameKinds::NONE.is_empty() && !both.is_empty());
    }
}

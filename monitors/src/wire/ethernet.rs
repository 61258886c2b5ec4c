//! Ethernet II frames with any number of VLAN tags. [802.3, 802.1Q]

use super::mac::MacAddr;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of RARP.
pub const RARP: u16 = 0x8035;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// A VLAN tag of priority 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// Its EtherType: 0x8100 (802.1Q, customer) or 0x88a8 (802.1ad, service).
    pub protocol: u16,
    /// VLAN id, 0 to 4094.
    pub id: u16,
}

impl Tag {
    /// A customer tag. [802.1Q]
    pub const fn c(id: u16) -> Tag {
        Tag { protocol: C_TAG, id }
    }

    /// A service tag. [802.1ad]
    pub const fn s(id: u16) -> Tag {
        Tag { protocol: S_TAG, id }
    }
}

/// The headers before the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Receiver.
    pub destination: MacAddr,
    /// Sender.
    pub source: MacAddr,
    /// VLAN tags, the outermost first.
    pub tags: &'a [Tag],
    /// Type of the payload.
    pub ethertype: u16,
}

impl Header<'_> {
    /// The frame with this header, 14 bytes and 4 for each tag, and this payload.
    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(UNTAGGED + TAG * self.tags.len() + payload.len());
        frame.extend_from_slice(&self.destination.0);
        frame.extend_from_slice(&self.source.0);
        for tag in self.tags {
            frame.extend_from_slice(&tag.protocol.to_be_bytes());
            frame.extend_from_slice(&(tag.id & 0x0fff).to_be_bytes());
        }
        frame.extend_from_slice(&self.ethertype.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }
}

/// What a frame is about, whatever its tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Receiver of the frame.
    pub destination: MacAddr,
    /// Sender of the frame.
    pub source: MacAddr,
    /// What the bytes are.
    pub ethertype: u16,
    /// Everything behind the EtherType, padding too.
    pub bytes: &'a [u8],
}

/// Takes off the header and up to four tags; none if the frame is too short or has more.
pub fn strip(frame: &[u8]) -> Option<Payload<'_>> {
    let (destination, rest) = frame.split_first_chunk()?;
    let (source, mut rest) = rest.split_first_chunk()?;
    for _ in 0..=MOST_TAGS {
        let (ethertype, behind) = rest.split_first_chunk()?;
        let ethertype = u16::from_be_bytes(*ethertype);
        if ethertype != C_TAG && ethertype != S_TAG {
            return Some(Payload {
                destination: MacAddr(*destination),
                source: MacAddr(*source),
                ethertype,
                bytes: behind,
            });
        }
        rest = behind.get(TAG - 2..)?;
    }
    None
}

const C_TAG: u16 = 0x8100;
const S_TAG: u16 = 0x88a8;
/// Length of a header without tags.
const UNTAGGED: usize = 14;
/// Length of a tag.
const TAG: usize = 4;
/// More are no traffic of ours.
const MOST_TAGS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn frame(tags: &[Tag]) -> Vec<u8> {
        let header = Header {
            destination: MacAddr::BROADCAST,
            source: SOURCE,
            tags,
            ethertype: ARP,
        };
        header.frame(&[7])
    }

    #[test]
    fn tags_stand_between_addresses_and_ethertype_the_outermost_first() {
        assert_eq!(
            frame(&[]),
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, 7]
        );
        assert_eq!(frame(&[Tag::c(100)])[12..], [0x81, 0, 0, 100, 8, 6, 7]);
        assert_eq!(
            frame(&[Tag::s(0x123), Tag::c(100)])[12..],
            [0x88, 0xa8, 1, 0x23, 0x81, 0, 0, 100, 8, 6, 7]
        );
    }

    #[test]
    fn up_to_four_tags_are_taken_off_with_any_priority() {
        let expected = Payload {
            destination: MacAddr::BROADCAST,
            source: SOURCE,
            ethertype: ARP,
            bytes: &[7],
        };
        let tags = [Tag::s(1), Tag::c(2), Tag::c(3), Tag::s(4094), Tag::c(5)];
        for count in 0..=4 {
            assert_eq!(strip(&frame(&tags[..count])), Some(expected), "{count} tags");
        }
        assert_eq!(strip(&frame(&tags)), None);
        let mut urgent = frame(&tags[..1]);
        urgent[14] |= 0xe0;
        assert_eq!(strip(&urgent), Some(expected));
    }

    #[test]
    fn a_frame_that_ends_before_its_ethertype_is_none() {
        let whole = frame(&[Tag::c(2), Tag::c(3)]);
        for length in 0..22 {
            assert_eq!(strip(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(strip(&whole[..22]).map(|payload| payload.bytes), Some(&[][..]));
    }
}

//! Membership records, laid out alike in IGMPv3 and MLDv2. [RFC 3376 4.2, RFC 3810 5.2]

use std::net::{Ipv4Addr, Ipv6Addr};

/// Sources from which a host wants the traffic of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// From those listed only: MODE_IS_INCLUDE.
    Include,
    /// From all except those listed; with an empty list, from all: MODE_IS_EXCLUDE.
    Exclude,
}

/// A host's membership in one group. Addresses are [`Ipv4Addr`] or [`Ipv6Addr`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record<A> {
    /// Meaning of the sources.
    pub kind: Kind,
    /// The group.
    pub group: A,
    /// Included or excluded sources.
    pub sources: Vec<A>,
}

/// An address as it stands in a record.
pub(super) trait Address: Copy {
    /// Its length in bytes.
    const LENGTH: usize;

    /// Appends it.
    fn emit(self, bytes: &mut Vec<u8>);
}

impl Address for Ipv4Addr {
    const LENGTH: usize = 4;

    fn emit(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.octets());
    }
}

impl Address for Ipv6Addr {
    const LENGTH: usize = 16;

    fn emit(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.octets());
    }
}

/// Room of a packet behind its headers, in bytes. Its length field ends at 64 KiB, for any MTU.
pub(super) fn room(mtu: u32, headers: usize) -> usize {
    usize::from(u16::try_from(mtu).unwrap_or(u16::MAX)).saturating_sub(headers)
}

/// Report messages of this type for all records, their checksums still zero: as few as fit them in order, none longer than
/// [`room`] bytes unless a record with one source is longer.
pub(super) fn reports<A: Address>(kind: u8, records: &[Record<A>], room: usize) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for part in records.iter().flat_map(|record| parts(record, room)) {
        match messages.last_mut() {
            Some(last) if last.len() + part.len() <= room => add(last, &part),
            _ => {
                let mut message = vec![0; HEADER];
                message[0] = kind;
                add(&mut message, &part);
                messages.push(message);
            }
        }
    }
    messages
}

/// Appends a record to a message and counts it.
fn add(message: &mut Vec<u8>, record: &[u8]) {
    let count = u16::from_be_bytes([message[6], message[7]]) + 1;
    message[6..8].copy_from_slice(&count.to_be_bytes());
    message.extend_from_slice(record);
}

/// A record on the wire. One with more sources than a message has room for goes on in further records, but the sources of an
/// excluding one are cut: a second such record would take the first one's place. [RFC 3376 4.2.16, RFC 3810 5.2.15]
fn parts<A: Address>(record: &Record<A>, room: usize) -> Vec<Vec<u8>> {
    let most = (room.saturating_sub(HEADER + RECORD_HEADER + A::LENGTH) / A::LENGTH).max(1);
    let (first, rest) = record.sources.split_at(record.sources.len().min(most));
    let rest = match record.kind {
        Kind::Include => rest,
        Kind::Exclude => &[],
    };
    let part = |sources: &[A]| {
        let kind = match record.kind {
            Kind::Include => 1,
            Kind::Exclude => 2,
        };
        let [high, low] = (sources.len() as u16).to_be_bytes();
        let mut bytes = vec![kind, 0, high, low];
        record.group.emit(&mut bytes);
        sources.iter().for_each(|source| source.emit(&mut bytes));
        bytes
    };
    [first].into_iter().chain(rest.chunks(most)).map(part).collect()
}

/// Length of a report before its first record.
const HEADER: usize = 8;
/// Length of a record before its group.
const RECORD_HEADER: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 0, 0, 1);

    fn record(kind: Kind, sources: u8) -> Record<Ipv4Addr> {
        Record {
            kind,
            group: GROUP,
            sources: (0..sources).map(|last| Ipv4Addr::new(10, 0, 0, last)).collect(),
        }
    }

    /// Each message as the number of sources of each of its records.
    fn sources(records: &[Record<Ipv4Addr>], room: usize) -> Vec<Vec<u8>> {
        let messages = reports(0x22, records, room);
        let listed = |message: &Vec<u8>| {
            let (mut at, mut found) = (HEADER, vec![]);
            while at < message.len() {
                found.push(message[at + 3]);
                at += 8 + 4 * usize::from(message[at + 3]);
            }
            assert_eq!(usize::from(message[7]), found.len(), "records counted");
            assert!(message.len() <= room, "{} bytes", message.len());
            found
        };
        messages.iter().map(listed).collect()
    }

    #[test]
    fn records_share_a_message_as_long_as_it_has_room() {
        let records = vec![record(Kind::Exclude, 0); 5];
        assert_eq!(sources(&records, 48), [vec![0; 5]]);
        assert_eq!(sources(&records, 47), [vec![0; 4], vec![0; 1]]);
        assert!(sources(&[], 48).is_empty());
    }

    #[test]
    fn a_long_list_of_wanted_sources_goes_on_in_further_records() {
        let record = record(Kind::Include, 9);
        assert_eq!(sources(std::slice::from_ref(&record), 32), [[4], [4], [1]]);
        let listed: Vec<u8> = reports(0x22, &[record], 32)
            .iter()
            .flat_map(|message| message[16..].chunks(4).map(|source| source[3]).collect::<Vec<_>>())
            .collect();
        assert_eq!(listed, (0..9).collect::<Vec<u8>>());
    }

    #[test]
    fn a_long_list_of_unwanted_sources_is_cut() {
        assert_eq!(sources(&[record(Kind::Exclude, 9)], 32), [[4]]);
    }

    #[test]
    fn a_record_that_has_no_room_goes_alone() {
        let messages = reports(0x22, &[record(Kind::Include, 2), record(Kind::Exclude, 0)], 0);
        let lengths: Vec<_> = messages.iter().map(Vec::len).collect();
        assert_eq!(lengths, [20, 20, 16]);
    }
}

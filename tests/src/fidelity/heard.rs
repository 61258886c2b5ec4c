//! Frames received at the far ends of the cables: flows of ours, announcements, questions of the monitors, multicast reports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::frame;

/// All frames since the last reading.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// By flow: how many frames at which port.
    pub flows: BTreeMap<u32, BTreeMap<String, u32>>,
    /// Announcements by port and kind.
    pub announced: BTreeMap<String, u32>,
    /// Questions for an address, by port and text, with the hardware addresses that asked; not how often.
    pub asked: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    /// Reports of the groups that we are to be members of, by group and port.
    pub reported: BTreeMap<String, BTreeMap<String, u32>>,
    groups: BTreeSet<IpAddr>,
}

impl Heard {
    /// Counts the reports of a group from now on; the stack has groups of its own, which nobody asked for.
    pub fn expect(&mut self, group: IpAddr) {
        self.groups.insert(group);
    }

    /// Records a frame from the far end of a port's cable.
    pub fn take(&mut self, port: &str, frame: &[u8]) {
        if let Some(flow) = frame::flow(frame) {
            *self.flows.entry(flow).or_default().entry(port.to_owned()).or_default() += 1;
        } else if let Some(kind) = frame::announcement(&untagged(frame)) {
            *self.announced.entry(format!("{kind} {port}")).or_default() += 1;
        } else if let Some((question, mac)) = question(frame) {
            let asked = self.asked.entry(port.to_owned()).or_default();
            asked.entry(question).or_default().insert(mac);
        } else {
            for group in reports(frame).iter().filter(|group| self.groups.contains(group)) {
                let ports = self.reported.entry(group.to_string()).or_default();
                *ports.entry(port.to_owned()).or_default() += 1;
            }
        }
    }

    /// All of it, forgotten here; the groups stay.
    pub fn forget(&mut self) -> Heard {
        let groups = self.groups.clone();
        std::mem::replace(
            self,
            Heard {
                groups,
                ..Heard::default()
            },
        )
    }
}

/// Target, sender and VLAN of a question, and the hardware address that asks.
fn question(frame: &[u8]) -> Option<(String, String)> {
    let (vlan, ethertype, packet) = payload(frame)?;
    let (target, source, told) = match ethertype {
        ARP => {
            let source: Ipv4Addr = address::<4>(packet, 14)?.into();
            let target: Ipv4Addr = address::<4>(packet, 24)?.into();
            let request = packet.starts_with(&[0, 1, 8, 0, 6, 4, 0, 1]);
            request.then_some((IpAddr::V4(target), IpAddr::V4(source), packet.get(8..14)?))?
        }
        IPV6 if packet.get(6) == Some(&ICMPV6) && packet.get(40) == Some(&SOLICITATION) => {
            let source: Ipv6Addr = address::<16>(packet, 8)?.into();
            let target: Ipv6Addr = address::<16>(packet, 48)?.into();
            // The stack asks for its own addresses of this kind.
            if target.is_unicast_link_local() {
                return None;
            }
            // The option that tells the sender's hardware address, if there is one.
            let told = packet.get(64..72).filter(|option| option.starts_with(&[1, 1]));
            (
                target.into(),
                source.into(),
                told.map_or(&[][..], |option| &option[2..]),
            )
        }
        _ => return None,
    };
    let vlan = vlan.map_or(String::new(), |vlan| format!(" vlan {vlan}"));
    let (sender, told) = (hex(frame.get(6..12)?), hex(told));
    Some((
        format!("{target} from {source}{vlan}"),
        format!("{sender} tells {told}"),
    ))
}

/// Groups that a multicast report names. [RFC 3376 4.2, RFC 2236 2, RFC 3810 5.2]
fn reports(frame: &[u8]) -> Vec<IpAddr> {
    let Some((_, ethertype, packet)) = payload(frame) else {
        return Vec::new();
    };
    let of = |message: &[u8], size: usize| -> Vec<IpAddr> {
        let mut groups = Vec::new();
        let mut rest = message.get(8..).unwrap_or_default();
        while rest.len() >= 4 + size {
            let sources = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            groups.extend(group(&rest[4..4 + size]));
            rest = rest.get(4 + size + sources * size..).unwrap_or_default();
        }
        groups
    };
    match ethertype {
        IPV4 if packet.get(9) == Some(&IGMP) => {
            let header = usize::from(packet[0] & 15) * 4;
            let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            match packet.get(header..length).unwrap_or_default() {
                [0x16, _, _, _, old @ ..] => group(old.get(..4).unwrap_or_default()).into_iter().collect(),
                message @ [0x22, ..] => of(message, 4),
                _ => Vec::new(),
            }
        }
        // Behind a hop-by-hop header of eight bytes.
        IPV6 if packet.get(6) == Some(&0) && packet.get(40..42) == Some(&[ICMPV6, 0]) => {
            match packet.get(48..).unwrap_or_default() {
                message @ [143, ..] => of(message, 16),
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

fn group(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The frame without its tag.
fn untagged(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame.len() >= 16 && frame[12..14] == VLAN.to_be_bytes() {
        frame.drain(12..16);
    }
    frame
}

/// VLAN of a frame, its protocol, and what is behind.
fn payload(frame: &[u8]) -> Option<(Option<u16>, u16, &[u8])> {
    let number = |at: usize| Some(u16::from_be_bytes(address::<2>(frame, at)?));
    match number(12)? {
        VLAN => Some((Some(number(14)? & 0xfff), number(16)?, frame.get(18..)?)),
        ethertype => Some((None, ethertype, frame.get(14..)?)),
    }
}

fn address<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..at + N)?.try_into().ok()
}

fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const IPV6: u16 = 0x86dd;
const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: [u8; 12] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0xe0, 1];

    fn arp(source: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let head = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0xe0, 1];
        [&head[..], &source, &[0; 6], &target].concat()
    }

    #[test]
    fn a_question_is_told_with_its_sender_and_its_vlan() {
        let mut heard = Heard::default();
        let packet = arp([10, 9, 0, 1], [10, 9, 0, 2]);
        heard.take("eth1", &[&SENDER[..], &[8, 6], &packet].concat());
        heard.take("eth1", &[&SENDER[..], &[0x81, 0, 0x20, 7, 8, 6], &packet].concat());
        let asked = &heard.asked["eth1"];
        let mac = "02:00:00:00:e0:01 tells 02:00:00:00:e0:01";
        assert_eq!(asked["10.9.0.2 from 10.9.0.1"], BTreeSet::from([mac.to_owned()]));
        assert!(asked.contains_key("10.9.0.2 from 10.9.0.1 vlan 7"));
        let own = arp([10, 9, 0, 1], [10, 9, 0, 1]);
        heard.take("eth1", &[&SENDER[..], &[8, 6], &own].concat());
        heard.take("eth1", &[&SENDER[..], &[0x81, 0, 0, 7, 8, 6], &own].concat());
        assert_eq!((heard.asked["eth1"].len(), heard.announced["garp eth1"]), (2, 2));
    }

    #[test]
    fn a_neighbour_solicitation_without_an_address_tells_none() {
        let target: Ipv6Addr = "2001:db8::2".parse().unwrap();
        let head = [0x60, 0, 0, 0, 0, 24, ICMPV6, 255];
        let packet = [
            &head[..],
            &[0; 32],
            &[SOLICITATION, 0, 0, 0, 0, 0, 0, 0],
            &target.octets(),
        ]
        .concat();
        let frame = [&SENDER[..], &[0x86, 0xdd], &packet].concat();
        let told = question(&frame).unwrap();
        assert_eq!(
            told,
            ("2001:db8::2 from ::".to_owned(), "02:00:00:00:e0:01 tells ".to_owned())
        );
        for length in 0..frame.len() {
            assert_eq!(question(&frame[..length]), None);
        }
    }

    #[test]
    fn only_reports_of_groups_that_were_joined_count() {
        let mut heard = Heard::default();
        heard.expect([239, 1, 1, 1].into());
        let record = |last: u8| [4, 0, 0, 0, 239, 1, 1, last];
        let report = [&[0x22, 0, 0, 0, 0, 0, 0, 2][..], &record(1), &record(2)].concat();
        let head = [
            0x46, 0, 0, 48, 0, 0, 0, 0, 1, IGMP, 0, 0, 0, 0, 0, 0, 224, 0, 0, 22, 0x94, 4, 0, 0,
        ];
        let frame = [&SENDER[..], &[8, 0], &head, &report].concat();
        heard.take("eth0", &frame);
        heard.take("eth0", &frame);
        assert_eq!(heard.reported.len(), 1);
        assert_eq!(heard.reported["239.1.1.1"]["eth0"], 2);
        for length in 0..frame.len() {
            reports(&frame[..length]);
        }
    }
}

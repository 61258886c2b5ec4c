//! Frames of a `send` or `arrive` step, and what is read from the frames that come out.

use crate::sim::rng::Rng;

/// Frames of a step: flows that differ in the fields named, some frames each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Number of flows.
    pub flows: u32,
    /// Frames of each, flow after flow.
    pub each: u32,
    /// Device that a `send` step uses.
    pub device: String,
    kind: Kind,
    vary: Vec<Field>,
    seed: u64,
    base: Fields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Udp4,
    Tcp4,
    Icmp4,
    Frag4,
    Igmp4,
    Ipip4,
    Gre4,
    Udp6,
    Tcp6,
    Icmp6,
    Vlan4,
    Arp,
    Raw,
}

const KINDS: [(&str, Kind); 13] = [
    ("udp4", Kind::Udp4),
    ("tcp4", Kind::Tcp4),
    ("icmp4", Kind::Icmp4),
    ("frag4", Kind::Frag4),
    ("igmp4", Kind::Igmp4),
    ("ipip4", Kind::Ipip4),
    ("gre4", Kind::Gre4),
    ("udp6", Kind::Udp6),
    ("tcp6", Kind::Tcp6),
    ("icmp6", Kind::Icmp6),
    ("vlan4", Kind::Vlan4),
    ("arp", Kind::Arp),
    ("raw", Kind::Raw),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Smac,
    Dmac,
    Sip,
    Dip,
    Sport,
    Dport,
    Vlan,
}

const FIELDS: [(&str, Field); 7] = [
    ("smac", Field::Smac),
    ("dmac", Field::Dmac),
    ("sip", Field::Sip),
    ("dip", Field::Dip),
    ("sport", Field::Sport),
    ("dport", Field::Dport),
    ("vlan", Field::Vlan),
];

/// Values of the header fields; addresses are the last bytes of 10.9.0.0/16 or 2001:db8::/64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields {
    smac: [u8; 6],
    dmac: [u8; 6],
    sip: [u8; 4],
    dip: [u8; 4],
    sport: u16,
    dport: u16,
    vlan: u16,
}

impl Traffic {
    /// `COUNT KIND [each=N] [dev=DEVICE] [seed=N] [vary=FIELD,...] [smac=MAC] [dmac=MAC]`.
    pub fn parse(words: &[&str]) -> Result<Traffic, String> {
        let [flows, kind, settings @ ..] = words else {
            return Err("expected COUNT KIND".to_owned());
        };
        let mut traffic = Traffic {
            flows: flows.parse().map_err(|_| "not a number of flows")?,
            each: 1,
            device: "bond0".to_owned(),
            kind: named(&KINDS, kind)?,
            vary: Vec::new(),
            seed: 1,
            base: Fields::default(),
        };
        for setting in settings {
            let (name, value) = setting.split_once('=').ok_or("expected NAME=VALUE")?;
            match name {
                "each" => traffic.each = value.parse().map_err(|_| "not a number of frames")?,
                "dev" => traffic.device = value.to_owned(),
                "seed" => traffic.seed = value.parse().map_err(|_| "not a seed")?,
                "vary" => {
                    traffic.vary = value
                        .split(',')
                        .map(|name| named(&FIELDS, name))
                        .collect::<Result<_, _>>()?;
                }
                "smac" => traffic.base.smac = mac(value)?,
                "dmac" => traffic.base.dmac = mac(value)?,
                _ => return Err(format!("no setting '{name}'")),
            }
        }
        Ok(traffic)
    }

    /// All frames in the order of sending, each with its flow's number.
    pub fn frames(&self) -> Vec<(u32, Vec<u8>)> {
        let mut rng = Rng::new(self.seed);
        let mut frames = Vec::new();
        for flow in 0..self.flows {
            let mut fields = self.base;
            for field in &self.vary {
                fields.draw(*field, &mut rng);
            }
            for frame in 0..self.each {
                frames.push((flow, build(self.kind, &fields, flow, frame)));
            }
        }
        frames
    }
}

impl Default for Fields {
    fn default() -> Self {
        Fields {
            smac: [2, 0, 0, 0, 0xaa, 1],
            dmac: [2, 0, 0, 0, 0xbb, 1],
            sip: [10, 9, 1, 1],
            dip: [10, 9, 2, 1],
            sport: 40000,
            dport: 5001,
            vlan: 7,
        }
    }
}

impl Fields {
    fn draw(&mut self, field: Field, rng: &mut Rng) {
        let bits = rng.next_u64().to_be_bytes();
        let number = u16::from_be_bytes([bits[0], bits[1]]);
        match field {
            Field::Smac => self.smac[1..].copy_from_slice(&bits[..5]),
            Field::Dmac => self.dmac[1..].copy_from_slice(&bits[..5]),
            Field::Sip => self.sip.copy_from_slice(&bits[..4]),
            Field::Dip => self.dip.copy_from_slice(&bits[..4]),
            Field::Sport => self.sport = number,
            Field::Dport => self.dport = number,
            Field::Vlan => self.vlan = number,
        }
    }
}

/// The marker at the end of a frame of ours: its flow.
pub fn flow(frame: &[u8]) -> Option<u32> {
    let tail = frame.len().checked_sub(TAIL)?;
    let (magic, numbers) = frame[tail..].split_at(MAGIC.len());
    (magic == MAGIC).then(|| u32::from_be_bytes([numbers[0], numbers[1], numbers[2], numbers[3]]))
}

/// Whether a frame announces an address: `garp`, or `na` for IPv6.
pub fn announcement(frame: &[u8]) -> Option<&'static str> {
    let arp = frame.len() >= 42 && frame[12..14] == [8, 6] && frame[28..32] == frame[38..42];
    // ICMPv6 type 136 to ff02::1 with the override flag and not as an answer.
    let advertisement = frame.len() >= 78
        && frame[12..14] == [0x86, 0xdd]
        && frame[20] == 58
        && frame[54] == 136
        && frame[58] & 0x60 == 0x20
        && frame[38..40] == [0xff, 2];
    match (arp, advertisement) {
        (true, _) => Some("garp"),
        (_, true) => Some("na"),
        _ => None,
    }
}

/// Six bytes from `02:00:...`.
pub fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).map_err(|_| format!("'{text}' is no hardware address")))
        .collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| format!("'{text}' is no hardware address"))
}

fn named<T: Copy>(table: &[(&str, T)], name: &str) -> Result<T, String> {
    let row = table.iter().find(|(known, _)| *known == name);
    row.map(|(_, value)| *value).ok_or_else(|| format!("no '{name}' here"))
}

fn build(kind: Kind, fields: &Fields, flow: u32, frame: u32) -> Vec<u8> {
    let marker = [MAGIC, &flow.to_be_bytes(), &frame.to_be_bytes()].concat();
    let ports = [fields.sport.to_be_bytes(), fields.dport.to_be_bytes()].concat();
    let udp = |ports: &[u8]| [ports, &[0, 8 + 8 + TAIL as u8, 0, 0], &[0; 8], &marker].concat();
    let tcp = [&ports[..], &[0; 8], &[0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0], &marker].concat();
    // An echo request: its identifier is the source port, so that it can vary.
    let echo = |kind: u8| [&[kind, 0, 0, 0], &ports[..2], &[0, 1], &[0; 8], &marker].concat();
    let (sip, dip) = (fields.sip, fields.dip);
    let inner = ipv4(
        [10, 1, ports[0], ports[1]],
        [10, 2, ports[2], ports[3]],
        17,
        0,
        &udp(&ports),
    );
    let (ethertype, payload) = match kind {
        Kind::Udp4 => (0x0800, ipv4(sip, dip, 17, 0, &udp(&ports))),
        Kind::Tcp4 => (0x0800, ipv4(sip, dip, 6, 0, &tcp)),
        Kind::Icmp4 => (0x0800, ipv4(sip, dip, 1, 0, &echo(8))),
        // A later fragment: what lies where ports would be is none.
        Kind::Frag4 => (0x0800, ipv4(sip, dip, 17, 100, &udp(&ports))),
        Kind::Igmp4 => (
            0x0800,
            ipv4(
                sip,
                dip,
                2,
                0,
                &[&[0x16, 0, 0, 0, 224, 1, 1, 1], &[0; 8], &marker[..]].concat(),
            ),
        ),
        Kind::Ipip4 => (0x0800, ipv4(sip, dip, 4, 0, &inner)),
        Kind::Gre4 => (0x0800, ipv4(sip, dip, 47, 0, &[&[0, 0, 8, 0], &inner[..]].concat())),
        Kind::Udp6 => (0x86dd, ipv6(fields, 17, &udp(&ports))),
        Kind::Tcp6 => (0x86dd, ipv6(fields, 6, &tcp)),
        Kind::Icmp6 => (0x86dd, ipv6(fields, 58, &echo(128))),
        Kind::Vlan4 => {
            let tag = [&fields.vlan.to_be_bytes()[..], &[8, 0]].concat();
            (0x8100, [tag, ipv4(sip, dip, 17, 0, &udp(&ports))].concat())
        }
        Kind::Arp => {
            let head = [0, 1, 8, 0, 6, 4, 0, 1];
            (
                0x0806,
                [&head[..], &fields.smac, &sip, &[0; 6], &dip, &[0; 2], &marker].concat(),
            )
        }
        Kind::Raw => (0x88b5, [&[0; 32], &marker[..]].concat()),
    };
    [&fields.dmac[..], &fields.smac, &u16::to_be_bytes(ethertype), &payload].concat()
}

fn ipv4(sip: [u8; 4], dip: [u8; 4], protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut head = [
        &[0x45, 0],
        &length.to_be_bytes()[..],
        &[0, 1],
        &fragment.to_be_bytes(),
        &[64, protocol, 0, 0],
        &sip,
        &dip,
    ]
    .concat();
    let sum: u32 = head
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    [head, payload.to_vec()].concat()
}

fn ipv6(fields: &Fields, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    let prefix = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0];
    [
        &[0x60, 0, 0, 0],
        &length[..],
        &[protocol, 64],
        &prefix,
        &fields.sip,
        &prefix,
        &fields.dip,
        payload,
    ]
    .concat()
}

const MAGIC: &[u8] = b"fidelity";
const TAIL: usize = MAGIC.len() + 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_carries_its_flow_and_is_long_enough_for_ethernet() {
        for (name, _) in KINDS {
            let traffic = Traffic::parse(&["3", name, "vary=sip,dport", "each=2"]).unwrap();
            let frames = traffic.frames();
            assert_eq!(frames.len(), 6);
            for (number, frame) in &frames {
                assert_eq!(flow(frame), Some(*number), "{name}");
                assert!(frame.len() >= 60, "{name}: {} bytes", frame.len());
            }
        }
    }

    #[test]
    fn only_what_is_to_vary_varies() {
        let traffic = Traffic::parse(&["2", "udp4", "vary=sport"]).unwrap();
        let frames = traffic.frames();
        assert_ne!(frames[0].1[34..36], frames[1].1[34..36]);
        assert_eq!(frames[0].1[..34], frames[1].1[..34]);
    }

    #[test]
    fn an_announcement_is_told_from_a_question() {
        let question = &Traffic::parse(&["1", "arp"]).unwrap().frames()[0].1;
        assert_eq!(announcement(question), None);
        let mut announced = question.clone();
        announced.copy_within(28..32, 38);
        assert_eq!(announcement(&announced), Some("garp"));
    }
}

//! A flow given in words, as in `src 10.0.0.1 dst 10.0.0.2 proto tcp sport 40000 dport 80`, and the hash of its frames.
//!
//! The words become a frame, so that there is one place that knows how a frame is hashed. A policy that needs a field which
//! was not given is an error that names the field: a guessed value would name a wrong port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bond_monitors::MacAddr;

use super::dissect::{ethertype_leads_on, is_icmp_error, protocol_leads_on};
use super::layers::{
    AH, ARP, DCCP, ESP, ICMP, ICMP6, IPV4, IPV6, Layer4, SCTP, SERVICE_VLAN, TCP, UDP, UDP_LITE, VLAN,
};
use super::policy::XmitHashPolicy;
use super::{Explanation, Source, explain};

/// Fields of the frames of a flow; missing ones are unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowSpec {
    smac: Option<MacAddr>,
    dmac: Option<MacAddr>,
    vlan: Option<u16>,
    pcp: Option<u16>,
    ethertype: Option<u16>,
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    proto: Option<Protocol>,
    sport: Option<u16>,
    dport: Option<u16>,
    spi: Option<u32>,
    kind: Option<IcmpType>,
    code: Option<u8>,
    id: Option<u16>,
}

/// The words are not a flow, or a field is missing; one sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FlowError(String);

/// Names of the fields with their values.
pub const FIELDS: &[(&str, &str)] = &[
    ("smac", "source MAC address"),
    ("dmac", "destination MAC address"),
    ("vlan", "VLAN id, 0 to 4094"),
    ("pcp", "priority in the VLAN tag, 0 to 7"),
    (
        "ethertype",
        "ipv4, ipv6, arp or a number such as 0x88cc; a tag is field vlan",
    ),
    ("src", "source IP address"),
    ("dst", "destination IP address"),
    ("proto", "tcp, udp, sctp, dccp, udplite, esp, ah, icmp or a number"),
    ("sport", "source port"),
    ("dport", "destination port"),
    ("spi", "security parameters index of ESP or AH"),
    (
        "type",
        "ICMP type: echo, echo-reply, timestamp, timestamp-reply or a number",
    ),
    ("code", "ICMP code"),
    ("id", "ICMP id"),
];

/// An IP protocol; ICMP by name is that of the addresses' family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Icmp,
    Number(u8),
}

/// An ICMP type; by name it has a number for each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IcmpType {
    Named { v4: u8, v6: u8 },
    Number(u8),
}

impl FlowSpec {
    /// Fields and values as given.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, FlowError> {
        let mut spec = FlowSpec::default();
        let mut given: Vec<&str> = Vec::new();
        for (field, value) in pairs {
            let Some((_, expected)) = FIELDS.iter().find(|(name, _)| *name == field) else {
                let names: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
                return Err(FlowError(format!(
                    "'{field}' is not a field of a frame, expected one of {}",
                    names.join(", ")
                )));
            };
            if given.contains(&field) {
                return Err(FlowError(format!("field '{field}' is given twice")));
            }
            given.push(field);
            spec.take(field, value).ok_or_else(|| {
                FlowError(format!(
                    "'{value}' is not a value of field '{field}', expected {expected}"
                ))
            })?;
        }
        Ok(spec)
    }

    fn take(&mut self, field: &str, value: &str) -> Option<()> {
        match field {
            "smac" => self.smac = Some(value.parse().ok()?),
            "dmac" => self.dmac = Some(value.parse().ok()?),
            "vlan" => self.vlan = Some(number(value).filter(|&id| id <= 4094)?),
            "pcp" => self.pcp = Some(number(value).filter(|&pcp| pcp <= 7)?),
            "ethertype" => self.ethertype = Some(ethertype(value)?),
            "src" => self.src = Some(value.parse().ok()?),
            "dst" => self.dst = Some(value.parse().ok()?),
            "proto" => self.proto = Some(protocol(value)?),
            "sport" => self.sport = Some(number(value)?),
            "dport" => self.dport = Some(number(value)?),
            "spi" => self.spi = Some(number(value)?),
            "type" => self.kind = Some(icmp_type(value)?),
            "code" => self.code = Some(number(value)?),
            "id" => self.id = Some(number(value)?),
            _ => return None,
        }
        Some(())
    }

    /// The hash of the flow's frames with its explanation; their sender is `bond_mac` unless `smac` was given.
    pub fn explain(&self, policy: XmitHashPolicy, bond_mac: MacAddr) -> Result<Explanation, FlowError> {
        let frame = self.frame(bond_mac)?;
        self.is_one_header(policy)?;
        // A tag that is 0 hashes like none, but keeps the bytes from being searched for one.
        let mut explanation = explain(policy, &frame, Some(self.tci().unwrap_or(0)));
        explanation.tci = self.tci();
        let missing = match explanation.uses {
            Source::Nothing | Source::VlanSrcmac => None,
            Source::Ethernet => self.missing_ethernet()?,
            Source::Layer23 => self.missing_ethernet()?.or_else(|| self.missing_ip(&explanation)),
            Source::Layer34 => self
                .missing_ip(&explanation)
                .or_else(|| self.missing_layer4(&explanation)),
        };
        match missing {
            None => Ok(explanation),
            Some(field) => Err(FlowError(format!(
                "policy {policy} chooses by fields that are not given: add {field}"
            ))),
        }
    }

    /// The VLAN tag, if there is one.
    pub fn tci(&self) -> Option<u16> {
        match (self.vlan, self.pcp) {
            (None, None) => None,
            (vlan, pcp) => Some(pcp.unwrap_or(0) << 13 | vlan.unwrap_or(0)),
        }
    }

    /// A frame of the flow without its tag: good to be hashed, not to be sent, with zeros for what is not known.
    pub fn frame(&self, bond_mac: MacAddr) -> Result<Vec<u8>, FlowError> {
        let ethertype = self.ethertype()?.unwrap_or(0);
        let mut frame = Vec::with_capacity(128);
        frame.extend(self.dmac.unwrap_or_default().0);
        frame.extend(self.smac.unwrap_or(bond_mac).0);
        frame.extend(ethertype.to_be_bytes());
        let payload = self.layer4()?;
        // An unknown protocol is replaced by one reserved for experiments. [RFC 3692]
        let protocol = self.ip_protocol().unwrap_or(253);
        match ethertype {
            IPV4 => {
                let length = (IPV4_LENGTH + payload.len() as u16).to_be_bytes();
                frame.extend([0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0]);
                for address in [self.src, self.dst] {
                    match address {
                        Some(IpAddr::V4(address)) => frame.extend(address.octets()),
                        _ => frame.extend(Ipv4Addr::UNSPECIFIED.octets()),
                    }
                }
                frame.extend(payload);
            }
            IPV6 => {
                let length = (payload.len() as u16).to_be_bytes();
                frame.extend([0x60, 0, 0, 0, length[0], length[1], protocol, 64]);
                for address in [self.src, self.dst] {
                    match address {
                        Some(IpAddr::V6(address)) => frame.extend(address.octets()),
                        _ => frame.extend(Ipv6Addr::UNSPECIFIED.octets()),
                    }
                }
                frame.extend(payload);
            }
            _ => {}
        }
        // The shortest frame that Ethernet has, which the longest fixed headers of other protocols fit into.
        frame.resize(frame.len().max(60), 0);
        Ok(frame)
    }

    /// As given, or that of the addresses.
    fn ethertype(&self) -> Result<Option<u16>, FlowError> {
        let family = match (self.src, self.dst) {
            (Some(a), Some(b)) if a.is_ipv4() != b.is_ipv4() => {
                return Err(FlowError(format!("addresses {a} and {b} are of different families")));
            }
            (a, b) => a.or(b).map(|address| if address.is_ipv4() { IPV4 } else { IPV6 }),
        };
        let has_layer4 = self.ip_protocol().is_some();
        match (self.ethertype, family) {
            (Some(given), Some(of_addresses)) if given != of_addresses => Err(FlowError(format!(
                "ethertype {given:#06x} does not go with these addresses, whose ethertype is {of_addresses:#06x}: give only one of them"
            ))),
            (Some(given), None) if has_layer4 && !is_ip(given) => Err(FlowError(format!(
                "ethertype {given:#06x} carries no IP protocol: leave out either"
            ))),
            (given, of_addresses) => Ok(given.or(of_addresses)),
        }
    }

    fn is_ipv6(&self) -> bool {
        self.ethertype == Some(IPV6)
            || [self.src, self.dst]
                .into_iter()
                .flatten()
                .any(|address| address.is_ipv6())
    }

    /// As given, or the one that the other fields need.
    fn ip_protocol(&self) -> Option<u8> {
        let icmp = if self.is_ipv6() { ICMP6 } else { ICMP };
        match self.proto {
            Some(Protocol::Number(number)) => Some(number),
            Some(Protocol::Icmp) => Some(icmp),
            None if self.sport.is_some() || self.dport.is_some() => Some(TCP),
            None if self.spi.is_some() => Some(ESP),
            None if self.kind.is_some() || self.code.is_some() || self.id.is_some() => Some(icmp),
            None => None,
        }
    }

    /// The ICMP type, echo unless given.
    fn icmp_kind(&self) -> u8 {
        match self.kind.unwrap_or(ECHO) {
            IcmpType::Named { v6, .. } if self.ip_protocol() == Some(ICMP6) => v6,
            IcmpType::Named { v4, .. } => v4,
            IcmpType::Number(number) => number,
        }
    }

    /// The first bytes behind the IP header.
    fn layer4(&self) -> Result<Vec<u8>, FlowError> {
        let Some(protocol) = self.ip_protocol() else {
            return Ok(vec![0; 20]);
        };
        let (has_ports, has_spi, is_icmp) = (
            matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE),
            matches!(protocol, ESP | AH),
            matches!(protocol, ICMP | ICMP6),
        );
        for (field, given, fits) in [
            ("sport", self.sport.is_some(), has_ports),
            ("dport", self.dport.is_some(), has_ports),
            ("spi", self.spi.is_some(), has_spi),
            ("type", self.kind.is_some(), is_icmp),
            ("code", self.code.is_some(), is_icmp),
            ("id", self.id.is_some(), is_icmp),
        ] {
            if given && !fits {
                return Err(FlowError(format!(
                    "IP protocol {protocol} has no {field}: leave out either"
                )));
            }
        }
        let mut bytes = Vec::with_capacity(20);
        match protocol {
            _ if has_ports => {
                bytes.extend(self.sport.unwrap_or(0).to_be_bytes());
                bytes.extend(self.dport.unwrap_or(0).to_be_bytes());
            }
            _ if is_icmp => {
                bytes.extend([self.icmp_kind(), self.code.unwrap_or(0), 0, 0]);
                bytes.extend(self.id.unwrap_or(0).to_be_bytes());
            }
            ESP => bytes.extend(self.spi.unwrap_or(0).to_be_bytes()),
            AH => {
                bytes.extend([0; 4]);
                bytes.extend(self.spi.unwrap_or(0).to_be_bytes());
            }
            _ => {}
        }
        bytes.resize(20, 0);
        Ok(bytes)
    }

    /// Refuses what takes the port of an inner packet, which these fields do not describe.
    fn is_one_header(&self, policy: XmitHashPolicy) -> Result<(), FlowError> {
        use XmitHashPolicy::{Encap23, Encap34, Layer23, Layer34};
        let ethertype = self.ethertype()?.unwrap_or(0);
        let protocol = self.ip_protocol().filter(|_| is_ip(ethertype));
        match (policy, protocol) {
            (Layer23 | Layer34, Some(protocol @ (ICMP | ICMP6))) if is_icmp_error(protocol, self.icmp_kind()) => {
                Err(FlowError(format!(
                    "an ICMP error of type {} takes the port of the packet that it quotes: give the fields of that one",
                    self.icmp_kind()
                )))
            }
            (Encap23 | Encap34, Some(protocol)) if protocol_leads_on(protocol, self.is_ipv6()) => {
                Err(FlowError(format!(
                    "policy {policy} looks behind headers of IP protocol {protocol}: give the fields of the packet inside"
                )))
            }
            (Encap23 | Encap34, None) if ethertype_leads_on(ethertype) => Err(FlowError(format!(
                "policy {policy} looks behind headers of ethertype {ethertype:#06x}, which no field describes"
            ))),
            _ => Ok(()),
        }
    }

    fn missing_ethernet(&self) -> Result<Option<&'static str>, FlowError> {
        Ok(match (self.ethertype()?, self.dmac) {
            (None, _) => Some("src and dst, or ethertype"),
            (_, None) => Some("dmac, the MAC address of the next hop"),
            _ => None,
        })
    }

    fn missing_ip(&self, explanation: &Explanation) -> Option<&'static str> {
        match (self.src, self.dst) {
            _ if explanation.addresses.is_none() => None,
            (None, _) => Some("src"),
            (_, None) => Some("dst"),
            _ => None,
        }
    }

    fn missing_layer4(&self, explanation: &Explanation) -> Option<&'static str> {
        match explanation.layer4 {
            _ if explanation.addresses.is_none() => None,
            Layer4::Nothing if self.ip_protocol().is_none() => Some("proto"),
            Layer4::Ports { .. } if self.sport.is_none() => Some("sport"),
            Layer4::Ports { .. } if self.dport.is_none() => Some("dport"),
            Layer4::Spi { .. } if self.spi.is_none() => Some("spi"),
            Layer4::Icmp { .. } if self.id.is_none() => Some("id"),
            _ => None,
        }
    }
}

fn is_ip(ethertype: u16) -> bool {
    matches!(ethertype, IPV4 | IPV6)
}

/// Decimal, or hexadecimal with `0x`.
fn number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.ok()?.try_into().ok()
}

fn ethertype(text: &str) -> Option<u16> {
    match text {
        "ip" | "ipv4" => Some(IPV4),
        "ipv6" => Some(IPV6),
        "arp" => Some(ARP),
        // Smaller numbers are lengths of 802.3 frames; a tag travels outside the bytes.
        _ => number(text).filter(|&ethertype| ethertype >= 0x0600 && !matches!(ethertype, VLAN | SERVICE_VLAN)),
    }
}

fn protocol(text: &str) -> Option<Protocol> {
    Some(Protocol::Number(match text {
        "icmp" => return Some(Protocol::Icmp),
        "icmp6" | "icmpv6" | "ipv6-icmp" => ICMP6,
        "tcp" => TCP,
        "udp" => UDP,
        "dccp" => DCCP,
        "sctp" => SCTP,
        "udplite" => UDP_LITE,
        "esp" => ESP,
        "ah" => AH,
        _ => number(text)?,
    }))
}

fn icmp_type(text: &str) -> Option<IcmpType> {
    Some(match text {
        "echo" | "echo-request" => ECHO,
        "echo-reply" => IcmpType::Named { v4: 0, v6: 129 },
        "timestamp" => IcmpType::Number(13),
        "timestamp-reply" => IcmpType::Number(14),
        _ => IcmpType::Number(number(text)?),
    })
}

const ECHO: IcmpType = IcmpType::Named { v4: 8, v6: 128 };

/// Bytes of an IPv4 header without options.
const IPV4_LENGTH: u16 = 20;

#[cfg(test)]
mod tests {
    use XmitHashPolicy::*;

    use super::super::hash;
    use super::*;

    const BOND: MacAddr = MacAddr([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);

    fn spec(words: &str) -> Result<FlowSpec, FlowError> {
        let words: Vec<&str> = words.split(' ').collect();
        FlowSpec::parse(words.chunks(2).map(|pair| (pair[0], pair[1])))
    }

    fn value(policy: XmitHashPolicy, words: &str) -> Result<u32, String> {
        let explained = spec(words).and_then(|spec| spec.explain(policy, BOND));
        explained
            .map(|explained| explained.hash)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn flows_in_words_hash_like_the_vectors_they_describe() {
        let tcp = "src 192.168.1.10 dst 192.168.1.20 proto tcp sport 40000 dport 80 dmac 02:00:5e:10:00:07";
        for (policy, words, wanted) in [
            (Layer2, tcp, 0x0000_08e8),
            (Layer23, tcp, 0x1e1e_16fe),
            (Layer34, tcp, 0x2727_0749),
            (Encap34, tcp, 0x2727_0749),
            (VlanSrcmac, tcp, 0x00f9_99ef),
            (VlanSrcmac, "vlan 100 pcp 5", 0x00f9_398b),
            (Layer2, "ethertype 0x88cc dmac 01:80:c2:00:00:0e", 0x0000_882d),
            (Layer2, "ethertype arp dmac ff:ff:ff:ff:ff:ff", 0x0000_0816),
            (Encap23, "ethertype arp dmac ff:ff:ff:ff:ff:ff", 0x0000_081e),
            (Encap34, "ethertype arp", 0),
            (
                Layer34,
                "src 172.16.5.4 dst 172.16.9.200 type echo id 0x1234",
                0x6f73_7377,
            ),
            (
                Layer34,
                "src 2001:db8:1::10 dst 2001:db8:2:3::beef proto icmp id 0xabcd",
                0x2b92_13d3,
            ),
            (
                Layer34,
                "src 198.51.100.1 dst 203.0.113.9 proto esp spi 0xdeadbeef",
                0x73a6_6900,
            ),
            (
                Layer34,
                "src 198.51.100.1 dst 203.0.113.9 proto ah spi 0x01020304",
                0x060d_1593,
            ),
        ] {
            assert_eq!(value(policy, words), Ok(wanted), "{policy} {words}");
        }
    }

    #[test]
    fn the_frame_is_what_is_hashed() {
        let spec = spec("src 10.0.0.1 dst 10.0.0.2 proto udp sport 1 dport 2 dmac 02:00:00:00:00:09 vlan 7").unwrap();
        let frame = spec.frame(BOND).unwrap();
        for &(policy, ..) in XmitHashPolicy::VALUES {
            let explained = spec.explain(policy, BOND).unwrap();
            assert_eq!(explained.hash, hash(policy, &frame, spec.tci()), "{policy}");
        }
    }

    #[test]
    fn a_field_that_the_policy_needs_is_asked_for() {
        for (policy, words, field) in [
            (Layer2, "src 10.0.0.1", "add dmac"),
            (Layer2, "dmac 02:00:00:00:00:09", "add src and dst, or ethertype"),
            (Layer23, "src 10.0.0.1 dmac 02:00:00:00:00:09", "add dst"),
            (Layer34, "ethertype arp", "add dmac"),
            (Layer34, "ethertype ipv4", "add src"),
            (Layer34, "src 10.0.0.1 dst 10.0.0.2", "add proto"),
            (Layer34, "src 10.0.0.1 dst 10.0.0.2 proto udp dport 53", "add sport"),
            (Layer34, "src ::1 dst ::2 sport 53", "add dport"),
            (Encap34, "src ::1 dst ::2 proto icmp", "add id"),
            (Encap34, "src ::1 dst ::2 proto ah", "add spi"),
        ] {
            let error = value(policy, words).unwrap_err();
            assert!(
                error.ends_with(field) || error.contains(&format!("{field}, ")),
                "{policy} {words}: {error}"
            );
        }
        assert!(
            value(Layer34, "src 10.0.0.1 dst 10.0.0.2 proto 89").is_ok(),
            "a protocol without ports"
        );
    }

    #[test]
    fn words_that_make_no_sense_are_named() {
        for (words, part) in [
            (
                "colour red",
                "'colour' is not a field of a frame, expected one of smac, dmac,",
            ),
            (
                "src 10.0.0",
                "'10.0.0' is not a value of field 'src', expected source IP address",
            ),
            ("vlan 4095", "expected VLAN id, 0 to 4094"),
            ("sport 65536", "'65536' is not a value of field 'sport'"),
            ("ethertype 60", "'60' is not a value of field 'ethertype'"),
            ("ethertype 0x8100", "a tag is field vlan"),
            ("dst ::1 dst ::2", "field 'dst' is given twice"),
            ("src 10.0.0.1 dst ::1", "of different families"),
            (
                "src ::1 ethertype ipv4",
                "ethertype 0x0800 does not go with these addresses",
            ),
            ("ethertype arp sport 1", "ethertype 0x0806 carries no IP protocol"),
            ("src ::1 dst ::2 proto icmp sport 1", "IP protocol 58 has no sport"),
            ("src 10.0.0.1 dst 10.0.0.2 proto tcp id 1", "IP protocol 6 has no id"),
            (
                "src 10.0.0.1 dst 10.0.0.2 type 3",
                "takes the port of the packet that it quotes",
            ),
        ] {
            let error = value(Layer34, words).unwrap_err();
            assert!(error.contains(part), "{words}: {error}");
        }
        let error = value(Encap34, "src 10.0.0.1 dst 10.0.0.2 proto 47").unwrap_err();
        assert!(error.contains("looks behind headers of IP protocol 47"), "{error}");
        let error = value(Encap34, "ethertype 0x8864").unwrap_err();
        assert!(error.contains("looks behind headers of ethertype 0x8864"), "{error}");
    }
}

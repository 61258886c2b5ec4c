//! The two parsers behind the hash policies: addresses and layer-4 facts out of the bytes of a frame.
//!
//! [`shallow`] is the bonding driver's own; [`deep`] is the kernel's generic flow dissector with the keys that bonding asks
//! for. Both answer none where the driver falls back to the Ethernet hash. Only `shallow` opens ICMP errors; only `deep`
//! skips IPv6 extension headers and opens tunnels, though not those over UDP. A header counts only if all of it is in the
//! frame.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::layers::{
    AH, ARP, Addresses, BATMAN, CFM, DCCP, DESTINATION, ESP, ETHERNET_HEADER, FCOE, FRAGMENT, GRE, HOP_BY_HOP, HSR,
    ICMP, ICMP_HEADER, ICMP6, IP_IN_IP, IPV4, IPV4_HEADER, IPV6, IPV6_HEADER, IPV6_IN_IP, Layer4, MPLS, MPLS_IN_IP,
    MPLS_MULTICAST, PPPOE_SESSION, PRP, PTP, RARP, ROUTING, SCTP, SERVICE_VLAN, TCP, UDP, UDP_LITE, VLAN, VLAN_HEADER,
    be16, part,
};

/// Result of a parser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flow {
    /// Addresses of the header that counts.
    pub(super) addresses: Option<Addresses>,
    /// Ports, SPI or ICMP id.
    pub(super) layer4: Layer4,
}

/// layer2+3 and layer3+4: IP directly at `at`, or the IP that an ICMP error there quotes. [bond_main.c: bond_flow_dissect]
pub(super) fn shallow(frame: &[u8], ethertype: u16, at: usize) -> Option<Flow> {
    let outer = ip(frame, ethertype, at)?;
    let protocol = outer.protocol.filter(|_| !outer.fragment);
    let Some(protocol @ (ICMP | ICMP6)) = protocol else {
        return Some(Flow {
            addresses: Some(outer.addresses),
            layer4: protocol.map_or(Layer4::Nothing, |p| ports(frame, outer.payload, p)),
        });
    };
    if !icmp_type(frame, outer.payload).is_some_and(|kind| is_icmp_error(protocol, kind)) {
        return Some(Flow {
            addresses: Some(outer.addresses),
            layer4: icmp(frame, outer.payload),
        });
    }
    // The quoted packet stands for the error, so that both take the same port.
    let quoted = ip(frame, ethertype, outer.payload + ICMP_HEADER)?;
    Some(Flow {
        addresses: Some(quoted.addresses),
        layer4: match quoted.protocol {
            Some(protocol) if !quoted.fragment => ports(frame, quoted.payload, protocol),
            _ => Layer4::Nothing,
        },
    })
}

/// encap2+3 and encap3+4: through tunnels and extension headers to the innermost IP header.
/// [flow_dissector.c: __skb_flow_dissect]
pub(super) fn deep(frame: &[u8], ethertype: u16, at: usize) -> Option<Flow> {
    let mut walk = Walk {
        frame,
        at,
        steps: 0,
        flow: Flow::default(),
    };
    let mut ethertype = ethertype;
    loop {
        match walk.network(ethertype)? {
            Next::Network(inner) if walk.may_go_on() => ethertype = inner,
            Next::Network(_) | Next::Done => return Some(walk.flow),
        }
    }
}

/// The next step of the generic dissector after a header.
enum Next {
    /// To a header of this EtherType.
    Network(u16),
    /// The end: the result so far counts.
    Done,
}

struct Walk<'a> {
    frame: &'a [u8],
    at: usize,
    /// Headers gone through.
    steps: u32,
    flow: Flow,
}

impl Walk<'_> {
    /// Counts a header; false when they are too many. [flow_dissector.c: skb_flow_dissect_allowed]
    fn may_go_on(&mut self) -> bool {
        self.steps += 1;
        self.steps <= MAX_HEADERS
    }

    /// One header of layer 2.5 or 3, with all of its IP protocols; `None` if it is bad, short or unknown.
    fn network(&mut self, ethertype: u16) -> Option<Next> {
        match ethertype {
            IPV4 | IPV6 => self.ip(ethertype),
            VLAN | SERVICE_VLAN => {
                let [_, _, high, low] = part(self.frame, self.at)?;
                self.at += VLAN_HEADER;
                Some(Next::Network(u16::from_be_bytes([high, low])))
            }
            PPPOE_SESSION => self.pppoe(),
            HSR | PRP => {
                let inner = be16(self.frame, self.at + 4)?;
                self.at += 6;
                Some(Next::Network(inner))
            }
            BATMAN => self.batman(),
            // Known, but without a key that bonding asks for.
            ARP | RARP | MPLS | MPLS_MULTICAST | CFM => Some(Next::Done),
            FCOE => self.frame.get(self.at..)?.get(..38).map(|_| Next::Done),
            PTP => self.frame.get(self.at..)?.get(..34).map(|_| Next::Done),
            _ => None,
        }
    }

    fn ip(&mut self, ethertype: u16) -> Option<Next> {
        let header = ip(self.frame, ethertype, self.at)?;
        if header.payload < self.at + IPV4_HEADER {
            return None;
        }
        self.flow.addresses = Some(header.addresses);
        self.at = header.payload;
        match header.protocol {
            Some(protocol) if !header.fragment => self.protocols(protocol, ethertype == IPV6),
            _ => Some(Next::Done),
        }
    }

    /// IPv6 extension headers, then the protocol behind them.
    fn protocols(&mut self, first: u8, in_ipv6: bool) -> Option<Next> {
        let mut protocol = first;
        while in_ipv6 && matches!(protocol, HOP_BY_HOP | ROUTING | DESTINATION) {
            let [next, units] = part(self.frame, self.at)?;
            self.at += (usize::from(units) + 1) * 8;
            protocol = next;
            // Ports are taken from behind this header also after too many headers.
            self.flow.layer4 = ports(self.frame, self.at, protocol);
            if !self.may_go_on() {
                return Some(Next::Done);
            }
        }
        self.flow.layer4 = ports(self.frame, self.at, protocol);
        match protocol {
            // Any fragment, the first one too: no ports.
            FRAGMENT if in_ipv6 => part::<8>(self.frame, self.at).map(|_| Next::Done),
            GRE => self.gre(),
            IP_IN_IP => Some(Next::Network(IPV4)),
            IPV6_IN_IP => Some(Next::Network(IPV6)),
            MPLS_IN_IP => Some(Next::Network(MPLS)),
            ICMP | ICMP6 => {
                self.flow.layer4 = icmp(self.frame, self.at);
                Some(Next::Done)
            }
            _ => Some(Next::Done),
        }
    }

    /// [flow_dissector.c: __skb_flow_dissect_gre]
    fn gre(&mut self) -> Option<Next> {
        let flags = be16(self.frame, self.at)?;
        let mut inner = be16(self.frame, self.at + 2)?;
        let is_pptp = match flags & GRE_VERSION {
            _ if flags & GRE_ROUTING != 0 => return Some(Next::Done),
            0 => false,
            1 if inner == GRE_PPP && flags & GRE_KEY != 0 => true,
            _ => return Some(Next::Done),
        };
        let mut end = self.at + 4;
        if flags & GRE_CHECKSUM != 0 {
            end += 4;
        }
        if flags & GRE_KEY != 0 {
            part::<4>(self.frame, end)?;
            end += 4;
        }
        if flags & GRE_SEQUENCE != 0 {
            end += 4;
        }
        if is_pptp {
            if flags & GRE_ACK != 0 {
                end += 4;
            }
            let [_, _, high, low] = part(self.frame, end)?;
            inner = match u16::from_be_bytes([high, low]) {
                PPP_IP => IPV4,
                PPP_IPV6 => IPV6,
                _ => inner,
            };
            end += 4;
        } else if inner == GRE_ETHERNET {
            inner = be16(self.frame, end + 12)?;
            end += ETHERNET_HEADER;
        }
        self.at = end;
        Some(Next::Network(inner))
    }

    fn pppoe(&mut self) -> Option<Next> {
        let [kind, code, _, _, _, _, high, low] = part(self.frame, self.at)?;
        if (kind, code) != (0x11, 0) {
            return None;
        }
        let mut protocol = u16::from_be_bytes([high, low]);
        self.at += 8;
        // The protocol may be compressed to its low byte.
        if protocol & 0x0100 != 0 {
            protocol >>= 8;
            self.at -= 1;
        }
        match protocol {
            PPP_IP => Some(Next::Network(IPV4)),
            PPP_IPV6 => Some(Next::Network(IPV6)),
            PPP_MPLS => Some(Next::Network(MPLS)),
            PPP_MPLS_MULTICAST => Some(Next::Network(MPLS_MULTICAST)),
            other => (other & 0x0101 == 1).then_some(Next::Done),
        }
    }

    /// A unicast packet of version 15 with an Ethernet frame in it. [flow_dissector.c: __skb_flow_dissect_batadv]
    fn batman(&mut self) -> Option<Next> {
        let [kind, version] = part(self.frame, self.at)?;
        if (kind, version) != (0x40, 15) {
            return None;
        }
        let inner = be16(self.frame, self.at + 10 + 12)?;
        self.at += 10 + ETHERNET_HEADER;
        Some(Next::Network(inner))
    }
}

/// An IP header as both parsers read it.
struct Ip {
    addresses: Addresses,
    /// Protocol or next header.
    protocol: Option<u8>,
    fragment: bool,
    payload: usize,
}

/// The header at `at`, if the EtherType is one of IP; its version field is not looked at. [bond_main.c: bond_flow_ip]
fn ip(frame: &[u8], ethertype: u16, at: usize) -> Option<Ip> {
    match ethertype {
        IPV4 => {
            let header: [u8; IPV4_HEADER] = part(frame, at)?;
            let fragment = be16(&header, 6)? & FRAGMENT_BITS != 0;
            Some(Ip {
                addresses: Addresses {
                    source: IpAddr::V4(Ipv4Addr::from(part::<4>(&header, 12)?)),
                    destination: IpAddr::V4(Ipv4Addr::from(part::<4>(&header, 16)?)),
                },
                protocol: Some(header[9]),
                fragment,
                payload: at + usize::from(header[0] & 15) * 4,
            })
        }
        IPV6 => {
            let header: [u8; IPV6_HEADER] = part(frame, at)?;
            Some(Ip {
                addresses: Addresses {
                    source: IpAddr::V6(Ipv6Addr::from(part::<16>(&header, 8)?)),
                    destination: IpAddr::V6(Ipv6Addr::from(part::<16>(&header, 24)?)),
                },
                protocol: Some(header[6]),
                fragment: false,
                payload: at + IPV6_HEADER,
            })
        }
        _ => None,
    }
}

/// Ports or SPI of the protocols that have them where a hash looks. [ip.h: proto_ports_offset]
fn ports(frame: &[u8], at: usize, protocol: u8) -> Layer4 {
    let found = match protocol {
        TCP | UDP | DCCP | SCTP | UDP_LITE => part(frame, at).map(|[a, b, c, d]| Layer4::Ports {
            protocol,
            source: u16::from_be_bytes([a, b]),
            destination: u16::from_be_bytes([c, d]),
        }),
        ESP => part(frame, at).map(|spi| Layer4::Spi {
            protocol,
            spi: u32::from_be_bytes(spi),
        }),
        AH => part(frame, at + 4).map(|spi| Layer4::Spi {
            protocol,
            spi: u32::from_be_bytes(spi),
        }),
        _ => None,
    };
    found.unwrap_or_default()
}

/// Whether an ICMP message quotes the packet that it is about; everything but [`ICMP`] is of version 6.
/// [icmp.h: icmp_is_err, icmpv6.h: icmpv6_is_err]
pub(super) fn is_icmp_error(protocol: u8, kind: u8) -> bool {
    match protocol {
        ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
        _ => matches!(kind, 1..=4),
    }
}

/// Whether [`deep`] looks behind a header of this EtherType that is not IP.
pub(super) fn ethertype_leads_on(ethertype: u16) -> bool {
    matches!(ethertype, VLAN | SERVICE_VLAN | PPPOE_SESSION | HSR | PRP | BATMAN)
}

/// Whether [`deep`] looks behind a header of this IP protocol.
pub(super) fn protocol_leads_on(protocol: u8, in_ipv6: bool) -> bool {
    match protocol {
        GRE | IP_IN_IP | IPV6_IN_IP => true,
        HOP_BY_HOP | ROUTING | DESTINATION => in_ipv6,
        _ => false,
    }
}

/// The type of an ICMP message whose whole header is there.
fn icmp_type(frame: &[u8], at: usize) -> Option<u8> {
    part::<ICMP_HEADER>(frame, at).map(|header| header[0])
}

/// The id of an ICMP query, 1 if it is 0; `None` for other messages. [flow_dissector.c: skb_flow_get_icmp_tci]
fn icmp(frame: &[u8], at: usize) -> Layer4 {
    match part::<ICMP_HEADER>(frame, at) {
        Some([kind @ (0 | 8 | 13 | 14 | 128 | 129), code, _, _, high, low, ..]) => Layer4::Icmp {
            kind,
            code,
            id: u16::from_be_bytes([high, low]).max(1),
        },
        _ => Layer4::Nothing,
    }
}

/// Most headers that the generic dissector goes through. [flow_dissector.c: MAX_FLOW_DISSECT_HDRS]
const MAX_HEADERS: u32 = 15;

/// "More fragments" and the offset; "don't fragment" is not among them.
const FRAGMENT_BITS: u16 = 0x3fff;

const GRE_CHECKSUM: u16 = 0x8000;
const GRE_ROUTING: u16 = 0x4000;
const GRE_KEY: u16 = 0x2000;
const GRE_SEQUENCE: u16 = 0x1000;
const GRE_ACK: u16 = 0x0080;
const GRE_VERSION: u16 = 0x0007;
const GRE_PPP: u16 = 0x880b;
const GRE_ETHERNET: u16 = 0x6558;

const PPP_IP: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;
const PPP_MPLS: u16 = 0x0281;
const PPP_MPLS_MULTICAST: u16 = 0x0283;

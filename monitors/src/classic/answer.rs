//! Probes and their answers.

use std::net::{IpAddr, Ipv4Addr};

use crate::wire::MacAddr;
use crate::wire::arp::{Arp, Operation, Request};
use crate::wire::ethernet::Tag;
use crate::wire::nd::{Discovery, Solicitation};

/// The common parts of ARP and neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// The frame's sender.
    pub source: MacAddr,
    /// The frame's destination.
    pub destination: MacAddr,
    /// Sender's address in the message.
    pub from: IpAddr,
    /// Address of the question or answer.
    pub to: IpAddr,
    /// Whether it may be an answer rather than a question.
    pub reply: bool,
}

impl ProbeAnswer {
    /// Parses a frame with or without tags; `None` for any other frame.
    pub fn parse(frame: &[u8]) -> Option<ProbeAnswer> {
        if let Some(arp) = Arp::parse(frame) {
            return Some(ProbeAnswer {
                source: arp.source,
                destination: arp.destination,
                from: arp.sender_ip.into(),
                to: arp.target_ip.into(),
                reply: arp.operation == Operation::Reply,
            });
        }
        let nd = Discovery::parse(frame)?;
        Some(ProbeAnswer {
            source: nd.source,
            destination: nd.destination,
            from: nd.source_ip.into(),
            to: nd.destination_ip.into(),
            reply: true,
        })
    }
}

/// The question to a target, from the port's address `mac` and from `source`, or from 0.0.0.0 or :: without one.
/// [bond_main.c: bond_arp_send, bond_ns_send]
pub fn probe(mac: MacAddr, source: Option<IpAddr>, target: IpAddr, tags: &[Tag]) -> Vec<u8> {
    match target {
        IpAddr::V4(target) => {
            let source = match source {
                Some(IpAddr::V4(ip)) => ip,
                _ => Ipv4Addr::UNSPECIFIED,
            };
            Request::probe(mac, source, target).frame(tags)
        }
        IpAddr::V6(target) => {
            let source = match source {
                Some(IpAddr::V6(ip)) => Some(ip),
                _ => None,
            };
            Solicitation { source, mac, target }.frame(tags)
        }
    }
}

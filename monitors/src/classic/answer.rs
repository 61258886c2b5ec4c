//! Probes, and what may answer them.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::wire::MacAddr;
use crate::wire::arp::{Arp, Operation, Request};
use crate::wire::ethernet::Tag;
use crate::wire::nd::{Discovery, Solicitation};

/// What shows that the path to a target works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerKind {
    /// The target answered through this port.
    Reply,
    /// The network brought the active port's question, which the target answers, to this backup port.
    Request,
}

/// What ARP and neighbour discovery have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// Who sent the frame.
    pub source: MacAddr,
    /// For whom it is.
    pub destination: MacAddr,
    /// Sender's address in the message.
    pub from: IpAddr,
    /// Address that is asked for or answered.
    pub to: IpAddr,
    /// It may answer a question; a question is none.
    pub reply: bool,
}

impl ProbeAnswer {
    /// From a frame, tags or not; none for any other frame.
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

/// The frame that asks a target: from the port's address `mac`, and from `source`, or 0.0.0.0 or :: without one.
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

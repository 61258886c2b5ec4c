//! The complete wanted state of a bond in the kernel, comparable with `==`.

use std::collections::BTreeMap;
use std::mem;
use std::net::Ipv4Addr;
use std::time::Duration;

use bond_monitors::{Carrier, MacAddr};

use crate::hash::XmitHashPolicy;
use crate::ids::PortId;

/// All settings that a data plane must make. Programming the same plan twice has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardingPlan {
    /// Carrier that the bond's own interface shows.
    pub carrier: Carrier,
    /// Address of the bond's own interface.
    pub mac: MacAddr,
    /// Settings of every attached port.
    pub ports: BTreeMap<PortId, PortPlan>,
    /// Where frames of the stack leave.
    pub tx: Tx,
    /// Frames that leave elsewhere, independent of `tx`; the first match counts.
    pub steer: Vec<Steer>,
    /// Changes in frames of the stack.
    pub rewrite: Rewrite,
    /// Forwarding while the agent is away; `None` if it stays the same.
    pub without_agent: Option<Fallback>,
    /// What a plane does by itself, at once, when one of these ports loses its carrier. The first loss of a carrier at any attached
    /// port, also at one that is not here, ends all of it: what follows from two losses is for the next plan to say.
    pub if_lost: BTreeMap<PortId, Failover>,
}

/// What moves when a port loses its carrier: what the next plan would say of the traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// Where frames of the stack leave then; not nowhere.
    pub tx: Tx,
    /// The ports from which other frames are accepted then.
    pub accept: BTreeMap<PortId, Accept>,
}

/// Settings of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// Address the port uses.
    pub mac: MacAddr,
    /// The bond's MTU in bytes.
    pub mtu: u32,
    /// As of the bond's own interface: a bridge above needs frames for other addresses.
    pub promisc: bool,
    /// As of the bond's own interface.
    pub allmulti: bool,
    /// Frames that are accepted from it.
    pub accept: Accept,
    /// The source address of frames that leave through it.
    pub source: Source,
}

/// Frames that are accepted from a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// No frame.
    Nothing,
    /// Unicast frames only, for a port that is being taken into use or was active until now: the far end may switch a moment
    /// earlier or later, and a flooded copy of a group frame must not be accepted twice.
    Unicast,
    /// Every frame.
    All,
}

/// The source address of frames that leave through a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// As the stack sent them.
    #[default]
    AsSent,
    /// The port's own in place of the bond's, so that the switch learns the bond's address at one port only. [bonding.rst:
    /// balance-tlb]
    Own,
}

/// Ports through which frames of the stack leave; frames are dropped if there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tx {
    /// How frames are spread; stays when no port is left.
    pub kind: Spread,
    /// Ports that send, in the order of attaching.
    pub ports: Vec<PortId>,
}

/// How frames are spread over the ports that send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Through the first one, which is the only one.
    One,
    /// Through one after the other. [bond_main.c: bond_xmit_roundrobin_slave_get]
    RoundRobin {
        /// How many frames in a row leave through one port; 0 for a random port each time.
        packets_per_port: u32,
        /// Where IPv4 IGMP leaves, so that a switch sees all memberships at one port: one of those that send, if there are any.
        igmp: Option<PortId>,
    },
    /// A copy through each. [bond_main.c: bond_xmit_broadcast]
    All,
    /// Through the port that the hash of the frame names: `ports[hash % ports.len()]`.
    /// [bond_main.c: bond_xmit_3ad_xor_slave_get]
    Hash(XmitHashPolicy),
    /// Through the port of the frame's bucket. [bond_alb.c: bond_xmit_tlb_slave_get]
    Buckets {
        /// Key of the bucket.
        key: BucketKey,
        /// The port of each bucket; not empty while there are ports, and none but those.
        table: Vec<PortId>,
    },
}

/// Key of a frame's bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketKey {
    /// The transmit hash.
    Flow,
    /// The destination address.
    Destination,
}

/// Frames of the stack that leave through a port of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steer {
    /// Which frames.
    pub what: Match,
    /// Where they leave.
    pub to: PortId,
}

/// A property of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It was given to this transmit queue of the bond. [bonding.rst: queue_id]
    Queue(u16),
    /// It was sent by this address.
    From(MacAddr),
}

/// Changes in frames of the stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// ARP to these hosts names the address of this port for the bond's. [bond_alb.c: rlb_arp_xmit]
    pub arp_sender: BTreeMap<Ipv4Addr, PortId>,
}

/// Forwarding of a plane after the agent has not reported for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// How long that is.
    pub after: Duration,
    /// Ports between which every frame is then passed on.
    pub pairs: Vec<(PortId, PortId)>,
}

impl Tx {
    /// Spread so over these ports.
    pub fn new(kind: Spread, ports: Vec<PortId>) -> Tx {
        Tx { kind, ports }
    }

    /// Through one port, or nowhere.
    pub fn one(port: Option<PortId>) -> Tx {
        Tx::new(Spread::One, port.into_iter().collect())
    }

    /// If nothing is sent, takes the settings of `kind`, because no plane can report them. A spread of another kind stays as it is.
    pub fn with_settings_of(self, kind: Spread) -> Tx {
        if self.is_nowhere() && mem::discriminant(&self.kind) == mem::discriminant(&kind) {
            return Tx { kind, ..self };
        }
        self
    }

    /// Nothing is sent.
    pub fn is_nowhere(&self) -> bool {
        self.ports.is_empty()
    }

    /// Every frame leaves in the same way under both: they are equal, or neither sends anything, whatever their kinds.
    pub fn sends_as(&self, other: &Tx) -> bool {
        self == other || (self.is_nowhere() && other.is_nowhere())
    }

    /// Every port that is named, some of them several times: those that send, and those of the kind's own settings.
    pub fn named(&self) -> impl Iterator<Item = PortId> {
        let (igmp, table): (Option<PortId>, &[PortId]) = match &self.kind {
            Spread::RoundRobin { igmp, .. } => (*igmp, &[]),
            Spread::Buckets { table, .. } => (None, table),
            Spread::One | Spread::All | Spread::Hash(_) => (None, &[]),
        };
        self.ports.iter().copied().chain(igmp).chain(table.iter().copied())
    }

    /// The same among the ports that `keep` holds for. IGMP falls to the first of them, and so does what was in the bucket of
    /// another port. [bond_main.c: bond_xmit_roundrobin_slave_get]
    pub fn among(&self, keep: impl Fn(PortId) -> bool) -> Tx {
        let ports: Vec<PortId> = self.ports.iter().copied().filter(|port| keep(*port)).collect();
        let first = ports.first().copied();
        let or_first = |port: &PortId| if keep(*port) { Some(*port) } else { first };
        let kind = match &self.kind {
            Spread::RoundRobin { packets_per_port, igmp } => Spread::RoundRobin {
                packets_per_port: *packets_per_port,
                igmp: igmp.as_ref().and_then(or_first),
            },
            Spread::Buckets { key, table } => Spread::Buckets {
                key: *key,
                table: table.iter().filter_map(or_first).collect(),
            },
            kind @ (Spread::One | Spread::All | Spread::Hash(_)) => kind.clone(),
        };
        Tx { kind, ports }
    }
}

impl Failover {
    /// Whether it sends through a port or changes what one lets in.
    pub fn names(&self, port: PortId) -> bool {
        self.accept.contains_key(&port) || self.tx.named().any(|named| named == port)
    }

    /// What is in force when it has been done after a plan. Nothing is prepared any more.
    pub fn after(&self, plan: &ForwardingPlan) -> ForwardingPlan {
        let mut plan = ForwardingPlan {
            tx: self.tx.clone(),
            if_lost: BTreeMap::new(),
            ..plan.clone()
        };
        for (port, accept) in &self.accept {
            if let Some(port) = plan.ports.get_mut(port) {
                port.accept = *accept;
            }
        }
        plan
    }
}

impl ForwardingPlan {
    /// Whether anything that is prepared has to do with a port.
    pub fn prepares(&self, port: PortId) -> bool {
        let named = |(lost, failover): (&PortId, &Failover)| *lost == port || failover.names(port);
        self.if_lost.iter().any(named)
    }

    /// What is in force after the plane has failed over because this port lost its carrier; `None` if it does not do that.
    pub fn failed_over(&self, lost: PortId) -> Option<ForwardingPlan> {
        Some(self.if_lost.get(&lost)?.after(self))
    }
}

impl Rewrite {
    /// Nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.arp_sender.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_does_not_send_any_more_leaves_nothing_behind() {
        let [a, b] = [PortId(1), PortId(2)];
        let turns = Tx {
            kind: Spread::RoundRobin {
                packets_per_port: 3,
                igmp: Some(a),
            },
            ports: vec![a, b],
        };
        let left = turns.among(|port| port == b);
        assert_eq!(left.ports, [b]);
        let igmp = Some(b);
        assert_eq!(
            left.kind,
            Spread::RoundRobin {
                packets_per_port: 3,
                igmp
            }
        );
        let table = Tx {
            kind: Spread::Buckets {
                key: BucketKey::Flow,
                table: vec![a, b, a],
            },
            ports: vec![a, b],
        };
        let kind = Spread::Buckets {
            key: BucketKey::Flow,
            table: vec![b; 3],
        };
        assert_eq!(table.among(|port| port == b), Tx { kind, ports: vec![b] });
        assert!(table.among(|_| false).is_nowhere());
    }

    #[test]
    fn without_ports_the_kind_makes_no_difference() {
        let nowhere = |kind| Tx::new(kind, Vec::new());
        assert!(nowhere(Spread::All).sends_as(&nowhere(Spread::One)));
        let [a, b] = [PortId(1), PortId(2)];
        let all = Tx::new(Spread::All, vec![a]);
        assert!(!all.sends_as(&Tx::one(Some(a))) && !all.sends_as(&nowhere(Spread::All)));
        let igmp = Spread::RoundRobin {
            packets_per_port: 1,
            igmp: Some(b),
        };
        assert_eq!(Tx::new(igmp, vec![a]).named().collect::<Vec<_>>(), [a, b]);
    }
}

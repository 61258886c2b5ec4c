//! A [`ForwardingPlan`] in the terms of the planes that there are. What none of them can do yet is refused here, in one place.

use std::collections::BTreeMap;

use bond_modes::plan::{self, Match, Source, Steer, Tx};
use bond_modes::{ForwardingPlan, PortId, XmitHashPolicy};
use bond_monitors::{Carrier, MacAddr};

use super::PlaneError;

/// A plan as far as the planes of this agent can bring it about. Programming the same twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Carrier that the bond's own interface shows.
    pub carrier: Carrier,
    /// Address of the bond's own interface.
    pub mac: MacAddr,
    /// Interface settings of every attached port.
    pub ports: BTreeMap<PortId, PortPlan>,
    /// How frames are spread, independent of which ports are usable.
    pub spread: Spread,
    /// Where frames of the stack leave.
    pub tx: TxPolicy,
    /// Transmit queues of the bond that are bound to a port: frames of such a queue leave there whatever `tx` says.
    /// [bonding.rst: queue_id]
    pub queues: BTreeMap<u16, PortId>,
    /// What is let in from which port; a port that is not named lets nothing in.
    pub rx: BTreeMap<PortId, Accept>,
}

/// Interface settings of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// Address the port uses.
    pub mac: MacAddr,
    /// The bond's MTU in bytes.
    pub mtu: u32,
    /// As the bond's own interface: a bridge above needs frames for other addresses.
    pub promisc: bool,
    /// As the bond's own interface.
    pub allmulti: bool,
}

/// How frames are spread over ports: the kind of every [`TxPolicy`] of a bond, as long as it has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// [`TxPolicy::One`]
    One,
    /// [`TxPolicy::RoundRobin`]
    RoundRobin,
    /// [`TxPolicy::Hash`]
    Hash,
    /// [`TxPolicy::All`]
    All,
}

/// Where frames of the stack leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxPolicy {
    /// Nowhere: no port is usable.
    Drop,
    /// Through this port.
    One(PortId),
    /// Through one after the other. [bond_main.c: bond_xmit_roundrobin_slave_get]
    RoundRobin {
        /// Usable ports, in the order of attaching; not empty.
        ports: Vec<PortId>,
        /// How many frames in a row leave through one port; 0 for a random port each time.
        packets_per_port: u32,
        /// Where IPv4 IGMP leaves, so that a switch sees all memberships at one port.
        igmp: PortId,
    },
    /// Through the port that the hash of the frame names: `ports[hash % ports.len()]`.
    /// [bond_main.c: bond_xmit_3ad_xor_slave_get]
    Hash {
        /// Usable ports, in the order of attaching; not empty.
        ports: Vec<PortId>,
        /// What is hashed.
        policy: XmitHashPolicy,
    },
    /// A copy through each of these ports, in the order of attaching; not empty. [bond_main.c: bond_xmit_broadcast]
    All(Vec<PortId>),
}

impl TxPolicy {
    /// Its kind; none where nothing is sent.
    pub fn spread(&self) -> Option<Spread> {
        match self {
            TxPolicy::Drop => None,
            TxPolicy::One(_) => Some(Spread::One),
            TxPolicy::RoundRobin { .. } => Some(Spread::RoundRobin),
            TxPolicy::Hash { .. } => Some(Spread::Hash),
            TxPolicy::All(_) => Some(Spread::All),
        }
    }

    /// The ports that it sends through.
    pub fn ports(&self) -> &[PortId] {
        match self {
            TxPolicy::Drop => &[],
            TxPolicy::One(port) => std::slice::from_ref(port),
            TxPolicy::RoundRobin { ports, .. } | TxPolicy::Hash { ports, .. } | TxPolicy::All(ports) => ports,
        }
    }

    /// The same among the ports that `keep` holds for; nowhere if none is left. IGMP falls to the first of them.
    /// [bond_main.c: bond_xmit_roundrobin_slave_get]
    pub fn among(&self, keep: impl Fn(PortId) -> bool) -> TxPolicy {
        let ports: Vec<PortId> = self.ports().iter().copied().filter(|port| keep(*port)).collect();
        let Some(&first) = ports.first() else {
            return TxPolicy::Drop;
        };
        match self {
            TxPolicy::Drop => TxPolicy::Drop,
            TxPolicy::One(port) => TxPolicy::One(*port),
            TxPolicy::RoundRobin {
                packets_per_port, igmp, ..
            } => TxPolicy::RoundRobin {
                packets_per_port: *packets_per_port,
                igmp: if keep(*igmp) { *igmp } else { first },
                ports,
            },
            TxPolicy::Hash { policy, .. } => TxPolicy::Hash { ports, policy: *policy },
            TxPolicy::All(_) => TxPolicy::All(ports),
        }
    }
}

/// What is let in from a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Every frame.
    All,
    /// Frames to one station only. For a port that is being taken into use or was just left: the far end may switch a moment
    /// earlier or later than we do, and a flooded copy of a group frame must not come in twice.
    Unicast,
}

impl Wanted {
    /// The plan in these terms.
    ///
    /// # Errors
    /// [`PlaneError::NotYet`] names the first part of the plan that no plane can do.
    pub fn of(plan: &ForwardingPlan) -> Result<Wanted, PlaneError> {
        if plan.ports.values().any(|port| port.source != Source::AsSent) {
            return Err(not_yet("a source address of its own for each port"));
        }
        if !plan.rewrite.is_empty() {
            return Err(not_yet("rewriting of ARP"));
        }
        if plan.without_agent.is_some() {
            return Err(not_yet("forwarding of another kind while the agent is away"));
        }
        let (spread, tx) = tx_of(&plan.tx)?;
        let queue = |steer: &Steer| match steer.what {
            Match::Queue(queue) => Ok((queue, steer.to)),
            Match::From(_) => Err(not_yet("steering by source address")),
        };
        let accept = |port: &plan::PortPlan| match port.accept {
            plan::Accept::Nothing => None,
            plan::Accept::Unicast => Some(Accept::Unicast),
            plan::Accept::All => Some(Accept::All),
        };
        let settings = |port: &plan::PortPlan| PortPlan {
            mac: port.mac,
            mtu: port.mtu,
            promisc: port.promisc,
            allmulti: port.allmulti,
        };
        Ok(Wanted {
            carrier: plan.carrier,
            mac: plan.mac,
            ports: plan.ports.iter().map(|(id, port)| (*id, settings(port))).collect(),
            spread,
            tx,
            queues: plan.steer.iter().map(queue).collect::<Result<_, _>>()?,
            rx: plan
                .ports
                .iter()
                .filter_map(|(id, port)| Some((*id, accept(port)?)))
                .collect(),
        })
    }

    /// What is in force, as a plan.
    pub fn into_plan(self) -> ForwardingPlan {
        let kind = match (&self.tx, self.spread) {
            (
                TxPolicy::RoundRobin {
                    packets_per_port, igmp, ..
                },
                _,
            ) => plan::Spread::RoundRobin {
                packets_per_port: *packets_per_port,
                igmp: Some(*igmp),
            },
            (TxPolicy::Hash { policy, .. }, _) => plan::Spread::Hash(*policy),
            // Settings of a list without ports are not in force anywhere.
            (_, Spread::RoundRobin) => plan::Spread::RoundRobin {
                packets_per_port: 1,
                igmp: None,
            },
            (_, Spread::Hash) => plan::Spread::Hash(XmitHashPolicy::Layer2),
            (_, Spread::All) => plan::Spread::All,
            (_, Spread::One) => plan::Spread::One,
        };
        let rx = self.rx;
        let accept = |id: &PortId| match rx.get(id) {
            None => plan::Accept::Nothing,
            Some(Accept::Unicast) => plan::Accept::Unicast,
            Some(Accept::All) => plan::Accept::All,
        };
        let port = |(id, port): (PortId, PortPlan)| {
            let wanted = plan::PortPlan {
                mac: port.mac,
                mtu: port.mtu,
                promisc: port.promisc,
                allmulti: port.allmulti,
                accept: accept(&id),
                source: Source::AsSent,
            };
            (id, wanted)
        };
        let steer = |(queue, to): (u16, PortId)| Steer {
            what: Match::Queue(queue),
            to,
        };
        ForwardingPlan {
            carrier: self.carrier,
            mac: self.mac,
            ports: self.ports.into_iter().map(port).collect(),
            tx: Tx {
                kind,
                ports: self.tx.ports().to_vec(),
            },
            steer: self.queues.into_iter().map(steer).collect(),
            rewrite: plan::Rewrite::default(),
            without_agent: None,
        }
    }
}

/// The kind for a new bond that sends so; none that no plane can do.
pub fn spread_of(kind: &plan::Spread) -> Result<Spread, PlaneError> {
    match kind {
        plan::Spread::One => Ok(Spread::One),
        plan::Spread::RoundRobin { .. } => Ok(Spread::RoundRobin),
        plan::Spread::Hash(_) => Ok(Spread::Hash),
        plan::Spread::All => Ok(Spread::All),
        plan::Spread::Buckets { .. } => Err(not_yet("sending by a table of buckets")),
    }
}

fn tx_of(tx: &Tx) -> Result<(Spread, TxPolicy), PlaneError> {
    let spread = spread_of(&tx.kind)?;
    let ports = tx.ports.clone();
    let policy = match (&tx.kind, tx.ports.first()) {
        (_, None) | (plan::Spread::Buckets { .. }, _) => TxPolicy::Drop,
        (plan::Spread::One, Some(port)) => TxPolicy::One(*port),
        (plan::Spread::RoundRobin { packets_per_port, igmp }, Some(first)) => TxPolicy::RoundRobin {
            ports,
            packets_per_port: *packets_per_port,
            igmp: igmp.unwrap_or(*first),
        },
        (plan::Spread::Hash(policy), _) => TxPolicy::Hash { ports, policy: *policy },
        (plan::Spread::All, _) => TxPolicy::All(ports),
    };
    Ok((spread, policy))
}

fn not_yet(what: &'static str) -> PlaneError {
    PlaneError::NotYet { what }
}

#[cfg(test)]
mod tests {
    use bond_modes::plan::{BucketKey, Fallback, Rewrite};

    use super::*;

    const A: PortId = PortId(1);

    fn plan() -> ForwardingPlan {
        let port = plan::PortPlan {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            promisc: false,
            allmulti: true,
            accept: plan::Accept::Unicast,
            source: Source::AsSent,
        };
        ForwardingPlan {
            carrier: Carrier::On,
            mac: port.mac,
            ports: [(A, port), (PortId(2), port)].into(),
            tx: Tx::one(Some(A)),
            steer: vec![Steer {
                what: Match::Queue(3),
                to: A,
            }],
            rewrite: Rewrite::default(),
            without_agent: None,
        }
    }

    #[test]
    fn a_plan_that_the_planes_can_do_comes_back_as_it_was() {
        let kinds = [
            plan::Spread::One,
            plan::Spread::All,
            plan::Spread::Hash(XmitHashPolicy::Layer34),
            plan::Spread::RoundRobin {
                packets_per_port: 7,
                igmp: Some(A),
            },
        ];
        for kind in kinds {
            let mut plan = plan();
            plan.tx.kind = kind;
            assert_eq!(Wanted::of(&plan).unwrap().into_plan(), plan);
        }
    }

    #[test]
    fn what_no_plane_can_do_is_refused_by_name() {
        let refused = |change: &dyn Fn(&mut ForwardingPlan)| {
            let mut plan = plan();
            change(&mut plan);
            let error = Wanted::of(&plan).unwrap_err();
            assert!(!error.may_pass(), "trying again cannot help");
            error.to_string()
        };
        let table = plan::Spread::Buckets {
            key: BucketKey::Flow,
            table: vec![A],
        };
        assert_eq!(
            refused(&|plan| plan.tx.kind = table.clone()),
            "no data plane of this agent can do sending by a table of buckets"
        );
        let own = refused(&|plan| plan.ports.get_mut(&A).unwrap().source = Source::Own);
        assert!(own.ends_with("a source address of its own for each port"), "{own}");
        let from = Match::From(MacAddr::default());
        let steer = refused(&|plan| plan.steer.push(Steer { what: from, to: A }));
        assert!(steer.ends_with("steering by source address"), "{steer}");
        let arp = refused(&|plan| plan.rewrite.arp_sender = [([10, 0, 0, 1].into(), A)].into());
        assert!(arp.ends_with("rewriting of ARP"), "{arp}");
        let fallback = Fallback {
            after: std::time::Duration::from_secs(1),
            pairs: vec![(A, PortId(2))],
        };
        let away = refused(&|plan| plan.without_agent = Some(fallback.clone()));
        assert!(away.ends_with("while the agent is away"), "{away}");
    }
}

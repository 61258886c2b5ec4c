//! What the kernel should do for a bond: the complete wish, comparable with `==`.

use std::collections::BTreeMap;

use bond_monitors::{Carrier, MacAddr};
use serde::{Deserialize, Serialize};

use crate::hash::XmitHashPolicy;
use crate::ids::PortId;

/// Everything a data plane must bring about. Programming the same plan twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardingPlan {
    /// Carrier that the bond's own interface shows.
    pub carrier: Carrier,
    /// Address of the bond's own interface.
    pub mac: MacAddr,
    /// Interface settings of every attached port.
    pub ports: BTreeMap<PortId, PortPlan>,
    /// How frames are spread, whoever is usable at the moment.
    pub spread: Spread,
    /// Where frames of the stack leave.
    pub tx: TxPolicy,
    /// Transmit queues of the bond that are bound to a port: frames of such a queue leave there whatever `tx` says.
    /// [bonding.rst: queue_id]
    #[serde(default)]
    pub queues: BTreeMap<u16, PortId>,
    /// What is let in from which port; a port that is not named lets nothing in.
    pub rx: BTreeMap<PortId, Accept>,
}

/// Interface settings of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accept {
    /// Every frame.
    All,
    /// Frames to one station only. For a port that is being taken into use or was just left: the far end may switch a moment
    /// earlier or later than we do, and a flooded copy of a group frame must not come in twice.
    Unicast,
}

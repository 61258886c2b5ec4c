//! The network beyond the cables: one switch, hosts that answer ARP and neighbour solicitations, and their faults.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use bond_modes::PortId;
use bond_monitors::wire::arp::{Arp, Operation};
use bond_monitors::wire::nd::{Discovery, Kind, UnsolicitedAdvertisement};
use bond_monitors::{MacAddr, ReceiveStamps, Time};

use super::rng::Rng;

/// The network behind all ports. A host answers through the port that asked; the switch floods questions to all others.
#[derive(Clone, Debug)]
pub struct Net {
    /// Hosts that answer.
    pub hosts: BTreeSet<IpAddr>,
    /// Ports behind which the switch drops every frame while the carrier stays.
    pub dead: BTreeSet<PortId>,
    /// Percentage of answers that are lost.
    pub loss: u64,
    /// From question to answer.
    pub latency: Duration,
    /// Chooses the answers that are lost.
    pub seed: u64,
    /// Somebody's frames arrive at every port this far apart, other than ARP and IPv6; zero: none do.
    pub chatter: Duration,
    /// Stamps of the data plane.
    pub heard: BTreeMap<PortId, ReceiveStamps>,
    under_way: BTreeMap<(Time, u64), Delivery>,
    /// Frames that wait in the ports' sockets for the agent to read them.
    received: VecDeque<Delivery>,
    count: u64,
}

/// A frame on its way to a port.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where it arrives.
    pub port: PortId,
    /// From the destination address on.
    pub frame: Vec<u8>,
    /// One of the bond's ports sent it.
    pub own: bool,
}

impl Net {
    /// A network without hosts, in which nothing is lost.
    pub fn new() -> Net {
        Net {
            hosts: BTreeSet::new(),
            dead: BTreeSet::new(),
            loss: 0,
            latency: Duration::from_micros(200),
            seed: 1,
            chatter: Duration::ZERO,
            heard: BTreeMap::new(),
            under_way: BTreeMap::new(),
            received: VecDeque::new(),
            count: 0,
        }
    }

    /// Whether the answer to what is asked at that moment is lost. By the moment alone, so that two rules on the same network see the
    /// same losses, however often each of them asks.
    pub fn loses(&self, at: Time) -> bool {
        Rng::new(self.seed ^ at.since(Time::ZERO).as_nanos() as u64).chance(self.loss)
    }

    /// A probe leaves through one of the ports that are connected.
    pub fn probe(&mut self, now: Time, from: PortId, connected: &[PortId], frame: &[u8]) {
        let works = |port: &PortId| connected.contains(port) && !self.dead.contains(port);
        if !works(&from) {
            return;
        }
        let others: Vec<PortId> = connected
            .iter()
            .copied()
            .filter(|port| *port != from && works(port))
            .collect();
        for port in others {
            self.send(now, port, frame.to_vec(), true);
        }
        if let Some(answer) = self.answer(frame)
            && !self.loses(now)
        {
            self.send(now, from, answer, false);
        }
    }

    fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        if let Some(arp) = Arp::parse(frame) {
            let there = self.hosts.contains(&arp.target_ip.into());
            let reply = Arp {
                destination: arp.source,
                source: HOST,
                operation: Operation::Reply,
                sender_mac: HOST,
                sender_ip: arp.target_ip,
                target_mac: arp.sender_mac,
                target_ip: arp.sender_ip,
            };
            return there.then(|| reply.frame(&[]));
        }
        let asked = Discovery::parse(frame).filter(|nd| nd.kind == Kind::Solicitation)?;
        let answer = UnsolicitedAdvertisement {
            target: asked.target,
            mac: HOST,
            router: false,
        };
        self.hosts.contains(&asked.target.into()).then(|| answer.frame(&[]))
    }

    /// A frame of somebody else arrives at a port, if its path works.
    pub fn send(&mut self, now: Time, port: PortId, frame: Vec<u8>, own: bool) {
        self.count += 1;
        let delivery = Delivery { port, frame, own };
        self.under_way.insert((now + self.latency, self.count), delivery);
    }

    /// When the agent has a frame to read.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.under_way.keys().next().map(|(at, _)| *at)
    }

    /// What arrives up to `now` is stamped by the data plane and waits to be read.
    pub fn pass(&mut self, now: Time, connected: &[PortId]) {
        while let Some(first) = self.under_way.first_entry().filter(|entry| entry.key().0 <= now) {
            let (at, _) = *first.key();
            let delivery = first.remove();
            let stamps = self.heard.entry(delivery.port).or_default();
            if delivery.own {
                stamps.own = Some(at);
            } else {
                stamps.any = stamps.any.max(Some(at));
                stamps.probes = Some(at);
            }
            self.received.push_back(delivery);
        }
        let Some(since) = now.as_nanos().checked_rem(self.chatter.as_nanos() as u64) else {
            return;
        };
        let last = Time::from_nanos(now.as_nanos() - since);
        for port in connected.iter().filter(|port| !self.dead.contains(port)) {
            let stamps = self.heard.entry(*port).or_default();
            stamps.any = stamps.any.max(Some(last));
        }
    }

    /// The next frame that waits to be read.
    pub fn read(&mut self) -> Option<Delivery> {
        self.received.pop_front()
    }
}

impl Default for Net {
    fn default() -> Self {
        Net::new()
    }
}

/// The address of every far host.
pub const HOST: MacAddr = MacAddr([2, 0xfa, 0, 0, 0, 1]);

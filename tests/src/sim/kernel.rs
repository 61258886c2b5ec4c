//! A model kernel, with configurable failures.

use std::collections::{BTreeMap, BTreeSet};

use bond_modes::plan::Rewrite;
use bond_modes::{Accept, AdoptedState, ForwardingPlan, PortFacts, PortId, Spread, Tx, XmitHashPolicy};
use bond_monitors::{Carrier, Duplex, LinkReport, MacAddr, Speed, Time};

/// A network interface that is or may become a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Interface index.
    pub id: PortId,
    /// What link messages tell.
    pub report: LinkReport,
    /// What its driver answers to a poll with `use_carrier=0`; follows the carrier unless a test sets it.
    pub driver: Carrier,
    /// Address before it was attached.
    pub permanent_mac: MacAddr,
    /// A port of the bond.
    pub attached: bool,
}

/// Results of the next plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanFailures {
    /// How many plans fail.
    pub left: u32,
    /// What a failing plan leaves undone.
    pub undone: Undone,
    /// Trying again can help.
    pub retry: bool,
}

/// What a failing plan leaves undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Undone {
    /// All of it.
    #[default]
    All,
    /// All but the settings of ports.
    AllButPorts,
    /// Something that the model does not have, such as a queue.
    Else,
}

/// A note of the data plane: a port lost its carrier while something was prepared for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Which port.
    pub port: PortId,
    /// When.
    pub at: Time,
    /// The data plane failed over.
    pub failed_over: bool,
}

/// A plan failed, wholly or in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Trying again can help.
    pub retry: bool,
    /// The address that the bond's interface has kept, as far as the plane knows, because the plan's could not be set.
    pub mac_left: Option<MacAddr>,
}

/// Interfaces and the plan in force.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The bond's own interface.
    pub device: LinkReport,
    /// All interfaces, by index.
    pub nics: BTreeMap<PortId, Nic>,
    /// What forwards.
    pub plan: ForwardingPlan,
    /// Results of the next plans.
    pub failures: PlanFailures,
    /// Who sent through the bond, from above it too.
    pub sent: BTreeSet<MacAddr>,
    /// The data plane fails over by itself.
    pub fails_over: bool,
    /// What the data plane noted of losses and the agent has not read yet.
    pub losses: Vec<Loss>,
    /// A port that waits or was left refuses frames that came from us, as the classifier does.
    pub refuses_own: bool,
    /// The newest plan that was asked for.
    wanted: Option<ForwardingPlan>,
    next_index: u32,
}

impl Kernel {
    /// A bond's interface with a random address and nothing else.
    pub fn new() -> Self {
        let device = report("bond0", MacAddr([0xaa, 0, 0, 0, 0, 0xff]));
        Kernel {
            plan: ForwardingPlan {
                carrier: Carrier::Off,
                mac: device.mac,
                ports: BTreeMap::new(),
                tx: Tx::one(None),
                steer: Vec::new(),
                rewrite: Rewrite::default(),
                without_agent: None,
                if_lost: Default::default(),
            },
            device,
            nics: BTreeMap::new(),
            failures: PlanFailures::default(),
            sent: BTreeSet::new(),
            fails_over: false,
            losses: Vec::new(),
            refuses_own: true,
            wanted: None,
            next_index: 1,
        }
    }

    /// A new interface without carrier.
    pub fn plug(&mut self, name: &str) -> PortId {
        let id = PortId(self.next_index);
        self.next_index += 1;
        let mac = MacAddr([2, 0, 0, 0, 0, id.0 as u8]);
        let nic = Nic {
            id,
            report: report(name, mac),
            driver: Carrier::Off,
            permanent_mac: mac,
            attached: false,
        };
        self.nics.insert(id, nic);
        id
    }

    /// The interface of that name.
    pub fn named(&self, name: &str) -> Option<&Nic> {
        self.nics.values().find(|nic| nic.report.name == name)
    }

    /// Takes an interface in, with the address that the bond asks for.
    pub fn attach(&mut self, id: PortId, mac: Option<MacAddr>) -> Option<PortFacts> {
        let nic = self.nics.get_mut(&id)?;
        let permanent_mac = nic.report.mac;
        nic.permanent_mac = permanent_mac;
        nic.attached = true;
        nic.report.admin_up = true;
        nic.report.mac = mac.unwrap_or(permanent_mac);
        let report = nic.report.clone();
        Some(PortFacts { permanent_mac, report })
    }

    /// Gives an interface back.
    pub fn detach(&mut self, id: PortId) {
        self.forget(id);
        if let Some(nic) = self.nics.get_mut(&id) {
            nic.attached = false;
            nic.report.mac = nic.permanent_mac;
        }
    }

    /// An interface disappears.
    pub fn unplug(&mut self, id: PortId) {
        self.forget(id);
        self.nics.remove(&id);
    }

    /// The carrier of an interface changes. Where the data plane fails over by itself, it does what is prepared for the first loss
    /// of a carrier at any port.
    pub fn set_carrier(&mut self, now: Time, id: PortId, carrier: Carrier) {
        let Some(nic) = self.nics.get_mut(&id) else { return };
        let lost = nic.report.carrier.is_on() && !carrier.is_on();
        nic.report.carrier = carrier;
        nic.driver = carrier;
        if !lost || !nic.attached || self.plan.if_lost.is_empty() {
            return;
        }
        let next = self.plan.failed_over(id);
        self.losses.push(Loss {
            port: id,
            at: now,
            failed_over: next.is_some(),
        });
        self.plan = next.unwrap_or_else(|| self.plan.clone());
        self.plan.if_lost.clear();
    }

    /// Programs a plan.
    pub fn program(&mut self, plan: &ForwardingPlan) -> Result<(), Failed> {
        self.wanted = Some(plan.clone());
        let mut failures = self.failures;
        if failures.left == 0 {
            self.bring_about(plan);
            return Ok(());
        }
        failures.left -= 1;
        self.failures = failures;
        match failures.undone {
            Undone::All => {}
            Undone::AllButPorts => self.set_ports(plan),
            Undone::Else => self.bring_about(plan),
        }
        Err(Failed {
            retry: failures.retry,
            mac_left: Some(self.plan.mac).filter(|mac| *mac != plan.mac),
        })
    }

    /// As the planes do: what is in force as far as known is not written again.
    fn bring_about(&mut self, plan: &ForwardingPlan) {
        if self.plan.mac != plan.mac {
            self.device.mac = plan.mac;
        }
        self.set_ports(plan);
        self.plan = plan.clone();
        self.device.carrier = plan.carrier;
    }

    /// Reads anew what others may have changed.
    pub fn refresh(&mut self) {
        self.plan.mac = self.device.mac;
    }

    /// The agent ends.
    pub fn agent_ends(&mut self) {
        self.wanted = None;
    }

    /// Whether the data plane lets a frame to one station in that this sender's network delivers to a port.
    pub fn lets_in(&self, port: PortId, source: MacAddr) -> bool {
        let ours = self.sent.contains(&source) || self.plan.ports.values().any(|port| port.mac == source);
        match self.plan.ports.get(&port).map(|port| port.accept) {
            Some(Accept::All) => true,
            Some(Accept::Unicast) => !(ours && self.refuses_own),
            Some(Accept::Nothing) | None => false,
        }
    }

    /// What an agent that starts would find.
    pub fn seen(&self) -> AdoptedState {
        let attached = self.nics.values().filter(|nic| nic.attached);
        let facts = |nic: &Nic| PortFacts {
            permanent_mac: nic.permanent_mac,
            report: nic.report.clone(),
        };
        AdoptedState {
            report: self.device.clone(),
            ports: attached.map(|nic| (nic.id, facts(nic))).collect(),
            plan: read_back(self.plan.clone()),
            fails_over: self.fails_over,
        }
    }

    fn set_ports(&mut self, plan: &ForwardingPlan) {
        self.plan.if_lost.clear();
        self.plan.ports.clone_from(&plan.ports);
        for (id, port) in &plan.ports {
            if let Some(nic) = self.nics.get_mut(id) {
                nic.report.mac = port.mac;
                nic.report.mtu = port.mtu;
            }
        }
    }

    /// A hook goes away with its interface. Nothing is prepared from then on, until the newest plan is put in force again: no other
    /// may come.
    fn forget(&mut self, id: PortId) {
        let mut rest = self.plan.clone();
        rest.ports.remove(&id);
        self.plan.if_lost.clear();
        self.plan.ports.remove(&id);
        self.plan.tx = self.plan.tx.among(|port| port != id);
        let wanted = self.wanted.as_ref().unwrap_or(&rest);
        let is_in_force = self.plan.tx.sends_as(&wanted.tx) && self.plan.ports.keys().eq(wanted.ports.keys());
        if is_in_force && !wanted.prepares(id) {
            self.plan.if_lost.clone_from(&wanted.if_lost);
        }
    }
}

/// A plan as it is found in a data plane: settings of a list without ports are not in force anywhere.
fn read_back(mut plan: ForwardingPlan) -> ForwardingPlan {
    if plan.tx.is_nowhere() {
        plan.tx.kind = match plan.tx.kind {
            Spread::RoundRobin { .. } => Spread::RoundRobin {
                packets_per_port: 1,
                igmp: None,
            },
            Spread::Hash(_) => Spread::Hash(XmitHashPolicy::Layer2),
            kind @ (Spread::One | Spread::All | Spread::Buckets { .. }) => kind,
        };
    }
    plan
}

impl Default for Kernel {
    fn default() -> Self {
        Kernel::new()
    }
}

fn report(name: &str, mac: MacAddr) -> LinkReport {
    LinkReport {
        name: name.to_owned(),
        admin_up: false,
        carrier: Carrier::Off,
        mac,
        mtu: 1500,
        promisc: false,
        allmulti: false,
        speed: Speed(Some(1000)),
        duplex: Duplex::Full,
    }
}

//! One attached interface.

use bond_monitors::{ArpMonitor, Carrier, Duplex, Health, LinkReport, LinkState, MacAddr, Speed, Time, Trial};

use crate::ids::PortId;
use crate::options::{BondOptions, PortOptions};

/// Facts about a port when it is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFacts {
    /// The address it had before we touched it: "Permanent HW addr" of the status file. [bond_main.c: bond_enslave]
    pub permanent_mac: MacAddr,
    /// Its state after attaching.
    pub report: LinkReport,
}

/// An attached interface and the verdict about its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Interface index.
    pub id: PortId,
    /// Interface name at the moment.
    pub name: String,
    /// Address before it was attached.
    pub permanent_mac: MacAddr,
    /// Address it uses while it has not the bond's; moves at a failover with `fail_over_mac=follow`.
    pub own_mac: MacAddr,
    /// Mbit/s, read when the link came up or with the last report.
    pub speed: Speed,
    /// As `speed`.
    pub duplex: Duplex,
    /// How often the link went down.
    pub failures: u32,
    /// Its own options.
    pub options: PortOptions,
    /// Its health by its monitors.
    pub(crate) health: Health,
    /// When the running delay began; for messages.
    pub(crate) delayed_since: Time,
    /// When it was last learned that its carrier was lost, or what its carrier is when the port was attached or taken over. What is
    /// told of an earlier loss is old.
    pub(crate) loss_seen: Time,
}

impl Port {
    /// A port that was just attached. Without a monitor it counts as up for ever. [bond_main.c: bond_enslave]
    pub(crate) fn new(now: Time, id: PortId, facts: PortFacts, options: &BondOptions) -> Self {
        let carrier = facts.report.carrier;
        let mut health = if options.watches_links() {
            // Under the ARP monitor a port with carrier begins as up.
            Health::attached(now, carrier, options.delays())
        } else {
            Health::new(carrier, LinkState::Up)
        };
        give_monitors(&mut health, now, options, || {
            ArpMonitor::new(now, carrier.is_on(), options.window())
        });
        Port {
            id,
            name: facts.report.name,
            permanent_mac: facts.permanent_mac,
            own_mac: facts.permanent_mac,
            speed: facts.report.speed,
            duplex: facts.report.duplex,
            failures: 0,
            options: PortOptions::default(),
            health,
            delayed_since: now,
            loss_seen: now,
        }
    }

    /// Verdict about the link.
    pub fn link(&self) -> LinkState {
        self.health.state()
    }

    /// What counts as its carrier when its interface has this one. A loss counts at once; a carrier that came back counts when the
    /// interface is in service, as before then the kernel drops what is sent through it.
    pub fn settled_carrier(&self, carrier: Carrier, in_service: bool) -> Carrier {
        if carrier.is_on() && !in_service {
            return self.carrier();
        }
        carrier
    }

    /// Signal on the wire.
    pub fn carrier(&self) -> Carrier {
        self.health.carrier()
    }

    /// Whether it may carry traffic.
    pub fn is_usable(&self) -> bool {
        self.link().is_usable()
    }

    /// State of its ARP monitor, if it has one.
    pub(crate) fn arp(&self) -> Option<&ArpMonitor> {
        self.health.arp()
    }

    /// As [`Port::arp`].
    pub(crate) fn arp_mut(&mut self) -> Option<&mut ArpMonitor> {
        self.health.arp_mut()
    }

    /// Its state while no port works.
    pub(crate) fn trial(&self) -> Trial {
        self.arp().map(ArpMonitor::trial).unwrap_or_default()
    }

    /// Changes that state.
    pub(crate) fn set_trial(&mut self, trial: Trial) {
        if let Some(arp) = self.arp_mut() {
            arp.set_trial(trial);
        }
    }
}

/// Gives a port the monitors that these options ask for besides carrier: the only place that says which. `arp` makes its ARP
/// monitor, a new one or one with the saved state.
pub(crate) fn give_monitors(health: &mut Health, now: Time, options: &BondOptions, arp: impl FnOnce() -> ArpMonitor) {
    health.set_arp(now, options.asks_targets().then(arp));
}

/// The attached ports in the order of attaching, as the driver lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<Port>);

impl Ports {
    /// All, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Port> {
        self.0.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Port> {
        self.0.iter_mut()
    }

    /// By interface index.
    pub fn get(&self, id: PortId) -> Option<&Port> {
        self.0.iter().find(|port| port.id == id)
    }

    pub(crate) fn get_mut(&mut self, id: PortId) -> Option<&mut Port> {
        self.0.iter_mut().find(|port| port.id == id)
    }

    /// By interface name.
    pub fn named(&self, name: &str) -> Option<&Port> {
        self.0.iter().find(|port| port.name == name)
    }

    /// The name of a port, for messages.
    pub fn name(&self, id: PortId) -> Option<String> {
        self.get(id).map(|port| port.name.clone())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None attached.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, port: Port) {
        debug_assert!(self.get(port.id).is_none(), "a port is attached once");
        self.0.push(port);
    }

    pub(crate) fn remove(&mut self, id: PortId) -> Option<Port> {
        let place = self.0.iter().position(|port| port.id == id)?;
        Some(self.0.remove(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carrier_that_came_back_counts_once_the_interface_is_in_service() {
        let port = |carrier| {
            let report = LinkReport {
                name: "a".to_owned(),
                admin_up: true,
                carrier,
                mac: MacAddr::default(),
                mtu: 1500,
                promisc: false,
                allmulti: false,
                speed: Speed::default(),
                duplex: Duplex::default(),
            };
            let facts = PortFacts {
                permanent_mac: report.mac,
                report,
            };
            Port::new(Time::ZERO, PortId(1), facts, &BondOptions::default())
        };
        let counts = |before, now, in_service| port(before).settled_carrier(now, in_service);
        assert_eq!(counts(Carrier::Off, Carrier::On, false), Carrier::Off);
        assert_eq!(counts(Carrier::Off, Carrier::On, true), Carrier::On);
        assert_eq!(counts(Carrier::On, Carrier::On, false), Carrier::On, "no change");
        assert_eq!(
            counts(Carrier::On, Carrier::Off, false),
            Carrier::Off,
            "a loss counts at once"
        );
        assert_eq!(counts(Carrier::On, Carrier::Off, true), Carrier::Off);
    }
}

//! Restart: soft state that the kernel cannot hold, and a bond made from what the kernel already does.
//!
//! The kernel is the truth about what is attached, who is active and which addresses are in use; the saved state adds failure
//! counts, running delays and origins. If no fact changed meanwhile, adopting asks for no change.

use bond_monitors::{Debounce, LinkReport, LinkState, Time};
use serde::{Deserialize, Serialize};

use crate::bond::{Bond, Wish};
use crate::choice::Choice;
use crate::device::{Device, MacOrigin};
use crate::ids::PortId;
use crate::notify::Rounds;
use crate::options::{BondOptions, FailOverMac};
use crate::plan::{Accept, ForwardingPlan, TxPolicy};
use crate::port::{Port, PortFacts, Ports};

/// Soft state of a bond; valid until the machine reboots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    options: BondOptions,
    device: Device,
    ports: Ports,
    /// The name is that of the first version, which knew one mode.
    #[serde(default, rename = "mode")]
    choice: Choice,
    #[serde(default)]
    notifier: Rounds,
    #[serde(default)]
    rejoin: Rounds,
}

/// What the kernel does for a bond at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The bond's own interface.
    pub report: LinkReport,
    /// Ports that are attached, each with its permanent address.
    pub ports: Vec<(PortId, PortFacts)>,
    /// The plan in force.
    pub plan: ForwardingPlan,
}

impl Bond {
    /// What to keep for the next start.
    pub fn saved(&self) -> Saved {
        Saved {
            options: self.options.clone(),
            device: self.device.clone(),
            ports: self.ports.clone(),
            choice: self.choice,
            notifier: self.notifier,
            rejoin: self.rejoin,
        }
    }

    /// A bond on top of what already forwards. `options` count only where nothing was saved.
    pub fn adopt(now: Time, options: BondOptions, seen: Seen, saved: Option<Saved>) -> Self {
        let saved = saved.unwrap_or_else(|| Saved::unknown(options, &seen.report));
        let mut bond = Bond::assemble(now, saved.options, saved.device, seen.plan);
        bond.ports = saved.ports;
        bond.choice = saved.choice;
        bond.notifier = saved.notifier;
        bond.rejoin = saved.rejoin;
        let there = |id: PortId| seen.ports.iter().any(|(seen, _)| *seen == id);
        let gone: Vec<PortId> = bond.ports.iter().map(|port| port.id).filter(|id| !there(*id)).collect();
        for (id, facts) in &seen.ports {
            bond.adopt_port(now, *id, facts);
        }
        bond.adopt_active(&seen.ports);
        // An interval later: what came in meanwhile is news, and adopting is to be silent.
        bond.resume_probing(now, now + bond.options.arp_interval);
        bond.device.update(&seen.report, bond.options.moving_macs());
        let mut wish = Wish::Nothing;
        for (port, facts) in seen.ports {
            if bond.on_link(port, facts.report) == Wish::Select {
                wish = Wish::Select;
            }
        }
        for port in gone {
            bond.on_detached(now, port, true);
        }
        bond.settle(now, wish);
        bond
    }

    /// A port that the file does not know: what it already lets in tells how far it was.
    fn adopt_port(&mut self, now: Time, id: PortId, facts: &PortFacts) {
        if self.ports.get(id).is_some() {
            return;
        }
        let mut port = Port::new(now, id, facts.clone(), &self.options);
        if self.plan.rx.get(&id) != Some(&Accept::Unicast) && facts.report.carrier.is_on() {
            port.debounce = Debounce::in_state(LinkState::Up);
        }
        if let Some(plan) = self.plan.ports.get(&id)
            && self.options.moving_macs() != FailOverMac::None
        {
            port.own_mac = plan.mac;
        }
        self.ports.push(port);
    }

    /// The port that already carries the traffic stays while it has carrier, whatever the file says.
    fn adopt_active(&mut self, seen: &[(PortId, PortFacts)]) {
        let active = match self.plan.tx {
            TxPolicy::One(id) => Some(id),
            _ if self.mode().has_active() => None,
            // The kernel does not tell who speaks for the bond.
            _ => self.choice.active,
        };
        let active = active.filter(|id| self.ports.get(*id).is_some());
        if active != self.choice.active {
            // Saved before the last failover: the addresses have yet to follow.
            self.move_macs(self.choice.active, active);
        }
        self.choice.active = active;
        self.choice.left = self.choice.left.filter(|left| {
            self.ports.get(left.port).is_some() && self.choice.active.is_some_and(|active| active != left.port)
        });
        if let Some(port) = self.choice.active.and_then(|id| self.ports.get_mut(id))
            && !port.is_usable()
            && seen
                .iter()
                .any(|(id, facts)| *id == port.id && facts.report.carrier.is_on())
        {
            port.debounce = Debounce::in_state(LinkState::Up);
        }
    }
}

impl Saved {
    /// Options that were in force.
    pub fn options(&self) -> &BondOptions {
        &self.options
    }

    fn unknown(options: BondOptions, report: &LinkReport) -> Self {
        Saved {
            options,
            device: Device::new(report, MacOrigin::Port),
            ports: Ports::default(),
            choice: Choice::default(),
            notifier: Rounds::default(),
            rejoin: Rounds::default(),
        }
    }
}

//! Restart: soft state that the kernel cannot hold, and a bond made from what the kernel already does.
//!
//! The kernel is the truth about what is attached, who is active and which addresses are in use; the saved state adds failure
//! counts, running delays and origins. If no fact changed meanwhile, adopting asks for no change.

use bond_monitors::{LinkReport, LinkState, Time};

use super::{Bond, Saved};
use crate::delays::Ends;
use crate::ids::PortId;
use crate::mode::{self, ModeSaved, View};
use crate::options::{BondOptions, FailOverMac};
use crate::plan::{Accept, ForwardingPlan};
use crate::port::{Port, PortFacts};

/// Present state of a bond in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptedState {
    /// The bond's own interface.
    pub report: LinkReport,
    /// Ports that are attached, each with its permanent address.
    pub ports: Vec<(PortId, PortFacts)>,
    /// The plan in force.
    pub plan: ForwardingPlan,
    /// Whether the data plane can move the traffic by itself when a port loses its carrier.
    pub fails_over: bool,
}

impl Bond {
    /// A bond on top of what already forwards. `options` count only where nothing was saved.
    pub fn adopt(now: Time, options: BondOptions, found: AdoptedState, saved: Option<Saved>) -> Self {
        let saved = saved.unwrap_or_else(|| Saved::unknown(options, &found.report));
        let mut plan = found.plan;
        plan.tx = plan.tx.with_settings_of(mode::spread(saved.options()));
        let (mut bond, mode) = saved.into_bond(now, plan);
        bond.plane_fails_over = found.fails_over;
        let there = |id: PortId| found.ports.iter().any(|(found, _)| *found == id);
        let gone: Vec<PortId> = bond.ports.iter().map(|port| port.id).filter(|id| !there(*id)).collect();
        for (id, facts) in &found.ports {
            bond.adopt_port(now, *id, facts);
        }
        bond.adopt_mode(now, &mode, &found.ports);
        let moved = mode
            .speaker()
            .is_some_and(|spoke| bond.mode.speaker().is_some_and(|speaks| speaks != spoke));
        // The first tick comes one interval later, so that adoption by itself changes nothing.
        let first = now + bond.options.arp_interval;
        bond.probe(|probing, ports, context, _| probing.resume(now, first, ports, context));
        bond.device.update(&found.report, bond.moving_macs());
        for (port, facts) in found.ports {
            bond.on_link(now, port, facts.report);
        }
        for port in gone {
            bond.on_detached(now, port, true);
        }
        bond.reported_unmonitored = bond.unmonitored();
        if moved && bond.device.up && bond.mode.speaker().is_some() {
            // The earlier agent ended before it announced that, or the kernel failed over while there was none.
            bond.announcer.begin(now, bond.mode.announces(), &bond.options);
        }
        bond.conclude_ending(now, Vec::new(), Ends::All);
        bond
    }

    /// A port that is missing in the file: its link state follows from the frames that it accepts.
    fn adopt_port(&mut self, now: Time, id: PortId, facts: &PortFacts) {
        if self.ports.get(id).is_some() {
            return;
        }
        let mut port = Port::new(now, id, facts.clone(), &self.options);
        let accept = self.plan().ports.get(&id).map(|plan| plan.accept);
        if accept != Some(Accept::Unicast) && facts.report.carrier.is_on() {
            port.health.assume(now, LinkState::Up);
        }
        if let Some(plan) = self.plan().ports.get(&id)
            && self.moving_macs() != FailOverMac::None
        {
            port.own_mac = plan.mac;
        }
        self.ports.push(port);
    }

    /// The mode goes on; the port that carries everything stays in use while it has carrier.
    fn adopt_mode(&mut self, now: Time, saved: &ModeSaved, found: &[(PortId, PortFacts)]) {
        let view = View::new(&self.ports, &self.options, &self.device);
        self.mode.adopt(saved, self.planner.plan(), &view, &mut self.out);
        self.move_addresses();
        let has_carrier = |id: PortId| {
            found
                .iter()
                .any(|(port, facts)| *port == id && facts.report.carrier.is_on())
        };
        if let Some(port) = self.active().and_then(|id| self.ports.get_mut(id))
            && !port.is_usable()
            && has_carrier(port.id)
        {
            port.health.assume(now, LinkState::Up);
        }
    }
}

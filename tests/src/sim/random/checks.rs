//! Invariants after every step of a walk.

use std::collections::BTreeMap;
use std::time::Duration;

use bond_modes::options::{BondOptions, FailOverMac, ModeName};
use bond_modes::{Accept, Bond, Event, ForwardingPlan, Machine, Port, PortId, Spread, Tx};
use bond_monitors::{Carrier, LinkState, MacAddr};

use super::{Dead, SLOWEST_TURN, Walk};
use crate::sim::world::World;

impl Walk {
    /// Invariants of the plan after every input.
    pub(super) fn check_plan(&self) {
        let world = &self.world;
        let (bond, plan) = (&world.bond, world.bond.plan());
        let usable: Vec<PortId> = bond.ports().iter().filter(|p| p.is_usable()).map(|p| p.id).collect();
        if bond.options().mode == ModeName::ActiveBackup {
            assert_eq!(plan.tx.kind, Spread::One);
            match plan.tx.ports.as_slice() {
                [] => assert!(usable.is_empty(), "nothing is sent although {usable:?} are usable"),
                [id] => assert!(usable.contains(id), "{id} sends although it is not usable"),
                several => panic!("active-backup sends through {several:?}"),
            }
            assert_eq!(plan.tx.ports.first().copied(), bond.active());
        } else {
            check_spreading(bond);
        }
        assert_eq!(
            plan.carrier.is_on(),
            !usable.is_empty(),
            "carrier without a usable port"
        );
        assert!(plan.ports.keys().eq(sorted(bond.ports().iter().map(|p| p.id)).iter()));
        for (id, port) in &plan.ports {
            if port.accept == Accept::Nothing {
                continue;
            }
            let everyone = bond.options().all_slaves_active || bond.options().mode != ModeName::ActiveBackup;
            let all = everyone || bond.active() == Some(*id);
            assert_eq!(port.accept == Accept::All, all, "{id} lets in {:?}", port.accept);
        }
        let macs: Vec<MacAddr> = plan.ports.values().map(|port| port.mac).collect();
        if bond.moving_macs() == FailOverMac::None {
            assert!(
                macs.iter().all(|mac| *mac == plan.mac),
                "a port has not the bond's address"
            );
        } else if let Some(active) = bond.active() {
            assert_eq!(
                plan.ports[&active].mac, plan.mac,
                "the active port has the bond's address"
            );
        }
        if world.programmed && world.kernel.losses.is_empty() {
            // While nothing is sent the settings of a spread have no effect, and an agent that takes over with an old file cannot
            // read them back.
            let mut does = world.kernel.plan.clone();
            does.tx = does.tx.with_settings_of(plan.tx.kind.clone());
            assert_eq!(does.if_lost, plan.if_lost, "the kernel prepares something else");
            assert_eq!(does, *plan, "the kernel does something else");
            let mac = world.kernel.device.mac;
            assert_eq!(mac, plan.mac, "the bond's interface has another address");
        }
    }

    /// A port without carrier is given up within its detection time plus downdelay, one without a working path within the
    /// intervals that it may miss.
    pub(super) fn check_detection(&mut self, timers_ran: bool) {
        let bond = &self.world.bond;
        let now = self.world.now();
        let options = bond.options();
        let watched = self.world.kernel.device.admin_up && options.watches_links();
        let limit = detection(options);
        let asks = options.asks_targets() && options.targets().next().is_some();
        let mut dead = BTreeMap::new();
        for port in bond.ports().iter().filter(|_| watched) {
            let carrier = self.world.kernel.nics[&port.id].report.carrier;
            if carrier.is_on() && !(asks && self.world.net.dead.contains(&port.id)) {
                continue;
            }
            let running = port.link().deadline().map_or(Duration::ZERO, |until| until.since(now));
            let limit = limit.max(running);
            let held_up = self.world.held_up;
            let new = Dead {
                since: now,
                held_up,
                limit,
            };
            let entry = self.dead.get(&port.id).copied().unwrap_or(new);
            // Each round of probes may leave at the end of a long turn; more turns than that are no excuse.
            let turns = u32::from(options.arp_missed_max) + 4;
            let excused = (held_up - entry.held_up).min(SLOWEST_TURN * turns);
            let dead_for = now.since(entry.since).saturating_sub(excused);
            assert!(
                !timers_ran || dead_for <= entry.limit || !port.is_usable(),
                "{} has been dead for {dead_for:?} and is still used",
                port.name,
            );
            dead.insert(port.id, entry);
        }
        self.dead = dead;
    }

    /// A running downdelay keeps its end, but what is known about carriers may be old: the time to detection starts anew.
    pub(super) fn rules_changed(&mut self) {
        let limit = detection(self.world.bond.options());
        for dead in self.dead.values_mut() {
            dead.since = self.world.now();
            dead.held_up = self.world.held_up;
            dead.limit = dead.limit.max(limit);
        }
    }

    /// What the data plane does by itself when a port loses its carrier is what the bond does when it learns of that.
    pub(super) fn check_failovers(&self) {
        let world = &self.world;
        let plan = world.bond.plan();
        if !world.kernel.fails_over {
            return assert!(plan.if_lost.is_empty(), "nothing can do what is prepared");
        }
        let has_carrier = |id: &&PortId| world.bond.ports().get(**id).is_some_and(|port| port.carrier().is_on());
        for &port in plan.tx.ports.iter().filter(has_carrier) {
            let next = without(world, port);
            let Some(failed_over) = plan.failed_over(port) else {
                assert!(
                    !can_fail_over(&world.bond, &next),
                    "nothing is prepared for {port}: {plan:?}"
                );
                continue;
            };
            let next = ForwardingPlan {
                if_lost: Default::default(),
                ..next
            };
            assert_eq!(
                failed_over, next,
                "after the loss of {port} the bond wants something else"
            );
        }
    }

    /// A guest above the bond keeps being found, whichever ports wait to be used or were left a moment ago.
    pub(super) fn check_guest(&mut self) {
        let options = self.world.bond.options();
        // Elsewhere the switch knows that the ports belong together. A plan that came about in part may let a new active port in
        // before the old one stops sending.
        let told_apart = options.mode == ModeName::ActiveBackup && !options.all_slaves_active;
        if told_apart && self.world.programmed {
            self.world.guest_sends(GUEST);
            assert!(
                !self.world.is_lost(GUEST),
                "the bridge looks for a guest behind the bond"
            );
        }
    }
}

/// Modes that spread traffic send through every port that is up and has carrier; without one, through those in downdelay.
fn check_spreading(bond: &Bond) {
    let pick = |wanted: &dyn Fn(&Port) -> bool| -> Vec<PortId> {
        bond.ports()
            .iter()
            .filter(|port| wanted(port))
            .map(|port| port.id)
            .collect()
    };
    let up = pick(&|port| port.link() == LinkState::Up && port.carrier().is_on());
    let going_down = pick(&|port| matches!(port.link(), LinkState::GoingDown { .. }));
    let senders = if up.is_empty() { going_down } else { up };
    let options = bond.options();
    let tx = &bond.plan().tx;
    match &tx.kind {
        Spread::RoundRobin { packets_per_port, igmp } => {
            assert_eq!(
                (options.mode, *packets_per_port),
                (ModeName::BalanceRr, options.packets_per_slave)
            );
            let sends = igmp.is_some_and(|igmp| tx.ports.contains(&igmp));
            assert_eq!(sends, !tx.is_nowhere(), "{igmp:?} gets IGMP although it does not send");
        }
        Spread::Hash(policy) => {
            assert_eq!(
                (options.mode, *policy),
                (ModeName::BalanceXor, options.xmit_hash_policy)
            );
        }
        Spread::All => assert_eq!(options.mode, ModeName::Broadcast),
        other => panic!("{} sends by {other:?}", options.mode),
    }
    let ports = &tx.ports;
    assert_eq!(*ports, senders, "{} sends through the wrong ports", options.mode);
    assert_eq!(bond.active(), None);
}

/// The plan of a bond that learns now that this port lost its carrier.
fn without(world: &World, port: PortId) -> ForwardingPlan {
    let mut twin = world.bond.clone();
    let mut report = world.kernel.nics[&port].report.clone();
    report.carrier = Carrier::Off;
    // It may have another name by now, which is news of its own.
    report.name = twin.ports().name(port).unwrap_or(report.name);
    twin.handle_event(world.now(), Event::Link { port, report });
    twin.plan().clone()
}

/// Whether a plane could get to the next plan by itself: carrier decides, and the traffic moves, and nothing else.
fn can_fail_over(bond: &Bond, next: &ForwardingPlan) -> bool {
    let rest = |plan: &ForwardingPlan| {
        let mut rest = plan.clone();
        rest.tx = Tx::one(None);
        rest.if_lost.clear();
        rest.ports.values_mut().for_each(|port| port.accept = Accept::Nothing);
        rest
    };
    let (plan, options) = (bond.plan(), bond.options());
    bond.is_up()
        && options.polls_carrier()
        && options.use_carrier
        && !next.tx.is_nowhere()
        && !next.tx.sends_as(&plan.tx)
        && rest(plan) == rest(next)
}

/// How long a failure may go unseen.
fn detection(options: &BondOptions) -> Duration {
    if options.asks_targets() {
        // Carrier is polled every second; backup ports may miss one interval more, and the interval begun is not over.
        let silence = options.arp_interval * (u32::from(options.arp_missed_max) + 3);
        Duration::from_secs(1).max(silence) + options.arp_interval
    } else {
        options.miimon + options.downdelay
    }
}

fn sorted(ids: impl Iterator<Item = PortId>) -> Vec<PortId> {
    let mut ids: Vec<PortId> = ids.collect();
    ids.sort();
    ids
}

/// Who is behind a bridge above the bond.
const GUEST: MacAddr = MacAddr([2, 0xbe, 0, 0, 0, 1]);

//! The bonds of a scripted plane.

use bond_modes::options::PortOptions;
use bond_modes::plan::{Accept, PortPlan, Source};
use bond_modes::{BondOptions, ForwardingPlan, PortId};
use bond_monitors::{Carrier, ReceiveStamps};

use super::super::lock::lock;
use super::super::{
    Amiss, Applied, Followed, Kept, Observed, OriginalPort, PlanPart, PlaneBond, PlaneError, PortBase, PortCounters,
    PortSigns, Report, Traffic,
};
use super::{Call, ScriptBond, give};

impl ScriptBond {
    fn refused(&self, error: PlaneError, plan: &ForwardingPlan) -> Applied {
        let world = lock(&self.plane.world);
        let known = world.bonds.get(&self.name).map(|bond| bond.report.mac);
        Applied::refused(error, known.unwrap_or(plan.mac), plan)
    }
}

impl Traffic for ScriptBond {
    fn follow(&mut self, plan: &ForwardingPlan) -> Followed {
        let mut world = match self.plane.call(Call::Follow(self.name.clone(), plan.clone())) {
            Ok(world) => world,
            Err(error) => {
                let applied = self.refused(error, plan);
                return Followed { applied, rest: false };
            }
        };
        let mut applied = Applied::default();
        let mut rest = world.part_that_fails.is_some();
        match world.bond(&self.name) {
            Ok(known) => {
                known.plan.tx = plan.tx.clone();
                known.plan.steer = plan.steer.clone();
                for (port, now) in &mut known.plan.ports {
                    now.accept = plan.ports.get(port).map_or(Accept::Nothing, |port| port.accept);
                }
                rest |= known.plan != *plan;
            }
            Err(error) => {
                applied.note(PlanPart::Plan, Err(error));
            }
        }
        Followed { applied, rest }
    }

    fn counters(&mut self, port: PortId) -> Result<PortCounters, PlaneError> {
        PlaneBond::counters(self, port)
    }

    fn fails_over(&self) -> Result<bool, String> {
        match lock(&self.plane.world).fails_over {
            true => Ok(true),
            false => Err("nobody has said that it does".to_owned()),
        }
    }

    fn overtaken(&mut self) -> Result<(), PlaneError> {
        self.plane.call(Call::Overtaken(self.name.clone())).map(drop)
    }

    fn heard(&mut self, port: PortId) -> Result<ReceiveStamps, PlaneError> {
        let mut world = self.plane.call(Call::Heard(self.name.clone(), port))?;
        world.check_attached(&self.name, port)?;
        Ok(world.heard.get(&port).copied().unwrap_or_default())
    }
}

impl PlaneBond for ScriptBond {
    fn plane(&self) -> &'static str {
        self.plane.is_called()
    }

    fn can(&mut self, options: &BondOptions) -> Result<(), PlaneError> {
        self.plane.check(options)
    }

    fn can_port(&mut self, options: &PortOptions) -> Result<(), PlaneError> {
        match lock(&self.plane.world).cannot {
            Some("queue_id") if options.queue_id != 0 => {}
            _ => return Ok(()),
        }
        Err(self.plane.inexact("queue_id"))
    }

    fn attach(&mut self, port: PortId, base: &PortBase) -> Result<(), PlaneError> {
        let attaching = lock(&self.plane.world).attaching;
        if let Some(attaching) = attaching {
            attaching(port);
        }
        let mut world = self.plane.call(Call::Attach(self.name.clone(), port, *base))?;
        world.bond(&self.name)?;
        let report = world.port(port)?;
        give(port, report, base.mac.unwrap_or(report.mac), true);
        report.mtu = base.mtu;
        report.admin_up = true;
        let plan = PortPlan {
            mac: report.mac,
            mtu: report.mtu,
            promisc: report.promisc,
            allmulti: report.allmulti,
            accept: Accept::Nothing,
            source: Source::AsSent,
        };
        world.bond(&self.name)?.plan.ports.entry(port).or_insert(plan);
        world.counters.entry(port).or_default();
        if let Some(attached) = world.attached {
            attached(port);
        }
        Ok(())
    }

    fn detach(&mut self, port: PortId, original: &OriginalPort) -> Result<bool, PlaneError> {
        let call = Call::Detach(self.name.clone(), port, original.clone());
        let mut world = self.plane.call(call)?;
        world.is_free(port)?;
        world.forget(&self.name, port)?;
        world.restore(port, original);
        Ok(true)
    }

    fn forget(&mut self, port: PortId) -> Result<(), PlaneError> {
        let mut world = self.plane.call(Call::Forget(self.name.clone(), port))?;
        world.forget(&self.name, port)
    }

    fn program(&mut self, plan: &ForwardingPlan) -> Applied {
        let mut world = match self.plane.call(Call::Program(self.name.clone(), plan.clone())) {
            Ok(world) => world,
            Err(error) => return self.refused(error, plan),
        };
        let mut outcome = Applied::default();
        match (world.part_that_fails.take(), world.bonds.get(&self.name)) {
            (Some((PlanPart::Mac, error)), Some(known)) => outcome.note_mac(known.report.mac, Err(error)),
            (Some((part, error)), _) => outcome.note(part, Err(error)),
            (None, _) => true,
        };
        for (&port, wanted) in &plan.ports {
            match world.port(port) {
                Ok(report) => {
                    report.mac = wanted.mac;
                    report.mtu = wanted.mtu;
                    report.promisc = wanted.promisc;
                }
                Err(error) => {
                    outcome.note(PlanPart::Port(port), Err(error));
                }
            }
        }
        match world.bond(&self.name) {
            Ok(known) => {
                known.report.mac = outcome.mac_left().unwrap_or(plan.mac);
                known.report.carrier = Carrier::from_bool(plan.carrier.is_on() && known.report.admin_up);
                known.plan = plan.clone();
            }
            Err(error) => {
                outcome.note(PlanPart::Plan, Err(error));
            }
        }
        outcome
    }

    fn traffic(&self) -> Option<Box<dyn Traffic>> {
        let given = lock(&self.plane.world).traffic;
        given.then(|| Box::new(self.clone()) as Box<dyn Traffic>)
    }

    /// No other program changes anything here.
    fn refresh(&mut self) -> Result<(), PlaneError> {
        Ok(())
    }

    fn changed_by_others(&mut self, reports: &[Report]) -> bool {
        let mut world = lock(&self.plane.world);
        world.judged.extend_from_slice(reports);
        world.changed.remove(&self.ifindex)
    }

    fn amiss(&mut self) -> Result<Vec<Amiss>, PlaneError> {
        let mut world = lock(&self.plane.world);
        world.looked_after.push(self.ifindex);
        Ok(world.amiss.get(&self.ifindex).cloned().unwrap_or_default())
    }

    fn put_back(&mut self, what: Kept) -> Result<(), PlaneError> {
        let mut world = self.plane.call(Call::PutBack(self.name.clone(), what))?;
        let amiss = world.amiss.entry(self.ifindex).or_default();
        amiss.retain(|amiss| amiss.what != what);
        Ok(())
    }

    fn outlive(&mut self) -> Result<(), PlaneError> {
        self.plane.call(Call::Outlive(self.name.clone())).map(drop)
    }

    fn keep_ipv6_off(&mut self, _: PortId) -> Result<(), PlaneError> {
        Ok(())
    }

    fn counters(&mut self, port: PortId) -> Result<PortCounters, PlaneError> {
        let mut world = self.plane.call(Call::Counters(self.name.clone(), port))?;
        world.check_attached(&self.name, port)?;
        Ok(world.counters.get(&port).copied().unwrap_or_default())
    }

    fn port_signs(&self) -> PortSigns {
        PortSigns {
            allmulti: true,
            ..PortSigns::default()
        }
    }

    fn renamed(&mut self, new: &str) {
        let bonds = &mut lock(&self.plane.world).bonds;
        // As it is if the test has renamed it already.
        let own = |bond: &&Observed| bond.ifindex == self.ifindex;
        if bonds.get(&self.name).filter(own).is_some()
            && let Some(bond) = bonds.remove(&self.name)
        {
            bonds.insert(new.to_owned(), bond);
        }
        self.name = new.to_owned();
    }

    fn destroy(self: Box<Self>) -> Result<(), PlaneError> {
        let mut world = self.plane.call(Call::Destroy(self.name.clone()))?;
        world.bonds.remove(&self.name);
        Ok(())
    }
}

//! A data plane without a kernel, for tests of the agent: it keeps bonds in memory, writes down every call, and fails where it
//! is told to.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use crate::dataplane::wanted::{PortPlan, Spread, TxPolicy, Wanted};
use bond_modes::options::{PortOptions, show_all};
use bond_modes::{BondOptions, PortId};
use bond_monitors::{Carrier, LinkReport, MacAddr, ReceiveStamps};

use super::step::Failures;
use super::{
    Applied, BondBase, BondDevice, BondName, Dataplane, Observed, OriginalPort, PlaneError, PortBase, PortCounters,
};

/// Clones are the same plane: one for the agent, one for the test that looks at it. One that outlives an agent is what the
/// kernel is to a real one.
#[derive(Clone, Debug, Default)]
pub struct ScriptPlane {
    world: Rc<RefCell<World>>,
}

/// One call, as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Dataplane::probe`]
    Probe,
    /// [`Dataplane::bonds`]
    Bonds,
    /// [`Dataplane::observe`]
    Observe(BondName),
    /// [`Dataplane::create`]
    Create(BondName),
    /// [`Dataplane::original`]
    Original(PortId),
    /// [`Dataplane::attach`]
    Attach(BondName, PortId, PortBase),
    /// [`Dataplane::detach`]
    Detach(BondName, PortId, OriginalPort),
    /// [`Dataplane::program`]
    Program(BondName, Wanted),
    /// [`Dataplane::destroy`]
    Destroy(BondName),
    /// [`Dataplane::counters`]
    Counters(BondName, PortId),
    /// [`Dataplane::heard`]
    Heard(BondName, PortId),
}

#[derive(Debug, Default)]
struct World {
    calls: Vec<Call>,
    /// Calls until the one that fails, and how.
    failure: Option<(usize, PlaneError)>,
    bonds: BTreeMap<BondName, Observed>,
    ports: BTreeMap<PortId, LinkReport>,
    counters: BTreeMap<PortId, PortCounters>,
    heard: BTreeMap<PortId, ReceiveStamps>,
    name: Option<&'static str>,
    /// Interfaces of new bonds are administratively up.
    up: bool,
    /// What attaching a port does to its interface.
    attaching: Option<fn(PortId)>,
    /// An option that it cannot do exactly unless it has its default value.
    cannot: Option<&'static str>,
}

impl ScriptPlane {
    /// A plane that goes by this name.
    pub fn named(name: &'static str) -> ScriptPlane {
        let plane = ScriptPlane::default();
        plane.world.borrow_mut().name = Some(name);
        plane
    }

    /// Interfaces of bonds that are made from now on are administratively up.
    pub fn make_bonds_up(&self) {
        self.world.borrow_mut().up = true;
    }

    /// It cannot do this option exactly unless it has its default value.
    pub fn cannot(&self, option: &'static str) {
        self.world.borrow_mut().cannot = Some(option);
    }

    /// Does this to the interface of every port that it attaches, also if that fails.
    pub fn set_attaching(&self, attaching: fn(PortId)) {
        self.world.borrow_mut().attaching = Some(attaching);
    }

    /// Adds an interface that can become a port, or changes its state.
    pub fn set_port(&self, port: PortId, report: LinkReport) {
        self.world.borrow_mut().ports.insert(port, report);
    }

    /// Takes an interface away, attached or not.
    pub fn remove_port(&self, port: PortId) {
        self.world.borrow_mut().ports.remove(&port);
    }

    /// Says what an attached port hears from now on.
    pub fn set_heard(&self, port: PortId, heard: ReceiveStamps) {
        self.world.borrow_mut().heard.insert(port, heard);
    }

    /// Lets a call fail and do nothing: the next one for 0, the one after for 1.
    pub fn fail_at(&self, call: usize, error: PlaneError) {
        self.world.borrow_mut().failure = Some((call, error));
    }

    /// The calls since this was last asked.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.world.borrow_mut().calls)
    }

    /// The plan in force for a bond; `None` if there is no such bond.
    pub fn plan(&self, bond: &str) -> Option<Wanted> {
        self.world.borrow().bonds.get(bond).map(|bond| bond.plan.clone())
    }

    fn inexact(&self, option: &str) -> PlaneError {
        PlaneError::Inexact {
            plane: self.name(),
            what: option.to_owned(),
            why: "the test says so",
            other: "tc",
        }
    }

    /// Writes the call down; fails if its turn has come.
    fn call(&self, call: Call) -> Result<std::cell::RefMut<'_, World>, PlaneError> {
        let mut world = self.world.borrow_mut();
        world.calls.push(call);
        match world.failure.take() {
            Some((0, error)) => return Err(error),
            Some((later, error)) => world.failure = Some((later - 1, error)),
            None => {}
        }
        Ok(world)
    }
}

impl World {
    fn bond(&mut self, name: &str) -> Result<&mut Observed, PlaneError> {
        self.bonds.get_mut(name).ok_or_else(|| PlaneError::Kernel {
            doing: format!("use {name}"),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    fn port(&mut self, port: PortId) -> Result<&mut LinkReport, PlaneError> {
        self.ports.get_mut(&port).ok_or(PlaneError::PortGone { port })
    }
}

impl Dataplane for ScriptPlane {
    fn name(&self) -> &'static str {
        self.world.borrow().name.unwrap_or("script")
    }

    fn express(&mut self, options: &BondOptions) -> Result<(), PlaneError> {
        let Some(option) = self.world.borrow().cannot else {
            return Ok(());
        };
        let value = |options: &BondOptions| show_all(options, None).remove(option);
        if value(options) == value(&BondOptions::default()) {
            return Ok(());
        }
        Err(self.inexact(option))
    }

    fn express_port(&mut self, _bond: &BondName, options: &PortOptions) -> Result<(), PlaneError> {
        match self.world.borrow().cannot {
            Some("queue_id") if options.queue_id != 0 => Err(self.inexact("queue_id")),
            _ => Ok(()),
        }
    }

    fn probe(&mut self) -> Result<(), PlaneError> {
        self.call(Call::Probe).map(|_| ())
    }

    fn bonds(&mut self) -> Result<Vec<BondName>, PlaneError> {
        Ok(self.call(Call::Bonds)?.bonds.keys().cloned().collect())
    }

    fn observe(&mut self, bond: &BondName) -> Result<Option<Observed>, PlaneError> {
        let world = self.call(Call::Observe(bond.clone()))?;
        let Some(mut observed) = world.bonds.get(bond).cloned() else {
            return Ok(None);
        };
        observed.plan.ports.retain(|port, _| world.ports.contains_key(port));
        observed.ports = observed
            .plan
            .ports
            .keys()
            .map(|port| (*port, world.ports[port].clone()))
            .collect();
        Ok(Some(observed))
    }

    fn create(&mut self, bond: &BondName, _: &BondBase) -> Result<BondDevice, PlaneError> {
        let mut world = self.call(Call::Create(bond.clone()))?;
        if world.bonds.contains_key(bond) {
            return Err(PlaneError::NameTaken { name: bond.clone() });
        }
        let number = world.bonds.len() as u8 + 1;
        let ifindex = FIRST_BOND + u32::from(number);
        let report = LinkReport {
            name: bond.clone(),
            admin_up: world.up,
            carrier: Carrier::Off,
            mac: MacAddr([2, 0, 0, 0, 0xb0, number]),
            mtu: 1500,
            promisc: false,
            allmulti: false,
            speed: Default::default(),
            duplex: Default::default(),
        };
        let plan = Wanted {
            carrier: Carrier::Off,
            mac: report.mac,
            ports: BTreeMap::new(),
            spread: Spread::One,
            tx: TxPolicy::Drop,
            queues: BTreeMap::new(),
            rx: BTreeMap::new(),
        };
        let observed = Observed {
            ifindex,
            report: report.clone(),
            ports: Vec::new(),
            plan,
        };
        world.bonds.insert(bond.clone(), observed);
        Ok(BondDevice { ifindex, report })
    }

    fn original(&mut self, port: PortId) -> Result<OriginalPort, PlaneError> {
        let mut world = self.call(Call::Original(port))?;
        let report = world.port(port)?;
        Ok(OriginalPort {
            mac: report.mac,
            mtu: report.mtu,
            admin_up: report.admin_up,
            promisc: report.promisc,
            allmulti: report.allmulti,
            disable_ipv6: Some(false),
            ifalias: String::new(),
            clsact: false,
        })
    }

    fn attach(&mut self, bond: &BondName, port: PortId, base: &PortBase) -> Result<(), PlaneError> {
        let attaching = self.world.borrow().attaching;
        if let Some(attaching) = attaching {
            attaching(port);
        }
        let mut world = self.call(Call::Attach(bond.clone(), port, *base))?;
        world.bond(bond)?;
        let report = world.port(port)?;
        report.mac = base.mac.unwrap_or(report.mac);
        report.mtu = base.mtu;
        report.admin_up = true;
        let plan = PortPlan {
            mac: report.mac,
            mtu: report.mtu,
            promisc: report.promisc,
            allmulti: report.allmulti,
        };
        world.bond(bond)?.plan.ports.entry(port).or_insert(plan);
        world.counters.entry(port).or_default();
        Ok(())
    }

    fn detach(&mut self, bond: &BondName, port: PortId, original: &OriginalPort) -> Result<(), PlaneError> {
        let mut world = self.call(Call::Detach(bond.clone(), port, original.clone()))?;
        let plan = &mut world.bond(bond)?.plan;
        plan.ports.remove(&port);
        plan.rx.remove(&port);
        plan.tx = plan.tx.among(|kept| kept != port);
        plan.queues.retain(|_, chosen| *chosen != port);
        world.counters.remove(&port);
        world.heard.remove(&port);
        if let Ok(report) = world.port(port) {
            report.mac = original.mac;
            report.mtu = original.mtu;
            report.admin_up = original.admin_up;
            report.promisc = original.promisc;
            report.allmulti = original.allmulti;
        }
        Ok(())
    }

    fn program(&mut self, bond: &BondName, plan: &Wanted) -> Applied {
        let mut world = match self.call(Call::Program(bond.clone(), plan.clone())) {
            Ok(world) => world,
            Err(error) => return error.into(),
        };
        let mut failures = Failures::default();
        for (&port, wanted) in &plan.ports {
            match world.port(port) {
                Ok(report) => {
                    report.mac = wanted.mac;
                    report.mtu = wanted.mtu;
                    report.promisc = wanted.promisc;
                }
                Err(error) => {
                    failures.note(Err(error));
                }
            }
        }
        match world.bond(bond) {
            Ok(known) => {
                known.report.mac = plan.mac;
                known.report.carrier = Carrier::from_bool(plan.carrier.is_on() && known.report.admin_up);
                known.plan = plan.clone();
            }
            Err(error) => {
                failures.note(Err(error));
            }
        }
        failures.applied()
    }

    /// Nobody else changes anything here.
    fn refresh(&mut self, _bond: &BondName) -> Result<(), PlaneError> {
        Ok(())
    }

    fn destroy(&mut self, bond: &BondName) -> Result<(), PlaneError> {
        let mut world = self.call(Call::Destroy(bond.clone()))?;
        world.bonds.remove(bond);
        Ok(())
    }

    fn renamed(&mut self, old: &str, new: &BondName) {
        let mut world = self.world.borrow_mut();
        if let Some(bond) = world.bonds.remove(old) {
            world.bonds.insert(new.clone(), bond);
        }
    }

    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn counters(&mut self, bond: &BondName, port: PortId) -> Result<PortCounters, PlaneError> {
        let mut world = self.call(Call::Counters(bond.clone(), port))?;
        if !world.bond(bond)?.plan.ports.contains_key(&port) {
            return Err(PlaneError::PortGone { port });
        }
        Ok(world.counters.get(&port).copied().unwrap_or_default())
    }

    fn heard(&mut self, bond: &BondName, port: PortId) -> Result<ReceiveStamps, PlaneError> {
        let mut world = self.call(Call::Heard(bond.clone(), port))?;
        if !world.bond(bond)?.plan.ports.contains_key(&port) {
            return Err(PlaneError::PortGone { port });
        }
        Ok(world.heard.get(&port).copied().unwrap_or_default())
    }
}

/// Interface indexes of bonds come after this one, out of the way of those that tests give to ports.
const FIRST_BOND: u32 = 1000;

#[cfg(test)]
mod tests {
    use bond_monitors::Time;

    use super::*;

    fn report(name: &str) -> LinkReport {
        LinkReport {
            name: name.to_owned(),
            admin_up: false,
            carrier: Carrier::On,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            promisc: false,
            allmulti: false,
            speed: Default::default(),
            duplex: Default::default(),
        }
    }

    #[test]
    fn it_remembers_bonds_fails_when_told_and_writes_calls_down() {
        let window = ScriptPlane::default();
        let mut plane = window.clone();
        let (bond, port) = ("bond0".to_owned(), PortId(3));
        let base = PortBase { mac: None, mtu: 9000 };
        window.set_port(port, report("eth0"));
        plane.create(&bond, &BondBase::default()).unwrap();
        let original = plane.original(port).unwrap();
        window.fail_at(1, PlaneError::PortGone { port });
        plane.attach(&bond, port, &base).unwrap();
        assert!(plane.detach(&bond, port, &original).is_err());
        let mut plan = window.plan("bond0").unwrap();
        plan.tx = TxPolicy::One(port);
        plane.program(&bond, &plan).result().unwrap();

        let probed = ReceiveStamps {
            any: Some(Time::from_millis(5)),
            ..ReceiveStamps::default()
        };
        window.set_heard(port, probed);
        assert_eq!(plane.heard(&bond, port).unwrap(), probed);
        assert!(plane.heard(&bond, PortId(4)).is_err());

        let observed = plane.observe(&bond).unwrap().unwrap();
        assert_eq!(observed.plan, plan);
        assert_eq!(observed.ports[0].1.mtu, 9000);
        plane.detach(&bond, port, &original).unwrap();
        assert_eq!(window.plan("bond0").unwrap().tx, TxPolicy::Drop);
        assert_eq!(plane.original(port).unwrap(), original);
        assert_eq!(window.take_calls().len(), 10);
        window.remove_port(port);
        assert!(matches!(
            plane.attach(&bond, port, &base),
            Err(PlaneError::PortGone { .. })
        ));
    }
}

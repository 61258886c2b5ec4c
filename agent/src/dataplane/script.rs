//! A data plane without a kernel, for tests of the agent: it keeps bonds in memory, writes down every call, and fails where a
//! test asks for it.

mod bond;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};

use bond_modes::options::show_all;
use bond_modes::plan::{Rewrite, Tx};
use bond_modes::{BondOptions, ForwardingPlan, PortId};
use bond_monitors::{Carrier, LinkReport, MacAddr, ReceiveStamps};

use super::lock::lock;
use super::{
    Adopted, Amiss, BondDevice, BondName, Examiner, Kept, Observed, OriginalPort, PlanPart, Plane, PlaneBond,
    PlaneError, PlaneReport, PortBase, PortCounters, Report, Watch,
};
use crate::netlink::{Drained, RouteSocket};
use crate::text::chain;

/// Clones are the same plane: one for the agent, one for the test that looks at it. One that outlives an agent is what the
/// kernel is to a real one.
#[derive(Clone, Debug, Default)]
pub struct ScriptPlane {
    world: Arc<Mutex<World>>,
}

/// One call, as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Plane::probe`]
    Probe,
    /// [`Plane::bonds`]
    Bonds,
    /// [`Plane::adopt`]
    Adopt(BondName),
    /// [`Plane::create`]
    Create(BondName),
    /// [`PlaneBond::attach`]
    Attach(BondName, PortId, PortBase),
    /// [`PlaneBond::detach`]
    Detach(BondName, PortId, OriginalPort),
    /// [`PlaneBond::forget`]
    Forget(BondName, PortId),
    /// [`Plane::give_back`]
    GiveBack(PortId, OriginalPort),
    /// [`PlaneBond::program`]
    Program(BondName, ForwardingPlan),
    /// [`Traffic::follow`]
    Follow(BondName, ForwardingPlan),
    /// [`Traffic::overtaken`]
    Overtaken(BondName),
    /// [`PlaneBond::destroy`]
    Destroy(BondName),
    /// [`PlaneBond::counters`], or [`Traffic::counters`]
    Counters(BondName, PortId),
    /// [`Traffic::heard`]
    Heard(BondName, PortId),
    /// [`PlaneBond::put_back`]
    PutBack(BondName, Kept),
    /// [`PlaneBond::outlive`]
    Outlive(BondName),
}

/// A bond of a [`ScriptPlane`].
#[derive(Clone, Debug)]
pub struct ScriptBond {
    plane: ScriptPlane,
    name: BondName,
    ifindex: u32,
}

#[derive(Debug, Default)]
struct World {
    calls: Vec<Call>,
    /// Calls until the one that fails, and how.
    failure: Option<(usize, PlaneError)>,
    /// A bond that cannot be adopted.
    unadoptable: Option<BondName>,
    /// A bond that cannot be made.
    unmakable: Option<BondName>,
    /// Ports that cannot be given back.
    stuck: BTreeSet<PortId>,
    /// What of the next plan fails, and how.
    part_that_fails: Option<(PlanPart, PlaneError)>,
    bonds: BTreeMap<BondName, Observed>,
    /// Bonds that were made: an index is not given twice.
    made: u16,
    ports: BTreeMap<PortId, LinkReport>,
    counters: BTreeMap<PortId, PortCounters>,
    heard: BTreeMap<PortId, ReceiveStamps>,
    name: Option<&'static str>,
    /// Bonds give away what moves their traffic.
    traffic: bool,
    /// The kernel is said to fail over by itself.
    fails_over: bool,
    /// Interfaces of new bonds are administratively up.
    up: bool,
    /// What attaching a port does to its interface.
    attaching: Option<fn(PortId)>,
    /// The same, when it is attached.
    attached: Option<fn(PortId)>,
    /// An option that it cannot do exactly unless it has its default value.
    cannot: Option<&'static str>,
    /// Bonds that others have changed since they were last asked.
    changed: BTreeSet<u32>,
    /// What others have taken away, by the index of the bond.
    amiss: BTreeMap<u32, Vec<Amiss>>,
    /// Bonds that were looked after.
    looked_after: Vec<u32>,
    /// What is still to be reported, and the descriptor for that; without it, the plane reports nothing.
    reports: Vec<Report>,
    /// What was judged.
    judged: Vec<Report>,
    watched: Option<Arc<OwnedFd>>,
}

impl ScriptPlane {
    /// A plane of this name.
    pub fn named(name: &'static str) -> ScriptPlane {
        let plane = ScriptPlane::default();
        lock(&plane.world).name = Some(name);
        plane
    }

    /// The traffic of bonds can be moved apart from the rest of a plan.
    pub fn give_traffic(&self) {
        lock(&self.world).traffic = true;
    }

    /// The kernel is said to fail over by itself.
    pub fn fail_over(&self) {
        lock(&self.world).fails_over = true;
    }

    /// Interfaces of bonds that are made from now on are administratively up.
    pub fn make_bonds_up(&self) {
        lock(&self.world).up = true;
    }

    /// It cannot do this option exactly unless it has its default value.
    pub fn cannot(&self, option: &'static str) {
        lock(&self.world).cannot = Some(option);
    }

    /// Does this to the interface of every port that it attaches, also if that fails.
    pub fn set_attaching(&self, attaching: fn(PortId)) {
        lock(&self.world).attaching = Some(attaching);
    }

    /// Does this to the interface of every port that it has attached.
    pub fn set_attached(&self, attached: fn(PortId)) {
        lock(&self.world).attached = Some(attached);
    }

    /// Adds an interface that can become a port, or changes its state.
    pub fn set_port(&self, port: PortId, report: LinkReport) {
        lock(&self.world).ports.insert(port, report);
    }

    /// Makes the plane report this, also if nothing was changed.
    pub fn report(&self, report: Report) {
        let mut world = lock(&self.world);
        world.reports.push(report);
        world
            .watched
            .get_or_insert_with(|| Arc::new(File::open("/dev/null").unwrap().into()));
    }

    /// Makes another program change the bond with this interface, which the plane reports.
    pub fn change_by_others(&self, device: u32) {
        self.change_by_others_unheard(device);
        self.report(settings_of(device));
    }

    /// As [`ScriptPlane::change_by_others`], without a report.
    pub fn change_by_others_unheard(&self, device: u32) {
        lock(&self.world).changed.insert(device);
    }

    /// Makes another program take this away from the bond with this interface.
    pub fn take_away(&self, device: u32, amiss: Amiss) {
        lock(&self.world).amiss.entry(device).or_default().push(amiss);
    }

    /// All of that is back.
    pub fn give_all_back(&self, device: u32) {
        lock(&self.world).amiss.remove(&device);
    }

    /// The bonds that were looked after since this was last asked.
    pub fn take_looked_after(&self) -> Vec<u32> {
        std::mem::take(&mut lock(&self.world).looked_after)
    }

    /// The reports that bonds have judged since this was last asked.
    pub fn take_judged(&self) -> Vec<Report> {
        std::mem::take(&mut lock(&self.world).judged)
    }

    /// Takes an interface away, attached or not.
    pub fn remove_port(&self, port: PortId) {
        lock(&self.world).ports.remove(&port);
    }

    /// Says what an attached port hears from now on.
    pub fn set_heard(&self, port: PortId, heard: ReceiveStamps) {
        lock(&self.world).heard.insert(port, heard);
    }

    /// Lets a call fail and do nothing: the next one for 0, the one after for 1.
    pub fn fail_at(&self, call: usize, error: PlaneError) {
        lock(&self.world).failure = Some((call, error));
    }

    /// Lets every attempt to adopt this bond fail.
    pub fn set_unadoptable(&self, bond: Option<&str>) {
        lock(&self.world).unadoptable = bond.map(str::to_owned);
    }

    /// Lets every attempt to make this bond fail.
    pub fn set_unmakable(&self, bond: Option<&str>) {
        lock(&self.world).unmakable = bond.map(str::to_owned);
    }

    /// Lets every attempt to give these ports back fail.
    pub fn set_stuck(&self, ports: &[PortId]) {
        lock(&self.world).stuck = ports.iter().copied().collect();
    }

    /// Exchanges the names of two bonds, as another program does.
    pub fn exchange(&self, one: &str, other: &str) {
        let bonds = &mut lock(&self.world).bonds;
        let [first, second] = [one, other].map(|name| bonds.remove(name).expect("a bond"));
        bonds.insert(other.to_owned(), first);
        bonds.insert(one.to_owned(), second);
    }

    /// Lets a part of the next plan fail. The rest of it comes about.
    pub fn fail_part(&self, part: PlanPart, error: PlaneError) {
        lock(&self.world).part_that_fails = Some((part, error));
    }

    /// The calls since this was last asked.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut lock(&self.world).calls)
    }

    /// The plan in force for a bond; `None` if there is no such bond.
    pub fn plan(&self, bond: &str) -> Option<ForwardingPlan> {
        lock(&self.world).bonds.get(bond).map(|bond| bond.plan.clone())
    }

    /// The index that the interface of a bond has.
    pub fn device(&self, bond: &str) -> u32 {
        lock(&self.world).bonds[bond].ifindex
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
    fn call(&self, call: Call) -> Result<MutexGuard<'_, World>, PlaneError> {
        let mut world = lock(&self.world);
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

impl ScriptPlane {
    fn check(&self, options: &BondOptions) -> Result<(), PlaneError> {
        let Some(option) = lock(&self.world).cannot else {
            return Ok(());
        };
        let value = |options: &BondOptions| show_all(options, None).remove(option);
        if value(options) == value(&BondOptions::default()) {
            return Ok(());
        }
        Err(self.inexact(option))
    }

    fn handle(&self, name: &str, ifindex: u32) -> Box<dyn PlaneBond> {
        Box::new(ScriptBond {
            plane: self.clone(),
            name: name.to_owned(),
            ifindex,
        })
    }

    fn is_called(&self) -> &'static str {
        lock(&self.world).name.unwrap_or("script")
    }
}

impl Plane for ScriptPlane {
    fn name(&self) -> &'static str {
        self.is_called()
    }

    fn probe(&mut self) -> Result<(), PlaneError> {
        self.call(Call::Probe).map(|_| ())
    }

    fn can(&mut self, options: &BondOptions) -> Result<(), PlaneError> {
        self.check(options)
    }

    fn examiner(&self) -> Examiner {
        let plane = self.clone();
        Arc::new(move |options| {
            let mut plane = plane.clone();
            let [usable, exact] = [plane.probe(), plane.can(options)].map(|done| done.map_err(|error| chain(&error)));
            PlaneReport::new(plane.name(), usable, exact)
        })
    }

    fn bonds(&mut self) -> Result<Vec<BondName>, PlaneError> {
        Ok(self.call(Call::Bonds)?.bonds.keys().cloned().collect())
    }

    fn create(&mut self, name: &str, _: &BondOptions) -> Result<(Box<dyn PlaneBond>, BondDevice), PlaneError> {
        let device = self.call(Call::Create(name.to_owned()))?.create(name)?;
        Ok((self.handle(name, device.ifindex), device))
    }

    fn adopt(&mut self, name: &str) -> Result<Option<Adopted>, PlaneError> {
        let world = self.call(Call::Adopt(name.to_owned()))?;
        if world.unadoptable.as_deref() == Some(name) {
            return Err(busy(format!("read {name}")));
        }
        let observed = world.observe(name);
        Ok(observed.map(|observed| (self.handle(name, observed.ifindex), observed)))
    }

    fn give_back(&mut self, _: &str, port: PortId, original: &OriginalPort) -> Result<bool, PlaneError> {
        let mut world = self.call(Call::GiveBack(port, original.clone()))?;
        world.is_free(port)?;
        world.restore(port, original);
        Ok(true)
    }

    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn watch(&mut self) -> Option<Box<dyn Watch>> {
        let descriptor = lock(&self.world).watched.clone()?;
        let plane = self.clone();
        Some(Box::new(ScriptWatch { plane, descriptor }))
    }
}

struct ScriptWatch {
    plane: ScriptPlane,
    descriptor: Arc<OwnedFd>,
}

impl Watch for ScriptWatch {
    fn plane(&self) -> &'static str {
        self.plane.is_called()
    }

    fn event_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    fn read_events(&mut self, _budget: usize, sink: &mut Vec<Report>) -> io::Result<Drained> {
        sink.append(&mut lock(&self.plane.world).reports);
        Ok(Drained::Empty)
    }
}

/// A report of the settings of the bond with this interface.
pub fn settings_of(device: u32) -> Report {
    Report::Settings {
        device,
        said: Vec::new(),
    }
}

impl World {
    fn create(&mut self, name: &str) -> Result<BondDevice, PlaneError> {
        if self.unmakable.as_deref() == Some(name) {
            return Err(busy(format!("make {name}")));
        }
        if self.bonds.contains_key(name) {
            return Err(PlaneError::NameTaken { name: name.to_owned() });
        }
        self.made += 1;
        let number = self.made;
        let ifindex = FIRST_BOND + u32::from(number);
        let report = LinkReport {
            name: name.to_owned(),
            admin_up: self.up,
            carrier: Carrier::Off,
            mac: MacAddr([2, 0, 0, number.to_be_bytes()[0], 0xb0, number.to_be_bytes()[1]]),
            mtu: 1500,
            promisc: false,
            allmulti: false,
            speed: Default::default(),
            duplex: Default::default(),
        };
        let plan = ForwardingPlan {
            carrier: Carrier::Off,
            mac: report.mac,
            ports: BTreeMap::new(),
            tx: Tx::one(None),
            steer: Vec::new(),
            rewrite: Rewrite::default(),
            without_agent: None,
            if_lost: Default::default(),
        };
        let observed = Observed {
            ifindex,
            report: report.clone(),
            ports: Vec::new(),
            plan,
        };
        self.bonds.insert(name.to_owned(), observed);
        Ok(BondDevice { ifindex, report })
    }

    fn observe(&self, name: &str) -> Option<Observed> {
        let mut observed = self.bonds.get(name)?.clone();
        observed.plan.ports.retain(|port, _| self.ports.contains_key(port));
        let ports = observed.plan.ports.keys();
        observed.ports = ports.map(|port| (*port, self.ports[port].clone())).collect();
        Some(observed)
    }

    /// A bond has a port no more.
    fn forget(&mut self, bond: &str, port: PortId) -> Result<(), PlaneError> {
        let plan = &mut self.bond(bond)?.plan;
        plan.ports.remove(&port);
        plan.tx = plan.tx.among(|kept| kept != port);
        plan.steer.retain(|steer| steer.to != port);
        self.counters.remove(&port);
        self.heard.remove(&port);
        Ok(())
    }

    /// That a port can be given back.
    fn is_free(&self, port: PortId) -> Result<(), PlaneError> {
        match self.stuck.contains(&port) {
            true => Err(busy(format!("restore the address of {port}"))),
            false => Ok(()),
        }
    }

    fn restore(&mut self, port: PortId, original: &OriginalPort) {
        if let Ok(report) = self.port(port) {
            give(port, report, original.mac, original.allmulti);
            report.mtu = original.mtu;
            report.admin_up = original.admin_up;
            report.promisc = original.promisc;
            report.allmulti = original.allmulti;
        }
    }

    /// That a port is attached.
    fn check_attached(&mut self, name: &str, port: PortId) -> Result<(), PlaneError> {
        match self.bond(name)?.plan.ports.contains_key(&port) {
            true => Ok(()),
            false => Err(PlaneError::PortGone { port }),
        }
    }
}

/// Gives a port these settings; its interface too, if there is one as the test has described it.
fn give(port: PortId, report: &mut LinkReport, mac: MacAddr, allmulti: bool) {
    let before = std::mem::replace(&mut report.mac, mac);
    let on_interface = || {
        let mut links = RouteSocket::open()?;
        let Some(link) = links.by_index(port.0)? else {
            return Ok(());
        };
        if (&link.report.name, link.report.mac) != (&report.name, before) {
            return Ok(());
        }
        if mac != before {
            links.set_mac(port.0, mac)?;
        }
        if allmulti != link.allmulti_flag {
            links.set_allmulti(port.0, allmulti)?;
        }
        Ok(())
    };
    // One that refuses this is none of this plane's business.
    let _: io::Result<()> = on_interface();
}

fn busy(doing: String) -> PlaneError {
    let source = io::ErrorKind::ResourceBusy.into();
    PlaneError::Kernel { doing, source }
}

/// Interface indexes of bonds come after this one, out of the way of those that tests give to ports.
const FIRST_BOND: u32 = 100_000;

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

    fn original() -> OriginalPort {
        OriginalPort {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            admin_up: false,
            promisc: false,
            allmulti: false,
            disable_ipv6: Some(false),
            ifalias: String::new(),
            clsact: false,
        }
    }

    #[test]
    fn it_remembers_bonds_fails_when_told_and_writes_calls_down() {
        let window = ScriptPlane::default();
        let mut plane = window.clone();
        let port = PortId(3);
        let base = PortBase { mac: None, mtu: 9000 };
        window.set_port(port, report("eth0"));
        let (mut bond, _) = plane.create("bond0", &BondOptions::default()).unwrap();
        window.fail_at(1, PlaneError::PortGone { port });
        bond.attach(port, &base).unwrap();
        let original = original();
        assert!(bond.detach(port, &original).is_err());
        let mut plan = window.plan("bond0").unwrap();
        plan.tx = Tx::one(Some(port));
        bond.program(&plan).result().unwrap();

        let probed = ReceiveStamps {
            any: Some(Time::from_millis(5)),
            ..ReceiveStamps::default()
        };
        window.set_heard(port, probed);
        assert!(bond.traffic().is_none());
        window.give_traffic();
        let mut traffic = bond.traffic().unwrap();
        assert_eq!(traffic.heard(port).unwrap(), probed);
        assert!(traffic.heard(PortId(4)).is_err());

        let (mut bond, observed) = plane.adopt("bond0").unwrap().unwrap();
        assert_eq!(observed.plan, plan);
        assert_eq!(observed.ports[0].1.mtu, 9000);
        bond.detach(port, &original).unwrap();
        assert_eq!(window.plan("bond0").unwrap().tx, Tx::one(None));
        assert_eq!(window.take_calls().len(), 8);
        window.remove_port(port);
        assert!(matches!(bond.attach(port, &base), Err(PlaneError::PortGone { .. })));
    }
}

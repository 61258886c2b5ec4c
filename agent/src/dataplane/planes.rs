//! All data planes of a network namespace as one: each bond belongs to the plane that made it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;

use crate::dataplane::wanted::Wanted;
use bond_modes::options::PortOptions;
use bond_modes::{BondOptions, PortId};
use bond_monitors::ReceiveStamps;
use serde::{Deserialize, Serialize};

use super::step::Failures;
use super::{
    Applied, BondBase, BondDevice, BondName, Dataplane, Observed, OriginalPort, PlaneError, PlaneReport, PortBase,
    PortCounters, Touched,
};
use crate::netlink::Link;
use crate::text::chain;

/// Which plane a bond is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PlaneChoice {
    /// The kernel's team driver if it can do what is asked for exactly, else eBPF.
    #[default]
    Auto,
    /// The kernel's team driver.
    Team,
    /// eBPF programs at the traffic control hooks.
    Tc,
}

impl PlaneChoice {
    /// Every value with its name.
    pub const VALUES: [(PlaneChoice, &'static str); 3] = [
        (PlaneChoice::Auto, "auto"),
        (PlaneChoice::Team, "team"),
        (PlaneChoice::Tc, "tc"),
    ];

    /// From its name.
    pub fn parse(text: &str) -> Option<PlaneChoice> {
        let found = PlaneChoice::VALUES.iter().find(|(_, name)| *name == text.trim());
        found.map(|(choice, _)| *choice)
    }

    /// Whether a plane of this name will do.
    pub fn allows(self, plane: &str) -> bool {
        match self {
            PlaneChoice::Auto => true,
            PlaneChoice::Team => plane == "team",
            PlaneChoice::Tc => plane == "tc",
        }
    }
}

/// The planes, the preferred one first.
pub struct Planes {
    planes: Vec<Box<dyn Dataplane>>,
    /// Place of each bond's plane.
    owners: BTreeMap<BondName, usize>,
}

impl Planes {
    /// Without bonds; those that are there are found by [`Dataplane::observe`].
    ///
    /// # Panics
    /// Without a plane.
    pub fn new(planes: Vec<Box<dyn Dataplane>>) -> Planes {
        assert!(!planes.is_empty(), "a bond needs a plane");
        Planes {
            planes,
            owners: BTreeMap::new(),
        }
    }

    /// The plane of a bond. What nobody has made belongs to the last one, which needs no special device.
    fn of(&mut self, bond: &str) -> &mut dyn Dataplane {
        let last = self.planes.len() - 1;
        let place = self.owners.get(bond).copied().unwrap_or(last);
        self.planes[place].as_mut()
    }

    /// The first plane that the choice allows and that can do it, or why none can.
    fn choose(&mut self, base: &BondBase) -> Result<usize, PlaneError> {
        let mut reasons = Vec::new();
        for (place, plane) in self.planes.iter_mut().enumerate() {
            if !base.plane.allows(plane.name()) {
                continue;
            }
            match plane.probe().and_then(|()| plane.express(&base.options)) {
                Ok(()) => return Ok(place),
                Err(error) => reasons.push((plane.name(), error)),
            }
        }
        if reasons.len() == 1 {
            return Err(reasons.remove(0).1);
        }
        let reasons = reasons
            .iter()
            .map(|(name, error)| format!("plane {name}: {}", chain(error)));
        Err(PlaneError::NoPlane {
            reasons: reasons.collect::<Vec<_>>().join("; "),
        })
    }
}

impl Dataplane for Planes {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn plane_of(&self, bond: &str) -> &'static str {
        let place = self.owners.get(bond).copied().unwrap_or(self.planes.len() - 1);
        self.planes[place].name()
    }

    fn assign(&mut self, bond: &BondName, plane: &str) {
        if let Some(place) = self.planes.iter().position(|known| known.name() == plane) {
            self.owners.insert(bond.clone(), place);
        }
    }

    fn probe(&mut self) -> Result<(), PlaneError> {
        let mut last = Ok(());
        for plane in &mut self.planes {
            last = plane.probe();
            if last.is_ok() {
                return last;
            }
        }
        last
    }

    fn reports(&mut self, options: &BondOptions) -> Vec<PlaneReport> {
        self.planes
            .iter_mut()
            .flat_map(|plane| plane.reports(options))
            .collect()
    }

    /// Of a live bond: its own plane decides.
    fn express_for(&mut self, bond: &BondName, options: &BondOptions) -> Result<(), PlaneError> {
        self.of(bond).express_for(bond, options)
    }

    fn express_port(&mut self, bond: &BondName, options: &PortOptions) -> Result<(), PlaneError> {
        self.of(bond).express_port(bond, options)
    }

    fn express(&mut self, options: &BondOptions) -> Result<(), PlaneError> {
        let base = BondBase {
            plane: PlaneChoice::Auto,
            options: options.clone(),
        };
        self.choose(&base).map(drop)
    }

    fn bonds(&mut self) -> Result<Vec<BondName>, PlaneError> {
        let mut found = Vec::new();
        for (place, plane) in self.planes.iter_mut().enumerate() {
            let names = plane.bonds().unwrap_or_else(|error| {
                log::error!("plane {}: cannot look for bonds: {}", plane.name(), chain(&error));
                Vec::new()
            });
            for name in &names {
                self.owners.entry(name.clone()).or_insert(place);
            }
            found.extend(names);
        }
        Ok(found)
    }

    fn observe(&mut self, bond: &BondName) -> Result<Option<Observed>, PlaneError> {
        if self.owners.contains_key(bond) {
            return self.of(bond).observe(bond);
        }
        let mut errors = Failures::default();
        for (place, plane) in self.planes.iter_mut().enumerate() {
            match plane.observe(bond) {
                Ok(Some(observed)) => {
                    self.owners.insert(bond.clone(), place);
                    return Ok(Some(observed));
                }
                seen => {
                    errors.note(seen.map(drop));
                }
            }
        }
        errors.result().map(|()| None)
    }

    fn create(&mut self, bond: &BondName, base: &BondBase) -> Result<BondDevice, PlaneError> {
        let place = self.choose(base)?;
        let device = self.planes[place].create(bond, base)?;
        self.owners.insert(bond.clone(), place);
        Ok(device)
    }

    /// What a port is does not depend on the plane.
    fn original(&mut self, port: PortId) -> Result<OriginalPort, PlaneError> {
        self.of("").original(port)
    }

    fn attach(&mut self, bond: &BondName, port: PortId, base: &PortBase) -> Result<(), PlaneError> {
        self.of(bond).attach(bond, port, base)
    }

    fn detach(&mut self, bond: &BondName, port: PortId, original: &OriginalPort) -> Result<(), PlaneError> {
        self.of(bond).detach(bond, port, original)
    }

    fn holds(&self, bond: &BondName, link: &Link) -> bool {
        let place = self.owners.get(bond).copied().unwrap_or(self.planes.len() - 1);
        self.planes[place].holds(bond, link)
    }

    fn hears_groups(&self, bond: &BondName, link: &Link) -> bool {
        let place = self.owners.get(bond).copied().unwrap_or(self.planes.len() - 1);
        self.planes[place].hears_groups(bond, link)
    }

    fn program(&mut self, bond: &BondName, plan: &Wanted) -> Applied {
        self.of(bond).program(bond, plan)
    }

    fn refresh(&mut self, bond: &BondName) -> Result<(), PlaneError> {
        self.of(bond).refresh(bond)
    }

    fn destroy(&mut self, bond: &BondName) -> Result<(), PlaneError> {
        let done = self.of(bond).destroy(bond);
        self.owners.remove(bond);
        done
    }

    fn renamed(&mut self, old: &str, new: &BondName) {
        self.of(old).renamed(old, new);
        if let Some(place) = self.owners.remove(old) {
            self.owners.insert(new.clone(), place);
        }
    }

    fn close(&mut self) -> io::Result<()> {
        self.planes.iter_mut().try_for_each(|plane| plane.close())
    }

    fn counters(&mut self, bond: &BondName, port: PortId) -> Result<PortCounters, PlaneError> {
        self.of(bond).counters(bond, port)
    }

    fn heard(&mut self, bond: &BondName, port: PortId) -> Result<ReceiveStamps, PlaneError> {
        self.of(bond).heard(bond, port)
    }

    fn event_fd(&self) -> Option<RawFd> {
        self.planes.iter().find_map(|plane| plane.event_fd())
    }

    fn read_events(&mut self, budget: usize) -> io::Result<Touched> {
        let plane = self.planes.iter_mut().find(|plane| plane.event_fd().is_some());
        plane.map_or_else(|| Ok(Touched::default()), |plane| plane.read_events(budget))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::script::ScriptPlane;

    fn base(plane: PlaneChoice, options: &str) -> BondBase {
        let pairs: Vec<(String, String)> = options
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        BondBase {
            plane,
            options: bond_modes::options::parse(&pairs).unwrap().options,
        }
    }

    fn planes() -> (ScriptPlane, ScriptPlane, Planes) {
        let (team, tc) = (ScriptPlane::named("team"), ScriptPlane::named("tc"));
        let planes = Planes::new(vec![Box::new(team.clone()), Box::new(tc.clone())]);
        (team, tc, planes)
    }

    #[test]
    fn auto_takes_the_first_plane_that_can_do_it_exactly() {
        let (team, _, mut planes) = planes();
        let create = |planes: &mut Planes, bond: &str, base: &BondBase| {
            planes.create(&bond.to_owned(), base).map(|_| planes.plane_of(bond))
        };
        team.cannot("packets_per_slave");
        assert_eq!(
            create(&mut planes, "bond0", &base(PlaneChoice::Auto, "mode=1")).unwrap(),
            "team"
        );
        let several = base(PlaneChoice::Auto, "mode=0 packets_per_slave=3");
        assert_eq!(create(&mut planes, "bond1", &several).unwrap(), "tc");
        let insists = base(PlaneChoice::Team, "mode=0 packets_per_slave=3");
        let error = create(&mut planes, "bond2", &insists).unwrap_err();
        assert!(error.to_string().contains("packets_per_slave"), "{error}");
        assert_eq!(
            create(&mut planes, "bond2", &base(PlaneChoice::Tc, "mode=1")).unwrap(),
            "tc"
        );
    }

    #[test]
    fn a_live_bond_is_bound_to_what_its_plane_can_do() {
        let (team, _, mut planes) = planes();
        team.cannot("packets_per_slave");
        let (one, two) = ("bond0".to_owned(), "bond1".to_owned());
        planes.create(&one, &base(PlaneChoice::Auto, "mode=0")).unwrap();
        planes.create(&two, &base(PlaneChoice::Tc, "mode=0")).unwrap();
        let several = base(PlaneChoice::Auto, "mode=0 packets_per_slave=3").options;
        assert!(planes.express_for(&one, &several).is_err());
        assert!(planes.express_for(&two, &several).is_ok());
    }

    #[test]
    fn a_bond_that_is_there_already_is_found_with_its_plane() {
        let (_, tc, mut before) = planes();
        before
            .create(&"bond0".to_owned(), &base(PlaneChoice::Tc, "mode=1"))
            .unwrap();
        let mut after = Planes::new(vec![Box::new(ScriptPlane::named("team")), Box::new(tc)]);
        assert!(after.observe(&"bond0".to_owned()).unwrap().is_some());
        assert_eq!(after.plane_of("bond0"), "tc");
        assert!(after.observe(&"bond1".to_owned()).unwrap().is_none());
    }

    #[test]
    fn without_any_plane_every_reason_is_told() {
        let (team, tc, mut planes) = planes();
        team.cannot("mode");
        tc.cannot("mode");
        let error = planes
            .create(&"bond0".to_owned(), &base(PlaneChoice::Auto, "mode=1"))
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("plane team: ") && text.contains("plane tc: "), "{text}");
    }

    fn broken() -> PlaneError {
        PlaneError::Kernel {
            doing: "look".to_owned(),
            source: io::Error::other("it is broken"),
        }
    }

    #[test]
    fn every_reason_is_told_with_its_cause() {
        let (team, tc, mut planes) = planes();
        team.fail_at(0, broken());
        tc.fail_at(0, broken());
        let error = planes.create(&"bond0".to_owned(), &base(PlaneChoice::Auto, "mode=1"));
        let text = error.unwrap_err().to_string();
        assert_eq!(text.matches("cannot look: it is broken").count(), 2, "{text}");
    }

    #[test]
    fn a_plane_that_fails_keeps_no_bond_of_another_from_being_found() {
        let (team, _, mut planes) = planes();
        let bond = "bond0".to_owned();
        planes.create(&bond, &base(PlaneChoice::Tc, "mode=1")).unwrap();
        planes.owners.clear();
        team.fail_at(0, broken());
        assert_eq!(planes.bonds().unwrap(), std::slice::from_ref(&bond));
        assert_eq!(planes.plane_of(&bond), "tc");
        planes.owners.clear();
        team.fail_at(0, broken());
        assert!(planes.observe(&bond).unwrap().is_some());
        team.fail_at(0, broken());
        assert!(planes.observe(&"bond1".to_owned()).is_err(), "it may be there");
    }
}

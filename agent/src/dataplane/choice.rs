//! The planes of this agent, and which of them a new bond gets.

use std::path::Path;
use std::sync::LazyLock;

use bond_modes::BondOptions;
use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::step::Failures;
use super::tc::{FailoverChoice, NewBonds, TcPlane};
use super::team::TeamPlane;
use super::{Adopted, BondDevice, BondName, Examiner, Plane, PlaneBond, PlaneError, PlaneReport, Watch, tc, team};
use crate::text::chain;

/// All planes of this agent, the preferred one first. To add one, make its folder beside this file and its row here.
pub const PLANES: [PlaneRow; 2] = [
    PlaneRow {
        name: team::NAME,
        about: "The kernel's team driver",
        check: team::exact::check,
        open: |_| Ok(Box::new(TeamPlane::open()?)),
    },
    PlaneRow {
        name: tc::NAME,
        about: "eBPF programs at the traffic control hooks",
        check: tc::check,
        open: |setup| Ok(Box::new(TcPlane::open(setup.run_dir, setup.tc, setup.failover)?)),
    },
];

/// A plane as the rest of the agent knows it before it is opened.
pub struct PlaneRow {
    name: &'static str,
    about: &'static str,
    /// Whether it does exactly what the options say, as far as that does not depend on the kernel.
    check: fn(&BondOptions) -> Result<(), PlaneError>,
    open: fn(&PlaneSetup<'_>) -> Result<Box<dyn Plane>, PlaneError>,
}

/// What planes are opened with.
pub struct PlaneSetup<'a> {
    /// The agent's run directory.
    pub run_dir: &'a Path,
    /// What new bonds on plane tc are made of.
    pub tc: NewBonds,
    /// Whether the kernel fails over by itself.
    pub failover: FailoverChoice,
}

/// Which plane a bond is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlaneChoice {
    /// The first of [`PLANES`] that does exactly what is asked for.
    #[default]
    Auto,
    /// The plane of this name.
    Only(&'static str),
}

impl PlaneChoice {
    /// From its name.
    pub fn parse(text: &str) -> Option<PlaneChoice> {
        let found = CHOICES.iter().find(|choice| choice.name() == text.trim());
        found.copied()
    }

    /// The names of all choices as a message lists them: `auto, team or tc`.
    pub fn expected() -> &'static str {
        static EXPECTED: LazyLock<String> = LazyLock::new(|| {
            let names = CHOICES.map(PlaneChoice::name);
            let (last, others) = names.split_last().expect("there is a plane");
            format!("{} or {last}", others.join(", "))
        });
        &EXPECTED
    }

    /// Whether a plane of this name will do.
    pub fn allows(self, plane: &str) -> bool {
        match self {
            PlaneChoice::Auto => true,
            PlaneChoice::Only(name) => name == plane,
        }
    }

    /// Whether the chosen plane does exactly what these options say, as far as that does not depend on the kernel. With
    /// [`PlaneChoice::Auto`] that is not asked: a plane that can is looked for when the bond is made.
    pub fn check(self, options: &BondOptions) -> Result<(), PlaneError> {
        let chosen = |row: &&PlaneRow| self == PlaneChoice::Only(row.name);
        PLANES.iter().find(chosen).map_or(Ok(()), |row| (row.check)(options))
    }

    fn name(self) -> &'static str {
        match self {
            PlaneChoice::Auto => "auto",
            PlaneChoice::Only(name) => name,
        }
    }
}

/// As values of a command line option, each with a line of help.
impl ValueEnum for PlaneChoice {
    fn value_variants<'a>() -> &'a [PlaneChoice] {
        &CHOICES
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let row = PLANES.iter().find(|row| row.name == self.name());
        let about = row.map_or(
            "The kernel's team driver if it can do what is asked for exactly, else eBPF",
            |row| row.about,
        );
        Some(PossibleValue::new(self.name()).help(about))
    }
}

static CHOICES: [PlaneChoice; PLANES.len() + 1] = {
    let mut all = [PlaneChoice::Auto; PLANES.len() + 1];
    let mut at = 0;
    while at < PLANES.len() {
        all[at + 1] = PlaneChoice::Only(PLANES[at].name);
        at += 1;
    }
    all
};

/// The opened planes of a network namespace, the preferred one first.
pub struct Planes {
    planes: Vec<Box<dyn Plane>>,
}

impl Planes {
    /// Opens all planes of this agent.
    ///
    /// # Errors
    /// The kernel refuses what a plane cannot do without, such as a netlink socket.
    pub fn open(setup: &PlaneSetup<'_>) -> Result<Planes, PlaneError> {
        let planes = PLANES.iter().map(|row| (row.open)(setup));
        Ok(Planes::new(planes.collect::<Result<_, _>>()?))
    }

    /// These planes, the preferred one first.
    pub fn new(planes: Vec<Box<dyn Plane>>) -> Planes {
        Planes { planes }
    }

    /// Whether this kernel has what one of them needs; else why the last one lacks it.
    pub fn probe(&mut self) -> Result<(), PlaneError> {
        let mut last = Ok(());
        for plane in &mut self.planes {
            last = plane.probe();
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// The first plane that the choice allows and that can do it, or why none can.
    fn choose(&mut self, choice: PlaneChoice, options: &BondOptions) -> Result<&mut dyn Plane, PlaneError> {
        let mut reasons = Vec::new();
        let mut chosen = None;
        for (place, plane) in self.planes.iter_mut().enumerate() {
            if !choice.allows(plane.name()) {
                continue;
            }
            match plane.probe().and_then(|()| plane.can(options)) {
                Ok(()) => {
                    chosen = Some(place);
                    break;
                }
                Err(error) => reasons.push((plane.name(), error)),
            }
        }
        if let Some(place) = chosen {
            return Ok(self.planes[place].as_mut());
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

    /// Makes a bond on the chosen plane; see [`Plane::create`].
    pub fn create(
        &mut self,
        name: &str,
        choice: PlaneChoice,
        options: &BondOptions,
    ) -> Result<(Box<dyn PlaneBond>, BondDevice), PlaneError> {
        self.choose(choice, options)?.create(name, options)
    }

    /// What examines them; see [`Plane::examiner`].
    pub fn examiners(&self) -> Examiners {
        Examiners(self.planes.iter().map(|plane| plane.examiner()).collect())
    }

    /// The names of all bonds of ours that the kernel has. A plane that cannot look for them is logged.
    pub fn bonds(&mut self) -> Vec<BondName> {
        let bonds = self.planes.iter_mut().flat_map(|plane| {
            plane.bonds().unwrap_or_else(|error| {
                log::error!("plane {}: cannot look for bonds: {}", plane.name(), chain(&error));
                Vec::new()
            })
        });
        bonds.collect()
    }

    /// Takes over what the kernel already does under this name, on any plane. An error if a plane could not look.
    pub fn adopt(&mut self, name: &str) -> Result<Option<Adopted>, PlaneError> {
        let mut errors = Failures::default();
        for plane in &mut self.planes {
            match plane.adopt(name) {
                Ok(Some(found)) => return Ok(Some(found)),
                seen => {
                    errors.note(seen.map(drop));
                }
            }
        }
        errors.result().map(|()| None)
    }

    /// The plane of this name.
    ///
    /// # Errors
    /// [`PlaneError::UnknownPlane`]
    pub fn known(&mut self, name: &str) -> Result<&mut dyn Plane, PlaneError> {
        match self.planes.iter_mut().find(|plane| plane.name() == name) {
            Some(plane) => Ok(plane.as_mut()),
            None => Err(PlaneError::UnknownPlane { name: name.to_owned() }),
        }
    }

    /// Names of the planes whose bonds stop forwarding although nobody removes them, each with the reason and what helps. One that
    /// this kernel cannot do is left out.
    pub fn short_lived(&mut self) -> Vec<(&'static str, String)> {
        let short_lived = self.planes.iter_mut().filter_map(|plane| {
            let why = plane.short_lived()?;
            plane.probe().is_ok().then(|| (plane.name(), why))
        });
        short_lived.collect()
    }

    /// What receives reports of changes, of the planes that have it; to be asked for once.
    pub fn watches(&mut self) -> Vec<Box<dyn Watch>> {
        self.planes.iter_mut().filter_map(|plane| plane.watch()).collect()
    }

    /// For an orderly stop without bonds: leaves nothing behind.
    pub fn close(&mut self) -> std::io::Result<()> {
        self.planes.iter_mut().try_for_each(|plane| plane.close())
    }
}

/// What examines all planes, the preferred one first. It needs none of them.
pub struct Examiners(Vec<Examiner>);

impl Examiners {
    /// Finds out what each plane can do here, and the name of the one that a bond with these options would get, if any. That is for
    /// another thread; see [`Plane::examiner`].
    pub fn examiner(
        &self,
        choice: PlaneChoice,
        options: BondOptions,
    ) -> impl FnOnce() -> (Vec<PlaneReport>, Option<String>) + Send + 'static {
        let examiners = self.0.clone();
        move || {
            let reports: Vec<PlaneReport> = examiners.iter().map(|examine| examine(&options)).collect();
            let is_possible = |report: &&PlaneReport| choice.allows(&report.plane) && report.usable && report.exact;
            let chosen = reports.iter().find(is_possible).map(|report| report.plane.clone());
            (reports, chosen)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::dataplane::script::ScriptPlane;

    fn options(text: &str) -> BondOptions {
        let pairs: Vec<(String, String)> = text
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        bond_modes::options::parse(&pairs).unwrap().options
    }

    fn planes() -> (ScriptPlane, ScriptPlane, Planes) {
        let (team, tc) = (ScriptPlane::named("team"), ScriptPlane::named("tc"));
        let planes = Planes::new(vec![Box::new(team.clone()), Box::new(tc.clone())]);
        (team, tc, planes)
    }

    const TEAM: PlaneChoice = PlaneChoice::Only("team");
    const TC: PlaneChoice = PlaneChoice::Only("tc");

    #[test]
    fn auto_takes_the_first_plane_that_can_do_it_exactly() {
        let (team, _, mut planes) = planes();
        let create = |planes: &mut Planes, bond: &str, choice, text: &str| {
            planes
                .create(bond, choice, &options(text))
                .map(|(bond, _)| bond.plane())
                .map_err(|error| error.to_string())
        };
        team.cannot("packets_per_slave");
        assert_eq!(
            create(&mut planes, "bond0", PlaneChoice::Auto, "mode=1").unwrap(),
            "team"
        );
        let several = "mode=0 packets_per_slave=3";
        assert_eq!(create(&mut planes, "bond1", PlaneChoice::Auto, several).unwrap(), "tc");
        let error = create(&mut planes, "bond2", TEAM, several).unwrap_err();
        assert!(error.contains("packets_per_slave"), "{error}");
        assert_eq!(create(&mut planes, "bond2", TC, "mode=1").unwrap(), "tc");
        let examiners = planes.examiners();
        drop(planes);
        let (reports, choice) = examiners.examiner(PlaneChoice::Auto, options(several))();
        let exact: Vec<bool> = reports.iter().map(|report| report.exact).collect();
        assert_eq!((exact, choice.as_deref()), (vec![false, true], Some("tc")));
        assert_eq!(examiners.examiner(TEAM, options(several))().1, None);
    }

    #[test]
    fn a_live_bond_is_bound_to_what_its_plane_can_do() {
        let (team, _, mut planes) = planes();
        team.cannot("packets_per_slave");
        let (mut one, _) = planes.create("bond0", PlaneChoice::Auto, &options("mode=0")).unwrap();
        let (mut two, _) = planes.create("bond1", TC, &options("mode=0")).unwrap();
        let several = options("mode=0 packets_per_slave=3");
        assert!(one.can(&several).is_err());
        assert!(two.can(&several).is_ok());
    }

    #[test]
    fn a_bond_that_is_there_already_is_found_with_its_plane() {
        let (_, tc, mut before) = planes();
        before.create("bond0", TC, &options("mode=1")).unwrap();
        let mut after = Planes::new(vec![Box::new(ScriptPlane::named("team")), Box::new(tc)]);
        let (found, _) = after.adopt("bond0").unwrap().unwrap();
        assert_eq!(found.plane(), "tc");
        assert!(after.adopt("bond1").unwrap().is_none());
        assert!(after.known("tc").is_ok() && after.known("other").is_err());
    }

    #[test]
    fn without_any_plane_every_reason_is_told() {
        let (team, tc, mut planes) = planes();
        team.cannot("mode");
        tc.cannot("mode");
        let error = planes.create("bond0", PlaneChoice::Auto, &options("mode=1")).err();
        let text = error.unwrap().to_string();
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
        let error = planes.create("bond0", PlaneChoice::Auto, &options("mode=1")).err();
        let text = error.unwrap().to_string();
        assert_eq!(text.matches("cannot look: it is broken").count(), 2, "{text}");
    }

    #[test]
    fn a_plane_that_fails_keeps_no_bond_of_another_from_being_found() {
        let (team, _, mut planes) = planes();
        planes.create("bond0", TC, &options("mode=1")).unwrap();
        team.fail_at(0, broken());
        assert_eq!(planes.bonds(), ["bond0"]);
        team.fail_at(0, broken());
        assert_eq!(planes.adopt("bond0").unwrap().unwrap().0.plane(), "tc");
        team.fail_at(0, broken());
        assert!(planes.adopt("bond1").is_err(), "it may be there");
    }

    #[test]
    fn every_plane_that_hears_of_changes_is_heard() {
        let (team, tc) = (ScriptPlane::named("team"), ScriptPlane::named("tc"));
        let mut planes = Planes::new(vec![Box::new(team.clone()), Box::new(tc.clone())]);
        assert_eq!(planes.watches().len(), 0);
        team.change_by_others(1);
        tc.change_by_others(2);
        let mut watches = planes.watches();
        drop(planes);
        let mut heard = || -> Vec<_> {
            let heard = watches.iter_mut().map(|watch| {
                let mut reports = Vec::new();
                watch.read_events(8, &mut reports).unwrap();
                (watch.plane(), reports.len())
            });
            heard.collect()
        };
        assert_eq!(heard(), [("team", 1), ("tc", 1)]);
        assert_eq!(heard(), [("team", 0), ("tc", 0)]);
    }

    #[test]
    fn choices_are_read_and_named_as_in_the_manual() {
        assert_eq!(PlaneChoice::expected(), "auto, team or tc");
        assert_eq!(PlaneChoice::parse(" team "), Some(TEAM));
        assert_eq!(PlaneChoice::parse("auto"), Some(PlaneChoice::Auto));
        assert_eq!(PlaneChoice::parse("Team"), None);
        assert!(TEAM.check(&options("mode=0")).is_err());
        assert!(TC.check(&options("mode=0")).is_ok());
        assert!(PlaneChoice::Auto.check(&options("mode=0")).is_ok());
    }
}

//! Makes bonds from the directives of all files, and checks their options.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::{Findings, Place};
use super::directives::MODULE;
use super::limits::{MOST_BONDS, MOST_IN_ALL};
use super::lines::words;
use super::modprobe::{Directive, DirectiveLine};
use super::names::{check_bond, free_name};
use super::option_list::set;
use super::pattern::is_pattern;
use super::ports::port_names;
use super::{BondSpec, SpecOption};

/// The options lines of one name together; a later line adds to an earlier one.
#[derive(Clone, Debug, Default)]
struct OptionLines {
    /// Of the first line.
    place: Option<Place>,
    /// Each name once.
    options: Vec<SpecOption>,
    ports: Option<(Place, Vec<String>)>,
    max_bonds: Option<(Place, usize)>,
}

/// Contents of the agent's own files.
pub(super) struct Own<'a> {
    directives: &'a [DirectiveLine],
    asked: Vec<(String, Place)>,
}

/// Bonds of the agent's own files, and the options for all of them.
pub(super) struct OwnBonds {
    /// In the order of their aliases, each with its own options.
    pub(super) bonds: Vec<BondSpec>,
    /// Options for every bond without a value of its own.
    pub(super) defaults: Vec<SpecOption>,
}

impl<'a> Own<'a> {
    /// Finds the bonds that the directives ask for.
    pub(super) fn new(directives: &'a [DirectiveLine], findings: &mut Findings) -> Own<'a> {
        Own {
            directives,
            asked: asked_for(directives, findings),
        }
    }

    /// Their names.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.asked.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The bonds with their options and ports; also those for bonds that a module's file makes, which are `made`.
    pub(super) fn bonds(self, made: &BTreeSet<String>, findings: &mut Findings) -> OwnBonds {
        let mut asked = self.asked;
        let mut lines: BTreeMap<&str, OptionLines> = BTreeMap::new();
        for line in self.directives {
            let Directive::Options { text } = &line.directive else {
                continue;
            };
            let name = line.name.as_str();
            if name != MODULE && made.contains(name) && asked.iter().all(|(bond, _)| bond != name) {
                asked.push((name.to_owned(), line.place.clone()));
            }
            if name == MODULE || asked.iter().any(|(bond, _)| bond == name) {
                lines.entry(name).or_default().read(name, &line.place, text, findings);
            } else if name.starts_with("bond") {
                let text = format!("options for {name}, which no line makes, expected `alias {name} {MODULE}`");
                findings.warning(&line.place, text);
            }
        }
        let defaults = lines.remove(MODULE).unwrap_or_default();
        OwnBonds {
            bonds: make_bonds(asked, &lines, &defaults, findings),
            defaults: defaults.options,
        }
    }
}

/// Bonds that an alias asks for. A later alias of the same name replaces an earlier one.
fn asked_for(directives: &[DirectiveLine], findings: &mut Findings) -> Vec<(String, Place)> {
    let mut asked: Vec<(String, Place)> = Vec::new();
    for DirectiveLine { place, name, directive } in directives {
        let Directive::Alias { module } = directive else {
            continue;
        };
        let earlier = asked.iter().position(|(bond, _)| bond == name);
        match (module == MODULE, earlier) {
            (true, Some(at)) => findings.warning(place, format!("{name} was asked for before, at {}", asked[at].1)),
            (true, None) if is_pattern(name) => {
                findings.warning(
                    place,
                    format!("{name} is a pattern and makes no bond, expected a bond's name"),
                );
            }
            (true, None) if asked.len() >= MOST_IN_ALL => {
                findings.error(place, format!("more than {MOST_IN_ALL} bonds, expected fewer"));
            }
            (true, None) => match check_bond(name) {
                Ok(()) => asked.push((name.clone(), place.clone())),
                Err(wrong) => findings.error(place, wrong),
            },
            (false, Some(at)) => {
                let (_, before) = asked.remove(at);
                findings.warning(place, format!("no bond {name}: this line replaces {before}"));
            }
            (false, None) => {}
        }
    }
    asked
}

impl OptionLines {
    /// Adds the words of a further line.
    fn read(&mut self, owner: &str, place: &Place, text: &str, findings: &mut Findings) {
        self.place.get_or_insert_with(|| place.clone());
        let words = match words(text) {
            Ok(words) => words,
            Err(quote) => return findings.error(place, format!("{quote} is never closed, expected a second {quote}")),
        };
        if words.is_empty() {
            findings.error(
                place,
                format!("no options for {owner}, expected `options {owner} option=value ...`"),
            );
        }
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.split_once('=') {
                // The name that a further instance of the module was loaded under; bonds need none. [modprobe(8)]
                _ if word == "-o" => {
                    if words.next().is_none() {
                        findings.error(place, "-o without a name, expected `-o <name>`");
                    }
                }
                // A module option against unloading, which does not concern bonds. [modules.conf(5)]
                _ if word == "-k" => {}
                Some((name, value)) if !name.is_empty() => {
                    self.take(owner, &name.replace('-', "_"), value, place, findings);
                }
                _ => findings.error(place, format!("{word:?} is not an option, expected option=value")),
            }
        }
    }

    fn take(&mut self, owner: &str, name: &str, value: &str, place: &Place, findings: &mut Findings) {
        let before = match name {
            "slaves" if owner == MODULE => {
                let text = format!("slaves for all bonds, expected it in `options <bond> slaves={value}`");
                return findings.error(place, text);
            }
            "slaves" => {
                let ports = port_names(owner, value, place, findings);
                self.ports.replace((place.clone(), ports)).map(|(before, _)| before)
            }
            "max_bonds" => match value.parse() {
                Ok(number) if number <= MOST_BONDS => self.max_bonds.replace((place.clone(), number)).map(|(b, _)| b),
                _ => {
                    let text = format!("max_bonds={value}, expected a number from 0 to {MOST_BONDS}");
                    return findings.error(place, text);
                }
            },
            _ => {
                let option = SpecOption {
                    name: name.to_owned(),
                    value: value.to_owned(),
                    place: place.clone(),
                };
                set(&mut self.options, option).map(|before| before.place)
            }
        };
        if let Some(before) = before {
            let text = format!("{name} is given again, the value at {before} has no effect");
            findings.warning(place, text);
        }
    }
}

/// Each bond with its own options, and the bonds that `max_bonds` adds.
fn make_bonds(
    asked: Vec<(String, Place)>,
    lines: &BTreeMap<&str, OptionLines>,
    defaults: &OptionLines,
    findings: &mut Findings,
) -> Vec<BondSpec> {
    let without_lines = OptionLines::default();
    let mut made = Made {
        taken: asked.iter().map(|(name, _)| name.clone()).collect(),
        bonds: Vec::new(),
    };
    for (name, place) in asked {
        let own = lines.get(name.as_str()).unwrap_or(&without_lines);
        let spares = own.max_bonds.as_ref().map_or(0, |(_, n)| n.saturating_sub(1));
        made.bonds.push(own.bond(name, &place));
        if made.bonds.len() + spares > MOST_IN_ALL {
            findings.error(&place, format!("more than {MOST_IN_ALL} bonds, expected fewer"));
            continue;
        }
        made.add(spares, &own.options, &place);
    }
    if let Some(place) = &defaults.place {
        let wanted = defaults.bonds_of_module(made.bonds.is_empty(), findings);
        made.add(wanted.saturating_sub(made.bonds.len()), &[], place);
    }
    made.bonds
}

impl OptionLines {
    /// The bond that these lines are about.
    fn bond(&self, name: String, place: &Place) -> BondSpec {
        let (ports_place, ports) = self.ports.clone().unzip();
        BondSpec {
            alias: Some(name.clone()),
            name,
            given: self.options.clone(),
            options: self.options.clone(),
            ports: ports.unwrap_or_default(),
            ports_place,
            place: place.clone(),
        }
    }

    /// How many bonds there are at least if these lines are for the module. `options bonding` alone is the module loaded by its own
    /// name: it makes one bond. [bond_main.c: bonding_init]
    fn bonds_of_module(&self, alone: bool, findings: &mut Findings) -> usize {
        match &self.max_bonds {
            Some((place, 0)) => {
                if alone {
                    findings.info(place, "max_bonds=0: no bond is made");
                }
                0
            }
            Some((_, wanted)) => *wanted,
            None => 1,
        }
    }
}

/// Bonds that were made, and their names.
struct Made {
    taken: BTreeSet<String>,
    bonds: Vec<BondSpec>,
}

impl Made {
    /// Adds bonds that `max_bonds` asks for, with the lowest free numbers.
    fn add(&mut self, count: usize, options: &[SpecOption], place: &Place) {
        for _ in 0..count {
            let name = free_name(&self.taken);
            self.taken.insert(name.clone());
            self.bonds.push(BondSpec {
                name,
                alias: None,
                given: options.to_vec(),
                options: options.to_vec(),
                ports: Vec::new(),
                ports_place: None,
                place: place.clone(),
            });
        }
    }
}

/// Drops bonds beyond the limit.
pub(super) fn limit(bonds: &mut Vec<BondSpec>, findings: &mut Findings) {
    if let Some(bond) = bonds.get(MOST_IN_ALL) {
        findings.error(&bond.place, format!("more than {MOST_IN_ALL} bonds, expected fewer"));
        bonds.truncate(MOST_IN_ALL);
    }
}

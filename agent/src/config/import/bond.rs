//! A bond as another tool's files ask for it.

use crate::config::SpecOption;
use crate::config::diagnostic::{Findings, Place, Severity};
use crate::config::option_list::{self, switched_on, take};

/// Most ports, options and targets of one bond that are read.
const MOST_WORDS: usize = 1024;

/// A bond as the tool would have made it.
#[derive(Clone, Debug)]
pub(super) struct Bond {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) options: Vec<SpecOption>,
    /// Each once.
    pub(super) ports: Vec<(String, Place)>,
    /// A part of it could not be read, so the imported bond would differ; it was reported.
    pub(super) is_broken: bool,
}

/// The bond of this name; added, with this place, if it is missing.
pub(super) fn named<'a>(bonds: &'a mut Vec<Bond>, name: &str, place: &Place) -> &'a mut Bond {
    let at = bonds.iter().position(|bond| bond.name == name).unwrap_or_else(|| {
        bonds.push(Bond::new(name, place));
        bonds.len() - 1
    });
    &mut bonds[at]
}

impl Bond {
    pub(super) fn new(name: &str, place: &Place) -> Bond {
        Bond {
            name: name.to_owned(),
            place: place.clone(),
            options: Vec::new(),
            ports: Vec::new(),
            is_broken: false,
        }
    }

    /// Reads a word as scripts write it to the driver's files: the name ends at the first `=`, the value begins after the last
    /// one. Targets are added to the list, of other options the last value counts. [initscripts: ifup-eth; dracut: ifup.sh]
    pub(super) fn write(&mut self, word: &str, place: &Place, findings: &mut Findings) {
        let name = word.split('=').next().unwrap_or(word).replace('-', "_");
        let value = word.rsplit('=').next().unwrap_or(word);
        if name.is_empty() || !word.contains('=') {
            self.is_broken |= name == "mode";
            let text = format!("{word:?} is not imported: not an option, expected option=value");
            return findings.error(place, text);
        }
        if word.matches('=').count() > 1 {
            let text = format!("{word} is taken as {name}={value}, as the scripts take it, expected one =");
            findings.warning(place, text);
        }
        if name.ends_with("_target") {
            if self.has_room(value.split(',').count(), findings) {
                self.add_targets(&name, value, place);
            }
            return;
        }
        let option = SpecOption {
            name,
            value: value.to_owned(),
            place: place.clone(),
        };
        self.set(option, findings);
    }

    /// Gives an option its value; of two the later one counts.
    pub(super) fn set(&mut self, option: SpecOption, findings: &mut Findings) {
        if !self.has_room(self.options.len(), findings) {
            return;
        }
        let (place, now) = (option.place.clone(), option.value.clone());
        if let Some(before) = option_list::set(&mut self.options, option).filter(|before| before.value != now) {
            let SpecOption { name, value, .. } = &before;
            let text = format!("{name} is given again, {value} at {} has no effect", before.place);
            findings.warning(&place, text);
        }
    }

    fn add_targets(&mut self, name: &str, list: &str, place: &Place) {
        let targets: Vec<&str> = list
            .split(',')
            .map(|target| target.strip_prefix('+').unwrap_or(target))
            .collect();
        let more = targets.join(",");
        match self.options.iter_mut().find(|option| option.name == name) {
            Some(before) => before.value = format!("{},{more}", before.value),
            None => self.options.push(SpecOption {
                name: name.to_owned(),
                value: more,
                place: place.clone(),
            }),
        }
    }

    pub(super) fn port(&mut self, name: &str, place: &Place, findings: &mut Findings) {
        if self.ports.iter().all(|(port, _)| port != name) && self.has_room(self.ports.len(), findings) {
            self.ports.push((name.to_owned(), place.clone()));
        }
    }

    /// Whether the limit is not reached yet.
    fn has_room(&mut self, many: usize, findings: &mut Findings) -> bool {
        if many >= MOST_WORDS && !std::mem::replace(&mut self.is_broken, true) {
            let text = format!(
                "{} has more than {MOST_WORDS} ports, options or targets, expected fewer",
                self.name
            );
            findings.error(&self.place, text);
        }
        many < MOST_WORDS
    }

    /// If both monitors are set one after the other, the later one stays. [bond_options.c: bond_option_miimon_set]
    pub(super) fn keep_last_monitor(&mut self, findings: &mut Findings) {
        let on = |name| switched_on(&self.options, name).cloned();
        let (Some(mii), Some(arp)) = (on("miimon"), on("arp_interval")) else {
            return;
        };
        let place = |name: &str| self.options.iter().position(|option| option.name == name);
        let (lost, kept) = if place("miimon") < place("arp_interval") {
            (mii, arp)
        } else {
            (arp, mii)
        };
        take(&mut self.options, &lost.name);
        let text = format!(
            "{}={} has no effect, because {}={} is set after it, at {}, expected one monitor for a bond",
            lost.name, lost.value, kept.name, kept.value, kept.place
        );
        findings.warning(&lost.place, text);
    }
}

/// Adds findings about settings of a bond that are not options.
pub(super) fn by_hand(place: &Place, what: &str, command: &str, findings: &mut Findings) {
    let text = format!("{what} is not an option of bondd, expected `{command}` where the addresses are set");
    findings.add(Severity::Warning, "by-hand", place, text);
}

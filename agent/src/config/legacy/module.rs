//! One load of the kernel's module: the loader turns words into parameters, the driver corrects or refuses them and makes
//! devices. [insmod: obj_gpl/insmod.c; kernel/params.c: parse_args; bond_main.c: bond_check_params]

use std::collections::BTreeSet;

use bond_modes::options::{ModeName, Modes, OptionRow, TABLE, find, is_absent_parameter, is_interface_name, parse};
use bond_modes::{BondOptions, Spread};

use crate::config::diagnostic::{Code, Findings, Place, Severity};
use crate::config::kernel_words::Word;
use crate::config::limits::{MOST_BONDS, MOST_IN_ALL, MOST_WORDS};
use crate::config::names::free_name;
use crate::config::option_list::{number, set, take};
use crate::config::ports::port_names;
use crate::config::{BondSpec, Check, Grammar, SpecOption, parameters};

mod value;

use value::{Bad, Parameter, Value};

/// Bytes of the longest interface name. [if.h: IFNAMSIZ]
const LONGEST_NAME: usize = 15;

/// A request for the module, with all its words.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// The requested name; `None` for the module's own.
    pub(super) alias: Option<String>,
    /// The line of the request.
    pub(super) place: Place,
    pub(super) words: Vec<Word>,
}

/// The module and the devices that it made.
pub(super) struct Module<'a> {
    pub(super) made: Made,
    taken: BTreeSet<String>,
    /// Bonds of the agent's own files.
    own: &'a BTreeSet<String>,
    check: Check<'a>,
}

/// Result of the loads.
#[derive(Default)]
pub(in crate::config) struct Made {
    pub(in crate::config) bonds: Vec<BondSpec>,
    /// Options of a load that made no device: the defaults of bonds made later. [bond_main.c: bonding_defaults]
    pub(in crate::config) defaults: Vec<SpecOption>,
}

/// The values given to one load.
#[derive(Default)]
struct Given {
    options: Vec<SpecOption>,
    ports: Option<(Place, Vec<String>)>,
    max_bonds: Option<(Place, i64)>,
}

impl<'a> Module<'a> {
    /// A module that is not loaded, beside the bonds of the agent's own files.
    pub(super) fn new(own: &'a BTreeSet<String>, check: Check<'a>) -> Self {
        Module {
            made: Made::default(),
            taken: BTreeSet::new(),
            own,
            check,
        }
    }

    /// Whether the agent's own files have a bond of this name that the module has not made.
    pub(super) fn is_awaited(&self, name: &str) -> bool {
        self.own.contains(name) && !self.taken.contains(name)
    }

    /// Loads the module; false if that fails and it makes no device.
    pub(super) fn load(&mut self, load: &Load, grammar: Grammar, findings: &mut Findings) -> bool {
        let errors = findings.errors();
        if load.words.len() > MOST_WORDS {
            findings.error(&load.place, format!("more than {MOST_WORDS} options, expected fewer"));
            return false;
        }
        let mut given = Given::default();
        for word in &load.words {
            given.take(word, load, grammar, findings);
        }
        if findings.errors() > errors {
            return false;
        }
        let devices = given.devices(grammar, findings);
        let mut options = given.options.clone();
        self.correct(&mut options, load, grammar, findings);
        if findings.errors() > errors {
            return false;
        }
        self.create(given, options, load, devices, findings);
        true
    }

    /// Applies the driver's corrections, and reports values that it refuses.
    fn correct(&self, options: &mut Vec<SpecOption>, load: &Load, grammar: Grammar, findings: &mut Findings) {
        let errors = findings.errors();
        reset_ranges(options, findings);
        leave_other_modes(options, findings);
        leave_unread(options, findings);
        name_primary(options, grammar, findings);
        parameters::apply_module_rules(options, grammar, findings);
        round_delays(options, findings);
        if findings.errors() > errors {
            return;
        }
        let pairs: Vec<(String, String)> = options.iter().map(SpecOption::pair).collect();
        for (index, wrong) in (self.check)(&pairs) {
            let place = options.get(index).map_or(&load.place, |option| &option.place);
            findings.add(Severity::Error, "bad-value", place, wrong);
        }
        watch(options, load, findings);
    }

    fn create(&mut self, given: Given, options: Vec<SpecOption>, load: &Load, devices: usize, findings: &mut Findings) {
        let (ports_place, ports) = given.ports.unzip();
        let mut bond = BondSpec {
            name: String::new(),
            alias: load.alias.clone(),
            options,
            given: given.options,
            ports: ports.unwrap_or_default(),
            ports_place,
            place: load.place.clone(),
        };
        if devices == 0 {
            self.made.defaults = bond.options;
            return;
        }
        for _ in 0..devices {
            if self.made.bonds.len() >= MOST_IN_ALL {
                return findings.error(&load.place, format!("more than {MOST_IN_ALL} bonds, expected fewer"));
            }
            // A request under the name of a bond of the agent's own files means that bond.
            bond.name = match &bond.alias {
                Some(alias) if self.is_awaited(alias) => alias.clone(),
                _ => free_name(&self.taken),
            };
            self.taken.insert(bond.name.clone());
            if let Some(alias) = bond.alias.as_ref().filter(|alias| **alias != bond.name) {
                let text = format!(
                    "{alias} gets the name {}, because the module takes the lowest free number, expected requests \
                     for bond0, bond1 and so on without a gap",
                    bond.name
                );
                findings.add(Severity::Warning, "alias-name-mismatch", &load.place, text);
            }
            self.made.bonds.push(bond.clone());
            (bond.alias, bond.ports, bond.ports_place) = (None, Vec::new(), None);
        }
    }
}

impl Given {
    fn take(&mut self, word: &Word, load: &Load, grammar: Grammar, findings: &mut Findings) {
        let name = match grammar {
            Grammar::ModulesConf => word.name.clone(),
            _ => word.name.replace('-', "_"),
        };
        let Some(parameter) = Parameter::of(&name, grammar) else {
            return unknown(word, grammar, findings);
        };
        let value = match parameter.value(word.value.as_deref(), grammar) {
            Ok(value) => value,
            Err(bad) => return refuse(word, bad, findings),
        };
        let place = word.place.clone();
        let before = match value {
            Value::Untouched => return,
            Value::Number(number) if parameter == Parameter::MaxBonds => {
                self.max_bonds.replace((place, number)).map(|_| ())
            }
            Value::Text(list) if parameter == Parameter::Ports => {
                let owner = load.alias.as_deref().unwrap_or_default();
                let ports = port_names(owner, &list, &place, findings);
                self.ports.replace((place, ports)).map(|_| ())
            }
            Value::Number(number) => self.set(name, number.to_string(), place),
            Value::Prefix(text) => {
                let wanted = format!("{}={} is taken as {text}, expected exactly that", word.name, show(word));
                findings.add(Severity::Warning, "mode-prefix-match", &word.place, wanted);
                self.set(name, text, place)
            }
            Value::Text(text) => self.set(name, text, place),
        };
        if before.is_some() {
            let text = format!(
                "{} is given again, its earlier value has no effect, expected it once",
                word.name
            );
            findings.add(Severity::Warning, "duplicate-option", &word.place, text);
        }
    }

    fn set(&mut self, name: String, value: String, place: Place) -> Option<()> {
        set(&mut self.options, SpecOption { name, value, place }).map(|_| ())
    }

    /// The number of devices.
    fn devices(&self, grammar: Grammar, findings: &mut Findings) -> usize {
        let Some((place, number)) = &self.max_bonds else {
            return 1;
        };
        match number {
            0 if grammar != Grammar::ModulesConf => {
                findings.add(
                    Severity::Info,
                    "max_bonds-zero",
                    place,
                    "max_bonds=0: no bond is made".to_owned(),
                );
                0
            }
            ..=0 => {
                let text = format!("max_bonds={number} counts as 1, expected 1 or more");
                findings.add(Severity::Warning, "max_bonds-range", place, text);
                1
            }
            _ if *number > MOST_BONDS as i64 => {
                let text = format!("max_bonds={number}, expected at most {MOST_BONDS}");
                findings.add(Severity::Error, "too-many-bonds", place, text);
                0
            }
            _ => usize::try_from(*number).unwrap_or(MOST_BONDS),
        }
    }
}

fn show(word: &Word) -> &str {
    word.value.as_deref().unwrap_or_default()
}

fn unknown(word: &Word, grammar: Grammar, findings: &mut Findings) {
    let name = &word.name;
    if is_absent_parameter(name) {
        let text = format!("{name} is for modes that bondd does not have, it sets nothing, expected it to be left out");
        return findings.add(Severity::Warning, "unsupported-option", &word.place, text);
    }
    if grammar == Grammar::ModulesConf {
        let hint = match find(name) {
            Some(row) if row.name == *name => {
                "; the driver of Linux 2.4 does not have it: bondd's own files and modprobe.d do".to_owned()
            }
            // The loader compares names byte for byte.
            Some(row) => format!("; it is spelt {} here", row.name),
            None => String::new(),
        };
        let text =
            format!("{name} is no parameter of the driver, so that it is not loaded, expected a known one{hint}");
        return findings.add(Severity::Error, "unknown-option", &word.place, text);
    }
    let hint = match name.as_str() {
        name if find(name).is_some() => "; it is set on a bond that is there, expected it in a file of bondd's own",
        "-o" => "; kmod cannot rename a module, expected max_bonds for more bonds",
        word if word.starts_with('#') => "; a comment begins in the first column only",
        _ => ", expected a known one or nothing",
    };
    let text = format!("{name:?} is no parameter of the driver, which ignores it{hint}");
    findings.add(Severity::Warning, "unknown-option", &word.place, text);
}

/// All modes, as a message lists them.
fn modes() -> String {
    find("mode").map_or_else(|| "a mode".to_owned(), OptionRow::expected)
}

fn refuse(word: &Word, bad: Bad, findings: &mut Findings) {
    let (name, value) = (&word.name, show(word));
    let (code, text) = match bad {
        Bad::Integer => ("bad-integer", format!("{name}={value}: expected a number, digits only")),
        Bad::Missing => (
            "missing-value",
            format!("{name} without a value, expected {name}=value"),
        ),
        Bad::TooMany(most) => (
            "too-many-values",
            format!("{name}={value}: too many values, expected at most {most} and no comma after the last"),
        ),
        Bad::Mode => (
            "bad-mode",
            format!("{name}={value}: no such mode, expected {}", modes()),
        ),
        Bad::UnsupportedMode => (
            "unsupported-mode",
            format!("{name}={value}: bondd does not have this mode, expected {}", modes()),
        ),
        Bad::Multicast => (
            "bad-multicast",
            format!("{name}={value}: expected all, active or disabled (0 to 2)"),
        ),
    };
    findings.add(Severity::Error, code, &word.place, text);
}

/// Numbers out of range are as if they were not given. [bond_main.c: bond_check_params]
fn reset_ranges(options: &mut Vec<SpecOption>, findings: &mut Findings) {
    for row in TABLE.iter().filter(|row| row.is_parameter()) {
        let Some((least, most)) = row.range().map(|range| range.into_inner()) else {
            continue;
        };
        for name in row.names() {
            if number(options, name).is_some_and(|n| !(i64::from(least)..=i64::from(most)).contains(&n)) {
                let expected = format!("expected {least} to {most}");
                leave(options, name, format!("{name}-range"), &expected, findings);
            }
        }
    }
}

/// Removes an option that the driver ignores.
fn leave(options: &mut Vec<SpecOption>, name: &str, code: impl Into<Code>, expected: &str, findings: &mut Findings) {
    if let Some(option) = take(options, name) {
        let text = format!("{name}={} has no effect, {expected}", option.value);
        findings.add(Severity::Warning, code, &option.place, text);
    }
}

/// Options of other modes are ignored.
fn leave_other_modes(options: &mut Vec<SpecOption>, findings: &mut Findings) {
    let mode = mode(options);
    for row in TABLE.iter().filter(|row| !row.modes.contain(mode)) {
        let Modes::Only(only) = row.modes else { continue };
        for name in row.names() {
            let code = if name == "primary" {
                "primary-ignored"
            } else {
                "option-ignored"
            };
            let expected = format!("because the mode is {mode}, expected mode={only} with it");
            leave(options, name, code, &expected, findings);
        }
    }
}

/// The effective mode.
fn mode(options: &[SpecOption]) -> ModeName {
    let given = options.iter().find(|option| option.name == "mode");
    let named = |option: &SpecOption| {
        let mut modes = ModeName::VALUES.iter();
        modes.find(|(_, name, _)| *name == option.value).map(|(mode, ..)| *mode)
    };
    given.and_then(named).unwrap_or(BondOptions::default().mode)
}

/// Whether a mode spreads frames by their hash.
fn hashes(mode: ModeName) -> bool {
    let options = BondOptions {
        mode,
        ..BondOptions::default()
    };
    matches!(bond_modes::spread(&options), Spread::Hash(_))
}

/// Values that the driver ignores or replaces by the default, so that the module loads even with bad ones.
/// [bond_main.c: bond_check_params]
fn leave_unread(options: &mut Vec<SpecOption>, findings: &mut Findings) {
    let code = "option-ignored";
    if !hashes(mode(options)) {
        let hashing = ModeName::VALUES.iter().filter(|(mode, ..)| hashes(*mode));
        let modes: Vec<String> = hashing.map(|(_, name, _)| format!("mode={name}")).collect();
        let expected = format!("expected {} with it", modes.join(" or "));
        leave(options, "xmit_hash_policy", code, &expected, findings);
    }
    if !options.iter().any(|option| option.name == "primary") {
        leave(options, "primary_reselect", code, "expected primary with it", findings);
    }
    let targets = options.iter().find(|option| option.name == "arp_all_targets");
    if targets.is_some_and(|option| parse(&[option.pair()]).is_err()) {
        leave(
            options,
            "arp_all_targets",
            code,
            "expected any or all (0 or 1)",
            findings,
        );
    }
}

/// A preferred port with an impossible name: the driver of 2.4 waits for it in vain, today's driver waits for an interface with
/// the first 15 bytes of the name. Neither reports it. [bond_main.c: bond_check_params, strscpy_pad]
fn name_primary(options: &mut Vec<SpecOption>, grammar: Grammar, findings: &mut Findings) {
    let Some(option) = options.iter_mut().find(|option| option.name == "primary") else {
        return;
    };
    if option.value.is_empty() || is_interface_name(&option.value) {
        return;
    }
    let cut = option.value.get(..LONGEST_NAME).filter(|cut| is_interface_name(cut));
    if let Some(cut) = cut.filter(|_| grammar != Grammar::ModulesConf).map(str::to_owned) {
        let text = format!(
            "primary={} is taken as {cut}, because interface names end after {LONGEST_NAME} bytes, expected exactly that",
            option.value
        );
        findings.add(Severity::Warning, "primary-truncated", &option.place, text);
        option.value = cut;
    } else {
        let expected = "because no interface can have this name, expected one of 1 to 15 bytes";
        leave(options, "primary", "primary-ignored", expected, findings);
    }
}

/// A delay is a multiple of the monitor's interval.
fn round_delays(options: &mut [SpecOption], findings: &mut Findings) {
    let Some(miimon) = number(options, "miimon").filter(|miimon| *miimon > 0) else {
        return;
    };
    for (name, code) in [("updelay", "updelay-rounded"), ("downdelay", "downdelay-rounded")] {
        let Some(option) = options.iter_mut().find(|option| option.name == name) else {
            continue;
        };
        let Some((delay, rest)) = option.value.parse::<i64>().ok().map(|delay| (delay, delay % miimon)) else {
            continue;
        };
        if rest != 0 {
            let rounded = delay - rest;
            let text = format!("{name}={delay} is rounded down to {rounded}, expected a multiple of miimon={miimon}");
            findings.add(Severity::Warning, code, &option.place, text);
            option.value = rounded.to_string();
        }
    }
}

/// Reports a driver without a monitor.
fn watch(options: &[SpecOption], load: &Load, findings: &mut Findings) {
    let miimon = number(options, "miimon");
    if miimon.is_some_and(|miimon| miimon > 0) || number(options, "arp_interval").is_some_and(|interval| interval > 0) {
        return;
    }
    let here = match miimon {
        Some(_) => "here too, because miimon=0 is asked for",
        None => "bondd takes miimon=100",
    };
    let text = format!(
        "the kernel's module would have no monitor ({here}), expected miimon=100, or arp_interval and \
         arp_ip_target"
    );
    findings.add(Severity::Warning, "no-link-monitoring", &load.place, text);
}

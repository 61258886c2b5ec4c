//! What one row of the option table says.

use std::ops::RangeInclusive;

use super::change::Change;
use super::shown::OptionValue;
use super::value::Range;
use super::{BondOptions, OptionError};
use crate::mode::ModeName;

/// When an option may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetWhen {
    /// At any time.
    Always,
    /// While the bond has no ports.
    Empty,
    /// While the bond has no ports and is down.
    EmptyAndDown,
}

/// In which modes an option may be set. [bond_options.c: unsuppmodes]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modes {
    /// In all.
    All,
    /// Only in this one.
    Only(ModeName),
}

impl Modes {
    /// Their names, for messages.
    pub fn names(self) -> &'static str {
        match self {
            Modes::All => "of any kind",
            Modes::Only(only) => only.name(),
        }
    }

    /// Whether the option may be set in that mode.
    pub fn contain(self, mode: ModeName) -> bool {
        match self {
            Modes::All => true,
            Modes::Only(only) => only == mode,
        }
    }
}

/// Kind of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Number(Range),
    /// 0 or 1.
    Switch,
    /// One of these names, each with its number in the kernel's driver.
    Choice(&'static [(&'static str, u8)]),
    /// The name of an interface.
    Name,
    /// Several addresses.
    List,
}

/// Availability of an option in the kernel's driver. [bond_main.c: module_param]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// A parameter of its module since Linux 2.4. [bonding.txt of 2003]
    Linux24,
    /// A parameter of its module.
    Module,
    /// Not a parameter: it is set on an existing bond.
    Later,
    /// Only in bondd.
    Ours,
}

/// Files of the driver that show an option. [bond_sysfs.c]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// None.
    None,
    /// One with the kernel's name.
    Name,
    /// One for each of its names.
    EveryName,
}

/// Parser of a value.
#[derive(Clone, Copy)]
pub(super) enum Parse {
    /// From a text; false for a bad one.
    Text(fn(&str, &mut Change) -> bool),
    /// From a number in the range of the kind.
    Number(fn(u32, &mut Change)),
    /// From a number in the range of the kind, rounded down to a multiple of miimon.
    Delay(fn(u32, &mut Change)),
}

/// One option.
pub struct OptionRow {
    /// The kernel's name.
    pub name: &'static str,
    /// Other names of the same option.
    pub aliases: &'static [&'static str],
    /// Unit of its number; empty for none.
    pub unit: &'static str,
    /// Its default.
    pub default: &'static str,
    /// The expected values of a name or a list; those of other kinds follow from the kind.
    pub(super) takes: &'static str,
    /// In which modes it may be set.
    pub modes: Modes,
    /// When it may change.
    pub set_when: SetWhen,
    /// It needs the MII monitor.
    pub needs_miimon: bool,
    /// One or two sentences for help and man page.
    pub doc: &'static str,
    /// Kind of its value.
    pub kind: Kind,
    /// Named values of the kernel's driver that bondd does not have, each with its number.
    pub absent: &'static [(&'static str, u8)],
    /// Its availability in the kernel's driver.
    pub since: Since,
    /// Files that show it.
    pub files: Files,
    /// Parser of a value.
    pub(super) parse: Parse,
    /// Source of its effective value.
    pub(super) show: Show,
}

/// Source of an option's effective value.
#[derive(Clone, Copy)]
pub(super) enum Show {
    /// In the bond's options.
    Stored(fn(&BondOptions) -> OptionValue),
    /// It is state: which port is active.
    ActivePort,
}

impl Show {
    pub(super) fn value(self, options: &BondOptions, active: Option<&str>) -> OptionValue {
        match self {
            Show::Stored(show) => show(options),
            Show::ActivePort => active.map_or(OptionValue::None, |name| OptionValue::Name(name.to_owned())),
        }
    }
}

impl OptionRow {
    /// All its names, the kernel's first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// Parses a text; false for a bad value.
    pub(super) fn parse(&self, text: &str, change: &mut Change) -> bool {
        match (self.parse, self.kind) {
            (Parse::Text(parse), _) => parse(text, change),
            (Parse::Number(set), Kind::Number(range)) => store(range.parse(text), |value| set(value, change)),
            (Parse::Delay(set), Kind::Number(range)) => store(range.parse(text), |value| {
                let value = change.round(self.name, value);
                set(value, change);
            }),
            (Parse::Number(_) | Parse::Delay(_), _) => false,
        }
    }

    /// As [`OptionRow::parse`], for a value that was in force: a delay was rounded by the miimon of that time.
    pub(super) fn restore(&self, text: &str, change: &mut Change) -> bool {
        match (self.parse, self.kind) {
            (Parse::Delay(set), Kind::Number(range)) => store(range.parse(text), |value| set(value, change)),
            _ => self.parse(text, change),
        }
    }

    /// The error for a bad value.
    pub(super) fn refuses(&self, value: &str) -> OptionError {
        let (option, value, expected) = (self.name, value.to_owned(), self.expected());
        if self.lacks(&value) {
            OptionError::AbsentValue {
                option,
                value,
                expected,
            }
        } else {
            OptionError::BadValue {
                option,
                value,
                expected,
            }
        }
    }

    /// Whether it is, by name or number, a value of the kernel's driver that bondd does not have.
    pub fn lacks(&self, value: &str) -> bool {
        let value = value.trim();
        let mut absent = self.absent.iter();
        absent.any(|(name, number)| *name == value || value.parse() == Ok(*number))
    }

    /// The expected values, for messages and help.
    pub fn expected(&self) -> String {
        match self.kind {
            Kind::Number(Range { min, max, .. }) => {
                let what = match self.unit {
                    "ms" => "milliseconds",
                    "s" => "seconds",
                    _ => "a number",
                };
                format!("{what}, {min} to {max}")
            }
            Kind::Switch => "0 or 1".to_owned(),
            Kind::Choice(values) => list_of(values),
            Kind::Name | Kind::List => self.takes.to_owned(),
        }
    }

    /// The range of its numbers; `None` for other kinds.
    pub fn range(&self) -> Option<RangeInclusive<u32>> {
        match self.kind {
            Kind::Number(Range { min, max, .. }) => Some(min..=max),
            Kind::Switch => Some(0..=1),
            Kind::Choice(_) | Kind::Name | Kind::List => None,
        }
    }

    /// The driver's number of a named value; `None` for other kinds.
    pub fn number_of(&self, value: &str) -> Option<u8> {
        let Kind::Choice(values) = self.kind else { return None };
        values
            .iter()
            .find(|(name, _)| *name == value)
            .map(|(_, number)| *number)
    }

    /// Whether it is a parameter of the kernel's module.
    pub fn is_parameter(&self) -> bool {
        matches!(self.since, Since::Linux24 | Since::Module)
    }

    /// The files of the driver that show it.
    pub fn files(&self) -> impl Iterator<Item = &'static str> + use<> {
        let count = match self.files {
            Files::None => 0,
            Files::Name => 1,
            Files::EveryName => usize::MAX,
        };
        self.names().take(count)
    }

    /// Whether its value is stored as an option, rather than a state of the bond.
    pub fn is_stored(&self) -> bool {
        matches!(self.show, Show::Stored(_))
    }

    /// Its effective value; `None` for a state.
    pub fn value(&self, options: &BondOptions) -> OptionValue {
        self.show.value(options, None)
    }

    /// Whether this is the row for `name`; `-` and `_` are the same.
    pub fn is_called(&self, name: &str) -> bool {
        let same = |known: &str| {
            known.len() == name.len()
                && known
                    .bytes()
                    .zip(name.bytes())
                    .all(|(k, n)| k == n || (k == b'_' && n == b'-'))
        };
        same(self.name) || self.aliases.iter().any(|alias| same(alias))
    }
}

/// Stores a value that parsed; false if it did not.
pub(super) fn store<T>(value: Option<T>, put: impl FnOnce(T)) -> bool {
    value.map(put).is_some()
}

/// Names with the range of their numbers: `any or all (0 or 1)`, `none, active or follow (0 to 2)`.
fn list_of(values: &[(&str, u8)]) -> String {
    let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    let [(_, first), .., (_, last)] = values else {
        return names.concat();
    };
    let names = names.join(", ");
    let names = names
        .rsplit_once(", ")
        .map(|(names, last)| format!("{names} or {last}"));
    let between = if last - first == 1 { "or" } else { "to" };
    format!("{} ({first} {between} {last})", names.unwrap_or_default())
}

/// Common values of most rows.
pub(super) const ROW: OptionRow = OptionRow {
    name: "",
    aliases: &[],
    unit: "",
    default: "",
    takes: "",
    modes: Modes::All,
    set_when: SetWhen::Always,
    needs_miimon: false,
    doc: "",
    kind: Kind::Name,
    absent: &[],
    since: Since::Module,
    files: Files::Name,
    parse: Parse::Text(|_, _| false),
    show: Show::ActivePort,
};

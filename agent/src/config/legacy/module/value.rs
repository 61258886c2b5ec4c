//! Values of the module's parameters, as the loader of each grammar reads them.

use bond_modes::options::{Kind, ModeName, Since, find};

use crate::config::Grammar;
use crate::config::legacy::numbers::strtol;

/// Parameters of the driver of Linux 2.4.22 that are not options of a bond, and options of bondd in every grammar. [bonding.txt
/// of 2003]
const IN_EVERY_GRAMMAR: [&str; 4] = ["multicast", "max_bonds", "slaves", "plane"];

/// Most elements of a list. [bonding.h: BOND_MAX_ARP_TARGETS]
const MOST: usize = 16;

/// Kind of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    MaxBonds,
    Ports,
    Number,
    Text,
    List,
    Mode,
    Multicast,
}

/// A parsed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// As if the parameter were not given.
    Untouched,
    Number(i64),
    Text(String),
    /// A name followed by further text.
    Prefix(String),
}

/// Why a value is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    Integer,
    Missing,
    TooMany(usize),
    Mode,
    UnsupportedMode,
    Multicast,
}

impl Parameter {
    /// The kind of a parameter; `None` if the driver of this grammar does not have it.
    pub(super) fn of(name: &str, grammar: Grammar) -> Option<Parameter> {
        let row = find(name);
        let known = match (grammar, row) {
            _ if IN_EVERY_GRAMMAR.contains(&name) => true,
            // The loader compares names byte for byte.
            (Grammar::ModulesConf, Some(row)) => row.since == Since::Linux24 && row.name == name,
            (_, Some(row)) => row.since != Since::Later,
            (_, None) => false,
        };
        known.then_some(match name {
            "max_bonds" => Parameter::MaxBonds,
            "slaves" => Parameter::Ports,
            "mode" => Parameter::Mode,
            "multicast" => Parameter::Multicast,
            _ => match row {
                Some(row) if row.kind == Kind::List => Parameter::List,
                Some(row) if row.is_parameter() && row.range().is_some() => Parameter::Number,
                _ => Parameter::Text,
            },
        })
    }

    pub(super) fn value(self, text: Option<&str>, grammar: Grammar) -> Result<Value, Bad> {
        let text = text.ok_or(Bad::Missing)?;
        if self == Parameter::Ports {
            return Ok(Value::Text(text.to_owned()));
        }
        match grammar {
            Grammar::ModulesConf => self.insmod(text),
            _ => self.kernel(text),
        }
    }

    /// [modutils: insmod.c: process_module_arguments]
    fn insmod(self, text: &str) -> Result<Value, Bad> {
        if text.is_empty() {
            return Ok(Value::Untouched);
        }
        match self {
            Parameter::Number | Parameter::MaxBonds => match strtol(text) {
                (_, "") => Ok(Value::Number(wrapped(text))),
                (_, rest) if rest.starts_with(',') => Err(Bad::TooMany(1)),
                _ => Err(Bad::Integer),
            },
            Parameter::List => {
                let mut items = elements(text);
                // A comma after the last value is an error only if the list is full.
                if items.last().is_some_and(String::is_empty) && items.len() <= MOST {
                    items.pop();
                }
                list(&items)
            }
            _ => match elements(text).as_slice() {
                [one] => self.word(one, true),
                _ => Err(Bad::TooMany(1)),
            },
        }
    }

    /// [kernel/params.c: param_set_int, param_set_charp, param_array]
    fn kernel(self, text: &str) -> Result<Value, Bad> {
        match self {
            Parameter::Number | Parameter::MaxBonds => match strtol(text) {
                // differs from insmod: a value without digits is refused, and so is one that is too large.
                (Some(number), "") if i32::try_from(number).is_ok() => Ok(Value::Number(number)),
                _ => Err(Bad::Integer),
            },
            Parameter::List => list(&text.split(',').map(str::to_owned).collect::<Vec<_>>()),
            _ => self.word(text, self == Parameter::Multicast),
        }
    }

    fn word(self, text: &str, loose: bool) -> Result<Value, Bad> {
        match self {
            Parameter::Mode => mode(text, loose),
            Parameter::Multicast => multicast(text).ok_or(Bad::Multicast),
            _ => Ok(Value::Text(text.to_owned())),
        }
    }
}

fn list(items: &[String]) -> Result<Value, Bad> {
    match items.len() {
        ..=MOST => Ok(Value::Text(items.join(","))),
        _ => Err(Bad::TooMany(MOST)),
    }
}

/// By name or number; `loose` as in the driver of 2.4, which ignores text after a name that it knows. [bond_main.c:
/// bond_parse_parm]
fn mode(text: &str, loose: bool) -> Result<Value, Bad> {
    let row = find("mode").ok_or(Bad::Mode)?;
    let known = |is: &dyn Fn(&str, i64) -> bool| {
        let mut all = ModeName::NAMES.iter().chain(row.absent);
        all.find(|(name, number)| is(name, i64::from(*number)))
            .map(|(name, _)| *name)
    };
    let text = if loose { text } else { text.trim() };
    let by_number = match (loose, strtol(text)) {
        (true, (Some(number), rest)) if text.starts_with(|c: char| c.is_ascii_digit()) => Some((number, rest)),
        // Today's driver knows no other digits. [bond_options.c: bond_opt_parse]
        (false, _) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok().map(|number| (number, "")),
        _ => None,
    };
    // 802.3ad begins with a digit, so the driver of 2.4 reads it as an unknown number.
    let exact = known(&|name, _| name == text);
    let (name, whole) = match (exact, by_number) {
        (Some(name), _) => (Some(name), true),
        (None, Some((asked, rest))) => (known(&|_, number| number == asked), rest.is_empty()),
        (None, None) if !loose && text == "default" => (Some(row.default), true),
        (None, None) if loose => (known(&|name, _| text.starts_with(name)), false),
        (None, None) => (None, true),
    };
    match name {
        None => Err(Bad::Mode),
        Some(name) if row.lacks(name) => Err(Bad::UnsupportedMode),
        Some(name) if whole => Ok(Value::Text(name.to_owned())),
        Some(name) => Ok(Value::Prefix(name.to_owned())),
    }
}

fn multicast(text: &str) -> Option<Value> {
    const NAMES: [&str; 3] = ["disabled", "active", "all"];
    let number = strtol(text)
        .0
        .filter(|_| text.starts_with(|c: char| c.is_ascii_digit()));
    let name = match number {
        Some(number) => usize::try_from(number).ok().and_then(|at| NAMES.get(at)),
        None => NAMES.iter().find(|name| text.starts_with(*name)),
    };
    name.map(|name| Value::Text((*name).to_owned()))
}

/// Splits at commas outside double quotes, which are removed.
fn elements(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match (c, items.last_mut()) {
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => items.push(String::new()),
            (_, Some(item)) => item.push(c),
            (_, None) => {}
        }
    }
    items
}

/// The number as insmod stores it: the lowest 32 bits of what strtoul reads, which stops at the largest.
fn wrapped(text: &str) -> i64 {
    match strtol(text).0 {
        Some(number) if number.unsigned_abs() <= u64::from(u32::MAX) => i64::from(number as i32),
        _ => -1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_does() {
        for (text, number, rest) in [
            ("100", Some(100), ""),
            ("0x64,", Some(100), ","),
            ("010", Some(8), ""),
            ("08", Some(0), "8"),
            ("0x", Some(0), "x"),
            ("-5ms", Some(-5), "ms"),
            ("+7", Some(7), ""),
            ("", None, ""),
            ("ms", None, "ms"),
            ("99999999999999999999", None, ""),
        ] {
            assert_eq!(strtol(text), (number, rest), "{text}");
        }
    }

    #[test]
    fn insmod_cuts_numbers_off_and_the_kernel_does_not() {
        let number = |text| Parameter::Number.value(Some(text), Grammar::ModulesConf);
        assert_eq!(number("4294967396"), Ok(Value::Number(-1)));
        assert_eq!(number("4294967295"), Ok(Value::Number(-1)));
        assert_eq!(number("-5"), Ok(Value::Number(-5)));
        let number = |text| Parameter::Number.value(Some(text), Grammar::ModprobeD);
        assert_eq!(number("4294967295"), Err(Bad::Integer));
        assert_eq!(number(""), Err(Bad::Integer));
        assert_eq!(number("0x10"), Ok(Value::Number(16)));
    }

    #[test]
    fn a_full_list_takes_no_comma_behind_it() {
        let list = |count: usize, end: &str| {
            let text = vec!["10.0.0.1"; count].join(",") + end;
            Parameter::List.value(Some(&text), Grammar::ModulesConf).is_ok()
        };
        assert!(list(15, ",") && list(16, "") && !list(16, ",") && !list(17, ""));
    }

    #[test]
    fn modes_of_both_times() {
        let old = |text| Parameter::Mode.value(Some(text), Grammar::ModulesConf);
        let new = |text| Parameter::Mode.value(Some(text), Grammar::ModprobeD);
        for (text, loose, strict) in [
            ("1", Some("active-backup"), Some("active-backup")),
            ("broadcast", Some("broadcast"), Some("broadcast")),
            ("default", None, Some("balance-rr")),
            ("broadcast!", Some("broadcast"), None),
            ("3rd", Some("broadcast"), None),
            ("0x1", Some("active-backup"), None),
            ("01", Some("active-backup"), Some("active-backup")),
            ("9", None, None),
            ("-1", None, None),
        ] {
            let name = |value: Result<Value, Bad>| match value {
                Ok(Value::Text(name) | Value::Prefix(name)) => Some(name),
                _ => None,
            };
            assert_eq!(name(old(text)).as_deref(), loose, "{text}");
            assert_eq!(name(new(text)).as_deref(), strict, "{text}");
        }
        for text in ["4", "balance-alb", "802.3ad"] {
            assert_eq!(
                (old(text), new(text)),
                (Err(Bad::UnsupportedMode), Err(Bad::UnsupportedMode))
            );
        }
    }
}

//! Effective values of options, for programs and people.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Effective value of an option.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OptionValue {
    /// Not set.
    None,
    /// A number, in the option's unit.
    Number(i64),
    /// A name.
    Name(String),
    /// A list, such as targets.
    List(Vec<String>),
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionValue::None => f.write_str("none"),
            OptionValue::Number(number) => number.fmt(f),
            OptionValue::Name(name) => f.write_str(name),
            OptionValue::List(list) => f.write_str(&list.join(",")),
        }
    }
}

/// Whole milliseconds of a duration, for options and JSON.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

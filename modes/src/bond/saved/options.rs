//! Options in the saved file. The option tables say all about them: each is written under its name, in the form of its kind.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::options::{self, BondOptions, Kind, OptionRow, OptionValue, PORT_TABLE, PortOptions, TABLE, millis};

/// Options of a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SavedOptions(pub BondOptions);

/// Options of a port; fields of the port in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SavedPortOptions(pub PortOptions);

/// Form of a value in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum SavedValue {
    /// Not set.
    None,
    /// A switch.
    Switch(bool),
    /// A number that is not in milliseconds.
    Number(i64),
    /// A number in milliseconds.
    Time(Duration),
    /// A name.
    Name(String),
    /// A list.
    List(Vec<String>),
}

impl SavedValue {
    fn of(row: &OptionRow, options: &BondOptions) -> Self {
        match row.value(options) {
            OptionValue::None => SavedValue::None,
            OptionValue::Number(number) if row.kind == Kind::Switch => SavedValue::Switch(number != 0),
            OptionValue::Number(number) if row.unit == "ms" => {
                SavedValue::Time(Duration::from_millis(number.unsigned_abs()))
            }
            OptionValue::Number(number) => SavedValue::Number(number),
            OptionValue::Name(name) => SavedValue::Name(name),
            OptionValue::List(list) => SavedValue::List(list),
        }
    }

    /// As the parser of the option takes it.
    fn text(self) -> String {
        match self {
            SavedValue::None => String::new(),
            SavedValue::Switch(on) => u8::from(on).to_string(),
            SavedValue::Number(number) => number.to_string(),
            SavedValue::Time(time) => millis(time).to_string(),
            SavedValue::Name(name) => name,
            SavedValue::List(list) => list.join(","),
        }
    }
}

impl Serialize for SavedOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = TABLE.iter().filter(|row| row.is_stored());
        serializer.collect_map(stored.map(|row| (row.name, SavedValue::of(row, &self.0))))
    }
}

impl<'de> Deserialize<'de> for SavedOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = |name: &str| TABLE.iter().any(|row| row.name == name && row.is_stored());
        let values = deserializer.deserialize_map(Values(stored))?;
        options::restore(&values).map(SavedOptions).map_err(D::Error::custom)
    }
}

impl Serialize for SavedPortOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(PORT_TABLE.iter().map(|row| (row.name, (row.show)(&self.0))))
    }
}

impl<'de> Deserialize<'de> for SavedPortOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let known = |name: &str| PORT_TABLE.iter().any(|row| row.name == name);
        let values = deserializer.deserialize_map(Values(known))?;
        let options = PortOptions::default().set_all(&values);
        options.map(SavedPortOptions).map_err(D::Error::custom)
    }
}

/// Reads the values with known names, as texts. Others, of a later version, may have any form.
struct Values<K>(K);

impl<'de, K: Fn(&str) -> bool> Visitor<'de> for Values<K> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("options by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if (self.0)(&name) {
                values.insert(name, map.next_value::<SavedValue>()?.text());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(values)
    }
}

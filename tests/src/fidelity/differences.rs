//! The intended differences: `tests/fidelity/differences.txt`.
//!
//! ```text
//! [name]
//! reason: why bondd does it otherwise, on one line
//! scenarios: ab_downdelay_* random_*        names, * for anything
//! columns: tc team                         the columns in which it shows (optional)
//! text: *downdelay=*                        the scenario's text must match (optional)
//! step: send 20 vlan4*                      the step must match (optional)
//! fields: look/device bond0/carrier         where it shows, * for anything, separated by commas; files that say the same are meant
//!                                           as well
//! chance: yes                               it does not show in every run (optional)
//! kernel: 0                                 what the driver says (optional)
//! bondd: 1                                  what bondd says (optional)
//! ```

use super::compare::Difference;
use super::scenario::Scenario;

/// One wanted difference.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// What it is called.
    pub name: String,
    /// Why.
    pub reason: String,
    scenarios: Vec<String>,
    columns: Option<Vec<String>>,
    chance: bool,
    text: Option<String>,
    step: Option<String>,
    fields: Vec<String>,
    kernel: Option<String>,
    bondd: Option<String>,
}

impl Wanted {
    /// Reads the file; an error names the line.
    pub fn parse(text: &str) -> Result<Vec<Wanted>, String> {
        let mut all: Vec<Wanted> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let wrong = |why: &str| format!("differences.txt:{}: '{line}': {why}", number + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                all.push(Wanted {
                    name: name.to_owned(),
                    ..Wanted::default()
                });
                continue;
            }
            let entry = all.last_mut().ok_or_else(|| wrong("expected [name] before it"))?;
            let (key, value) = line.split_once(':').ok_or_else(|| wrong("expected KEY: VALUE"))?;
            let value = value.trim().to_owned();
            match key {
                "reason" => entry.reason = value,
                "scenarios" => entry.scenarios = value.split_whitespace().map(str::to_owned).collect(),
                "columns" => entry.columns = Some(value.split_whitespace().map(str::to_owned).collect()),
                "chance" => entry.chance = value == "yes",
                "step" => entry.step = Some(value),
                "text" => entry.text = Some(value),
                "fields" => entry.fields = value.split(',').map(|field| field.trim().to_owned()).collect(),
                "kernel" => entry.kernel = Some(value),
                "bondd" => entry.bondd = Some(value),
                _ => return Err(wrong("no such key")),
            }
        }
        for entry in &all {
            if entry.reason.is_empty() || entry.scenarios.is_empty() || entry.fields.is_empty() {
                return Err(format!(
                    "differences.txt: [{}] lacks a reason, scenarios or fields",
                    entry.name
                ));
            }
        }
        Ok(all)
    }

    /// Whether it shows in every run with these columns.
    pub fn must_occur(&self, columns: &[&str]) -> bool {
        !self.chance && self.is_of(columns)
    }

    /// Whether it can show in one of these columns.
    fn is_of(&self, columns: &[&str]) -> bool {
        let named = |wanted: &Vec<String>| {
            columns
                .iter()
                .any(|column| wanted.iter().any(|wanted| wanted == column))
        };
        self.columns.as_ref().is_none_or(named)
    }

    /// Whether this is the difference found.
    pub fn covers(&self, scenario: &Scenario, found: &Difference) -> bool {
        let fits = |pattern: &Option<String>, text: &str| pattern.as_ref().is_none_or(|p| glob(p, text));
        let fact = fact_of_file(&found.field);
        let shows = |pattern: &String| glob(pattern, &found.field) || fact.as_ref().is_some_and(|f| glob(pattern, f));
        self.scenarios.iter().any(|pattern| glob(pattern, &scenario.name))
            && self.fields.iter().any(shows)
            && self.is_of(&[&found.column])
            && fits(&self.text, &scenario.text.replace('\n', " "))
            && fits(&self.step, &found.text)
            && fits(&self.kernel, &found.kernel)
            && fits(&self.bondd, &found.other)
    }
}

/// The field that has the same fact as a file.
fn fact_of_file(field: &str) -> Option<String> {
    let (device, file) = field.strip_prefix("look/files/")?.split_once('/')?;
    let (port, file) = match file.strip_prefix("lower_").and_then(|rest| rest.split_once('/')) {
        Some((port, file)) => (port, file),
        None => (device, file),
    };
    let of_port = |what: &str| format!("look/port {port}/{what}");
    Some(match file {
        "address" => format!("look/device {device}/mac"),
        // The others are about what the carrier makes usable.
        "carrier" | "duplex" | "operstate" | "speed" => format!("look/device {device}/carrier"),
        "bonding/mii_status" => "look/mii_status".to_owned(),
        "bonding_slave/state" => of_port("role"),
        "bonding_slave/mii_status" => of_port("link"),
        "bonding_slave/link_failure_count" => of_port("failures"),
        _ => format!("look/options/{}", file.strip_prefix("bonding/")?),
    })
}

/// Whether a text matches a pattern in which `*` stands for anything.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_also_nothing() {
        for (pattern, text, wanted) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("*b*", "abc", true),
            ("a*b*b", "ab", false),
        ] {
            assert_eq!(glob(pattern, text), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn an_entry_without_a_reason_is_refused() {
        let error = Wanted::parse("[x]\nscenarios: *\nfields: *\n").unwrap_err();
        assert!(error.contains("[x] lacks a reason"), "{error}");
    }

    #[test]
    fn an_entry_covers_only_its_fields_and_values() {
        let entry = &Wanted::parse("[x]\nreason: r\nscenarios: ab_*\nfields: look/active\nbondd: eth1").unwrap()[0];
        let scenario = Scenario::parse("ab_one", "look").unwrap();
        let mut found = Difference {
            scenario: "ab_one".to_owned(),
            column: "tc".to_owned(),
            step: 1,
            text: "look".to_owned(),
            field: "look/active".to_owned(),
            kernel: "eth0".to_owned(),
            other: "eth1".to_owned(),
        };
        assert!(entry.covers(&scenario, &found));
        found.other = "eth2".to_owned();
        assert!(!entry.covers(&scenario, &found));
        found.field = "look/mii_status".to_owned();
        assert!(!entry.covers(&scenario, &found));
    }

    #[test]
    fn an_entry_may_be_of_some_columns_only() {
        let text = "[x]\nreason: r\nscenarios: *\nfields: *\n[y]\nreason: r\nscenarios: *\ncolumns: tc team\nfields: *";
        let [all, some] = &Wanted::parse(text).unwrap()[..] else {
            panic!("two entries")
        };
        for (column, is_of_some) in [("tc", true), ("team", true), ("netkit", false)] {
            assert_eq!(
                (all.is_of(&[column]), some.is_of(&[column])),
                (true, is_of_some),
                "{column}"
            );
        }
        assert!(some.must_occur(&["netkit", "team"]) && !some.must_occur(&["netkit"]));
        let by_chance = Wanted::parse(&text.replace("columns: tc team", "chance: yes")).unwrap();
        assert!(by_chance[1].is_of(&["tc"]) && !by_chance[1].must_occur(&["tc"]));
    }

    #[test]
    fn an_entry_covers_files_that_say_the_same() {
        for (file, fact) in [
            ("bond0/bonding/updelay", Some("look/options/updelay")),
            ("bond0/bonding/mii_status", Some("look/mii_status")),
            ("bond0/speed", Some("look/device bond0/carrier")),
            ("eth1/bonding_slave/link_failure_count", Some("look/port eth1/failures")),
            ("bond0/lower_eth1/bonding_slave/state", Some("look/port eth1/role")),
            ("bond0/type", None),
            ("bonding_masters", None),
        ] {
            assert_eq!(fact_of_file(&format!("look/files/{file}")).as_deref(), fact, "{file}");
        }
    }
}

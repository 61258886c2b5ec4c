//! Compares every column with the kernel's, observation by observation and field by field.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::scenario::{Expect, Scenario, Step};

/// A field in which a column differs from the kernel's driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Name of the scenario.
    pub scenario: String,
    /// Which column.
    pub column: String,
    /// Number of the step, from 1.
    pub step: u64,
    /// The step.
    pub text: String,
    /// First word of the step, then the path of the field.
    pub field: String,
    /// The driver's value.
    pub kernel: String,
    /// The column's value.
    pub other: String,
}

/// Result of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Number of compared fields.
    pub compared: usize,
    /// Those that differ.
    pub differences: Vec<Difference>,
    /// Columns that reported at some step that they are not exact, and were not compared from then on.
    pub declared: usize,
    /// Status texts in which the driver and a column had the same bytes, but for the driver's version and random addresses.
    pub texts: BTreeSet<String>,
}

/// What a column showed, by the number of the step.
type Seen<'a> = BTreeMap<u64, &'a Value>;

/// Compares the observations of one scenario; the first column seen is the driver's.
pub fn compare(scenario: &Scenario, observations: &[&Value]) -> Comparison {
    let columns = by_column(observations);
    let mut comparison = Comparison::default();
    let Some(((_, kernel), others)) = columns.split_first() else {
        comparison.differ(scenario, "kernel", 0, "", "nothing was played", "observations", "none");
        return comparison;
    };
    for (number, step) in (1..).zip(&scenario.steps) {
        let of_kernel = kernel.get(&number).copied();
        comparison.expect(scenario, number, step, of_kernel);
        for (column, seen) in others {
            if declared(seen).is_none_or(|declared| declared > number) {
                comparison.step(scenario, (number, step), of_kernel, column, seen.get(&number).copied());
            }
        }
    }
    comparison.declared = others.iter().filter(|(_, seen)| declared(seen).is_some()).count();
    for (column, seen) in &columns {
        if let Some(trouble) = seen.get(&0).and_then(|o| o["trouble"].as_str()) {
            comparison.differ(scenario, column, 0, "", "trouble", "", trouble);
        }
    }
    comparison
}

/// Observations sorted by their column, in the order in which the columns first occur.
fn by_column<'a>(observations: &[&'a Value]) -> Vec<(&'a str, Seen<'a>)> {
    let mut columns: Vec<(&str, Seen)> = Vec::new();
    for observation in observations {
        let name = observation["column"].as_str().unwrap_or_default();
        let at = columns.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            columns.push((name, Seen::new()));
            columns.len() - 1
        });
        columns[at]
            .1
            .insert(observation["step"].as_u64().unwrap_or(0), observation);
    }
    columns
}

/// The first step that a data plane refused because it would not be exact. What comes after has another bond before it.
fn declared(observed: &Seen) -> Option<u64> {
    let mut steps = observed.iter();
    steps.find(|(_, o)| declares(o)).map(|(step, _)| *step)
}

/// Whether a data plane refused this step because it would not be exact.
pub(super) fn declares(observation: &Value) -> bool {
    let inexact = |why: &str| why.starts_with("refused: ") && why.contains(" exactly on plane ");
    observation["why"].as_str().is_some_and(inexact)
}

impl Comparison {
    /// Holds the driver's result of a step against what the scenario says of it.
    fn expect(&mut self, scenario: &Scenario, number: u64, step: &Step, of_kernel: Option<&Value>) {
        let expected = match step.expect {
            Expect::Done => "done",
            Expect::Refused => "refused",
            Expect::Either => return,
        };
        let of_kernel = fields(scenario, of_kernel);
        if let Some(result) = of_kernel.get("result").filter(|result| *result != expected) {
            let field = "the scenario's own expectation";
            self.differ(scenario, "kernel", number, &step.text, field, result, expected);
        }
    }

    /// Compares what a column and the driver showed at a step.
    fn step(
        &mut self,
        scenario: &Scenario,
        (number, step): (u64, &Step),
        of_kernel: Option<&Value>,
        column: &str,
        of_column: Option<&Value>,
    ) {
        let text = status_text(scenario, of_column);
        if text == status_text(scenario, of_kernel) {
            self.texts.extend(text);
        }
        let verb = step.text.split(' ').next().unwrap_or_default();
        let (of_kernel, of_column) = (fields(scenario, of_kernel), fields(scenario, of_column));
        let only_in_column = of_column.keys().filter(|field| !of_kernel.contains_key(*field));
        for field in of_kernel.keys().chain(only_in_column) {
            let (a, b) = (of_kernel.get(field), of_column.get(field));
            // Each has options that the other one lacks.
            if field.starts_with("options/") && (a.is_none() || b.is_none()) {
                continue;
            }
            self.compared += 1;
            if a != b {
                let show = |value: Option<&String>| value.map_or("(nothing)", String::as_str).to_owned();
                let field = format!("{verb}/{field}");
                self.differ(scenario, column, number, &step.text, &field, &show(a), &show(b));
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one for each field of what it makes")]
    fn differ(
        &mut self,
        scenario: &Scenario,
        column: &str,
        step: u64,
        text: &str,
        field: &str,
        kernel: &str,
        other: &str,
    ) {
        self.differences.push(Difference {
            scenario: scenario.name.clone(),
            column: column.to_owned(),
            step,
            text: text.to_owned(),
            field: field.to_owned(),
            kernel: kernel.to_owned(),
            other: other.to_owned(),
        });
    }
}

/// The fields of an observation that are compared, by path.
fn fields(scenario: &Scenario, observation: Option<&Value>) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let Some(object) = observation.and_then(Value::as_object) else {
        fields.insert("observed".to_owned(), "no".to_owned());
        return fields;
    };
    for (name, value) in object {
        match (name.as_str(), value) {
            ("scenario" | "column" | "step" | "text" | "why" | "log" | "ms" | "took", _) => {}
            ("status", Value::Array(lines)) => status(lines, &mut fields),
            ("happened", Value::Array(events)) => {
                let events: Vec<_> = events.iter().filter_map(Value::as_str).collect();
                happened(&events, &mut fields);
            }
            _ => flatten(name, value, &mut fields),
        }
    }
    for value in fields.values_mut() {
        *value = roles(scenario, value);
    }
    fields
}

/// The whole status text of an observation.
fn status_text(scenario: &Scenario, observation: Option<&Value>) -> Option<String> {
    let lines = observation?["status"].as_array()?.iter().filter_map(Value::as_str);
    let lines = lines.map(|line| match line.split_once(": ") {
        Some((DRIVER, _)) => DRIVER.to_owned(),
        _ => roles(scenario, line),
    });
    Some(lines.collect::<Vec<_>>().join("\n")).filter(|text| !text.is_empty())
}

/// Lines of the status text, each under its heading, and their order.
fn status(lines: &[Value], fields: &mut BTreeMap<String, String>) {
    let mut section = String::new();
    let mut order = Vec::new();
    for line in lines.iter().filter_map(Value::as_str) {
        let (key, value) = line.split_once(": ").unwrap_or((line, ""));
        if key == "Slave Interface" {
            section = format!("{value}/");
        }
        order.push(format!("{section}{key}"));
        let value = if key == DRIVER { "" } else { value };
        fields.insert(format!("status/{section}{key}"), value.to_owned());
    }
    fields.insert("status/order of lines".to_owned(), order.join("; "));
}

/// Events in two sequences: ports that came and left, and all others.
///
/// A port joins the driver's bond with its link as it is. It joins ours as down, and is up as soon as its transmit queues are in
/// service some milliseconds later, so that the way to its first state is left out; what that state is, a look tells.
fn happened(events: &[&str], fields: &mut BTreeMap<String, String>) {
    let (mut members, mut links) = (Vec::new(), Vec::new());
    let mut joining: BTreeSet<&str> = BTreeSet::new();
    for event in events {
        let (port, what) = event.split_once(' ').unwrap_or((event, ""));
        if what.starts_with("attached") {
            joining.insert(port);
            members.push(format!("{port} attached"));
        } else if what.starts_with("detached") || what.starts_with("left") {
            members.push((*event).to_owned());
        } else if !(joining.contains(port) && (what == "up" || what.starts_with("going back"))) {
            joining.remove(port);
            // The driver repeats some messages after it could not get its lock.
            if links.last() != Some(event) {
                links.push(*event);
            }
        }
        if what == "up" {
            joining.remove(port);
        }
    }
    fields.insert("happened/members".to_owned(), members.join("; "));
    fields.insert("happened/links".to_owned(), links.join("; "));
}

fn flatten(path: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                flatten(&format!("{path}/{name}"), value, fields);
            }
        }
        Value::String(text) => {
            fields.insert(path.to_owned(), text.clone());
        }
        other => {
            fields.insert(path.to_owned(), other.to_string());
        }
    }
}

/// Hardware addresses by what they are: those of cables by their name, those that the scenario gives as they are, others are random.
fn roles(scenario: &Scenario, value: &str) -> String {
    let words = value.split(' ').map(|word| {
        if word.len() != 17 || super::frame::mac(word).is_err() || scenario.text.contains(word) {
            return word.to_owned();
        }
        match word.strip_prefix("02:00:00:00:e0:0") {
            Some(number) => format!("<eth{number}.mac>"),
            None => "<random>".to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Key of the line that tells the driver's version.
const DRIVER: &str = "Ethernet Channel Bonding Driver";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn observation(column: &str, look: Value) -> Value {
        let mut observation = look;
        observation["column"] = json!(column);
        observation["step"] = json!(1);
        observation
    }

    fn found(kernel: Value, tc: Value) -> Vec<(String, String, String)> {
        let scenario = Scenario::parse("x", "look").unwrap();
        let (kernel, tc) = (observation("kernel", kernel), observation("tc", tc));
        let comparison = compare(&scenario, &[&kernel, &tc]);
        comparison
            .differences
            .into_iter()
            .map(|d| (d.field, d.kernel, d.other))
            .collect()
    }

    #[test]
    fn equal_observations_differ_in_nothing_but_version_and_random_addresses() {
        let text = |version: &str, mac: &str| {
            let bond = json!({"mac": mac});
            json!({"status": [format!("Ethernet Channel Bonding Driver: {version}"), "", "MII Status: up"], "device bond0": bond})
        };
        let differences = found(text("v6.1", "1a:00:00:00:00:01"), text("v2", "2e:00:00:00:00:01"));
        assert_eq!(differences, []);
    }

    #[test]
    fn a_line_is_named_by_its_port_and_key() {
        let text = |failures: u32| json!({"status": ["MII Status: up", "Slave Interface: eth1", format!("Link Failure Count: {failures}")]});
        let field = "look/status/eth1/Link Failure Count".to_owned();
        assert_eq!(found(text(1), text(2)), [(field, "1".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn a_port_that_joins_and_then_comes_up_is_one_that_joined_but_a_later_failure_counts() {
        let events = |events: &[&str]| json!({"happened": events});
        let ours = ["eth0 attached, link down", "eth0 up", "active eth0"];
        let theirs = ["active eth0", "eth0 attached, link up"];
        assert_eq!(found(events(&theirs), events(&ours)), []);
        let failed = [&ours[..], &["eth0 down", "eth0 up"]].concat();
        let field = "look/happened/links".to_owned();
        let more = "active eth0; eth0 down; eth0 up".to_owned();
        assert_eq!(
            found(events(&theirs), events(&failed)),
            [(field, "active eth0".to_owned(), more)]
        );
    }

    #[test]
    fn what_only_one_column_has_is_a_difference_except_among_options() {
        let differences = found(
            json!({"options": {"a": "1"}, "active": "eth0"}),
            json!({"options": {"b": "1"}}),
        );
        let wanted = ("look/active".to_owned(), "eth0".to_owned(), "(nothing)".to_owned());
        assert_eq!(differences, [wanted]);
    }

    #[test]
    fn a_text_counts_when_every_byte_but_version_and_random_addresses_is_the_same() {
        let scenario = Scenario::parse("x", "look").unwrap();
        let kernel = [
            "Ethernet Channel Bonding Driver: v6.1",
            "",
            "MAC: 1a:00:00:00:00:01",
            "",
        ];
        let texts = |ours: &[&str]| {
            let kernel = observation("kernel", json!({"status": kernel}));
            compare(&scenario, &[&kernel, &observation("tc", json!({"status": ours}))]).texts
        };
        let same = ["Ethernet Channel Bonding Driver: v2", "", "MAC: 2e:00:00:00:00:01", ""];
        let text = "Ethernet Channel Bonding Driver\n\nMAC: <random>\n".to_owned();
        assert_eq!(texts(&same), BTreeSet::from([text]));
        assert_eq!(texts(&same[..3]), BTreeSet::new());
        assert_eq!(texts(&[same[0], "", "MAC:  2e:00:00:00:00:01", ""]), BTreeSet::new());
    }

    #[test]
    fn a_step_that_the_driver_refuses_unexpectedly_fails_its_scenario() {
        let scenario = Scenario::parse("x", "!set mode 0").unwrap();
        let done = |column| observation(column, json!({"result": "done"}));
        let comparison = compare(&scenario, &[&done("kernel"), &done("tc")]);
        assert_eq!(comparison.differences.len(), 1);
        assert_eq!(comparison.differences[0].column, "kernel");
    }

    #[test]
    fn what_a_plane_declares_is_not_compared_from_there_on_but_any_other_refusal_is() {
        let scenario = Scenario::parse("x", "look").unwrap();
        let kernel = observation("kernel", json!({"result": "done"}));
        let compared = |why: &str| {
            let refused = observation("team", json!({"result": "refused", "why": why}));
            let comparison = compare(&scenario, &[&kernel, &refused]);
            (comparison.declared, comparison.differences.len())
        };
        let declared = "refused: bond0: cannot do mode=balance-rr exactly on plane team: turns";
        assert_eq!(compared(declared), (1, 0));
        assert_eq!(compared("refused: bond0: miimon is a number"), (0, 1));
        assert_eq!(
            compared("kernel: bond0: cannot do anything exactly on plane team"),
            (0, 1)
        );
    }

    #[test]
    fn a_cables_address_is_called_by_its_name() {
        let scenario = Scenario::parse("x", "mac bond0 02:00:00:00:99:01").unwrap();
        let said = roles(&scenario, "02:00:00:00:e0:01 02:00:00:00:99:01 02:12:34:56:78:9a");
        assert_eq!(said, "<eth1.mac> 02:00:00:00:99:01 <random>");
    }
}

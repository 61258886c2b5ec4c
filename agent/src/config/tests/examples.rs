//! The examples of testdata/modprobe: the results of modutils, kmod and the driver, and those expected here.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::{Grammar, NoFiles, Parsed, Severity, Source, load, parse};
use crate::instances::check_options;

/// Findings of bondd only: the driver of 2003 obeyed `multicast`, here every port receives all groups.
const OURS: [(&str, u64, &str, &str); 2] = [
    ("32-multicast", 4, "info", "multicast-ignored"),
    ("88-seed-multicast", 1, "info", "multicast-ignored"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/modprobe")
}

fn examples() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            found.push((name, serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap()));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn read(wanted: &Value) -> Parsed {
    let grammar = match wanted["dialect"].as_str().unwrap() {
        "modules.conf" => Grammar::ModulesConf,
        _ => Grammar::ModprobeD,
    };
    let file = folder().join(wanted["file"].as_str().unwrap());
    if let Some(dirs) = wanted["dirs"].as_array() {
        let dirs: Vec<PathBuf> = dirs.iter().map(|dir| folder().join(dir.as_str().unwrap())).collect();
        return load(&dirs, Some(grammar), &check_options);
    }
    let mut sources = vec![Source {
        text: fs::read_to_string(&file).unwrap(),
        path: file,
        grammar,
    }];
    sources.extend(wanted["cmdline"].as_str().map(|text| Source {
        path: PathBuf::from("/proc/cmdline"),
        text: text.to_owned(),
        grammar: Grammar::CommandLine,
    }));
    parse(&sources, &NoFiles, &check_options)
}

/// `name (alias) option=value ... from option=value ...` of every bond: the effective options of the driver, and those of the
/// files.
fn bonds(parsed: &Parsed) -> Vec<String> {
    let show = |bond: &super::BondSpec| {
        let options = bond_modes::options::parse(&bond.pairs()).unwrap().options;
        let shown = bond_modes::options::show_all(&options, None);
        let mut text = format!("{} ({})", bond.name, bond.alias.as_deref().unwrap_or("-"));
        for name in NAMES {
            text.push_str(&format!(" {name}={}", shown[name]));
        }
        let given = bond
            .given
            .iter()
            .map(|option| format!("{}={}", option.name, option.value));
        text + &from(given.collect())
    };
    parsed.bonds.iter().map(show).collect()
}

fn from(mut given: Vec<String>) -> String {
    given.sort();
    format!(" from {}", given.join(" "))
}

/// `multicast` has no effect here.
const NAMES: [&str; 8] = [
    "mode",
    "miimon",
    "use_carrier",
    "updelay",
    "downdelay",
    "arp_interval",
    "arp_ip_target",
    "primary",
];

/// The same for the expected bonds. Where the driver has no monitor, bondd has miimon, unless a zero switches it off.
fn wanted_bonds(wanted: &Value) -> Vec<String> {
    let show = |bond: &Value| {
        let mut text = format!(
            "{} ({})",
            bond["name"].as_str().unwrap(),
            bond["alias"].as_str().unwrap_or("-")
        );
        let effective = &bond["effective"];
        let unwatched = effective["miimon"] == 0 && effective["arp_interval"] == 0 && bond["options"]["miimon"] != 0;
        for name in NAMES {
            let value = match &effective[name] {
                Value::Number(_) if name == "miimon" && unwatched => "100".to_owned(),
                value => value_text(value),
            };
            text.push_str(&format!(" {name}={value}"));
        }
        let given = bond["options"].as_object().unwrap().iter();
        let given = given.map(|(name, value)| format!("{name}={}", value_text(value)));
        text + &from(given.collect())
    };
    wanted["bonds"].as_array().unwrap().iter().map(show).collect()
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(value_text).collect::<Vec<_>>().join(","),
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

/// `file:line level code` of every finding, sorted.
fn findings(parsed: &Parsed) -> Vec<String> {
    let show = |finding: &super::Diagnostic| {
        let file = finding.place.file.strip_prefix(folder().join("90-precedence"));
        let file = file.map_or_else(|_| String::new(), |file| file.display().to_string());
        format!(
            "{file}:{} {} {}",
            finding.place.line,
            word(finding.severity),
            finding.code
        )
    };
    let mut all: Vec<String> = parsed.diagnostics.iter().map(show).collect();
    all.sort();
    all
}

fn wanted_findings(name: &str, wanted: &Value) -> Vec<String> {
    let show = |finding: &Value| {
        let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        format!(
            "{}:{} {} {}",
            text("file"),
            finding["line"],
            text("level"),
            text("what")
        )
    };
    let mut all: Vec<String> = wanted["diagnostics"].as_array().unwrap().iter().map(show).collect();
    let ours = OURS.iter().filter(|(example, ..)| *example == name);
    all.extend(ours.map(|(_, line, level, code)| format!(":{line} {level} {code}")));
    all.sort();
    all
}

#[test]
fn every_example_makes_the_bonds_and_findings_of_the_original() {
    let examples = examples();
    assert_eq!(examples.len(), 81);
    let mut wrong = Vec::new();
    for (name, wanted) in &examples {
        let parsed = read(wanted);
        let got = (bonds(&parsed), findings(&parsed));
        let want = (wanted_bonds(wanted), wanted_findings(name, wanted));
        if got != want {
            wrong.push(format!("{name}\n  got  {got:#?}\n  want {want:#?}"));
        }
        if wanted["fatal"] == true {
            assert!(parsed.has_errors(), "{name}");
        }
        for finding in &parsed.diagnostics {
            assert!(
                finding.text.len() > 20 && !finding.text.contains("  "),
                "{name}: {finding}"
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        examples.len(),
        wrong.join("\n")
    );
}

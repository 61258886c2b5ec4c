//! The examples of testdata/import: a folder each, with the expected option file and findings.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Format, Imported, Text, import, load};
use crate::config::{Grammar, NoFiles, Parsed, Severity, Source, parse};
use crate::instances::check_options;

const FORMATS: [(Format, usize); 3] = [(Format::Ifcfg, 16), (Format::Dracut, 13), (Format::Interfaces, 18)];

fn folder(format: Format) -> PathBuf {
    Path::new("testdata/import").join(format.name())
}

fn examples(format: Format) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(format)).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// The file that is named on the command line.
fn start(format: Format, example: &Path) -> PathBuf {
    match format {
        Format::Ifcfg => example.to_owned(),
        Format::Dracut => example.join("cmdline"),
        Format::Interfaces => example.join("interfaces"),
    }
}

fn findings(imported: &Imported) -> String {
    imported
        .diagnostics
        .iter()
        .map(|finding| format!("{finding}\n"))
        .collect()
}

fn read_back(imported: &Imported) -> Parsed {
    let source = Source {
        path: PathBuf::from("imported.conf"),
        text: imported.text.clone(),
        grammar: Grammar::Own,
    };
    parse(&[source], &NoFiles, &check_options)
}

/// Properties of every result.
#[track_caller]
fn verify(imported: &Imported, about: &str) {
    let parsed = read_back(imported);
    assert!(
        !parsed.has_errors(),
        "{about}: {:#?}\n{}",
        parsed.diagnostics,
        imported.text
    );
    let lines = imported.text.lines();
    let asked = lines.filter(|line| line.starts_with("alias ")).count();
    assert_eq!(parsed.bonds.len(), asked, "{about}: {}", imported.text);
    for line in imported.text.lines() {
        let is_known = ["# ", "alias ", "options "].iter().any(|begin| line.starts_with(begin)) || line.is_empty();
        assert!(is_known, "{about}: {line:?}");
    }
    let commented = imported
        .text
        .lines()
        .any(|line| line.starts_with("# alias ") || line.starts_with("# options "));
    let errors = imported
        .diagnostics
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    assert!(
        errors || !commented,
        "{about}: something is left out without an error\n{}",
        imported.text
    );
    assert!(
        errors || !parsed.bonds.is_empty(),
        "{about}: nothing, and nothing is said"
    );
}

#[test]
fn every_example_gives_its_option_file_and_findings() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for (format, number) in FORMATS {
        let examples = examples(format);
        assert_eq!(examples.len(), number, "{format:?}");
        for example in examples {
            let imported = load(format, &[start(format, &example)], &check_options);
            verify(&imported, &example.display().to_string());
            let plain = |text: &str| text.replace(&format!("{}/", example.display()), "");
            for (name, got) in [
                ("expected.bondd", &imported.text),
                ("expected.findings", &findings(&imported)),
            ] {
                let (path, got) = (example.join(name), plain(got));
                if update {
                    fs::write(&path, &got).unwrap();
                }
                let want = fs::read_to_string(&path).unwrap_or_default();
                if got != want {
                    wrong.push(format!("{}\n--- got\n{got}--- want\n{want}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn far_too_much_is_told_once_and_the_rest_is_there() {
    let many = |begin: &str, join: &str| (0..3000).map(|n| format!("{begin}{n}")).collect::<Vec<_>>().join(join);
    for (format, text, bonds, wanted) in [
        (Format::Dracut, many("bond=b", " "), 1024, "more than 1024 bonds"),
        (
            Format::Dracut,
            format!("bond=b:{}", many("e", ",")),
            0,
            "b has more than 1024 ports",
        ),
        (
            Format::Dracut,
            format!("bond=b:e:arp_ip_target={}", many("10.0.0.", ";")),
            0,
            "1024 ports, options or targets",
        ),
        (
            Format::Ifcfg,
            format!("BONDING_OPTS='{}=1'", many("o", "=1 ")),
            0,
            "b has more than 1024 ports",
        ),
        (
            Format::Interfaces,
            format!("iface b\nbond-mode 1\n{} 1", many("bond-x", " 1\n")),
            0,
            "more than 1024 lines for b",
        ),
        (
            Format::Interfaces,
            format!("iface {}", vec!["b"; 9000].join("\niface ")),
            0,
            "more than 8192 stanzas",
        ),
    ] {
        let path: Arc<Path> = Arc::from(Path::new("ifcfg-b"));
        let imported = import(format, &[Text { path, text }], &|_| Vec::new(), &check_options);
        verify(&imported, wanted);
        assert_eq!(read_back(&imported).bonds.len(), bonds, "{wanted}");
        assert_eq!(findings(&imported).matches(wanted).count(), 1, "{wanted}");
    }
}

#[test]
fn files_that_name_each_other_come_to_an_end() {
    let path: Arc<Path> = Arc::from(Path::new("a"));
    let text = "source ../x/a x/../a\nauto b\niface b\n bond-slaves eth0\n";
    let sourced = |path: &Path| vec![(path.to_owned(), Ok(text.to_owned()))];
    let first = Text {
        path,
        text: text.to_owned(),
    };
    let imported = import(Format::Interfaces, &[first], &sourced, &check_options);
    verify(&imported, text);
    assert_eq!(
        findings(&imported),
        "a: more than 256 files, expected files that do not name each other\n"
    );
    assert_eq!(read_back(&imported).bonds.len(), 1);
}

//! Manual pages and shipped files keep up with the programs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use bond_modes::OptionError;
use bond_modes::options::{self, OptionRow, PORT_TABLE, TABLE};
use bondd::status::sysfs::files;
use bondd_tests::bins::{bin, root};
use bondd_tests::daemon::succeeded;
use bondd_tests::machine::Machine;
use bondd_tests::netns::unique;
use bondd_tests::{Cable, Netns};

/// Source of a manual page, with plain dashes.
fn page(name: &str) -> String {
    let path = root().join("man").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    text.replace("\\-", "-")
}

/// Help text of a program after these words.
fn help(program: &str, words: &[&str]) -> String {
    let mut command = Command::new(bin(program));
    let output = command.args(words).arg("--help").output();
    succeeded(program, output.expect("the program can be run"))
}

/// All that a text names with this macro of mdoc, wherever in a line it stands: `Fl -run-dir` is `--run-dir`, `Cm add` is `add`.
fn named(page: &str, mdoc: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with('.')) {
        let mut is_name = false;
        for word in line[1..].split_whitespace() {
            let is_macro = word.len() == 2 && word.starts_with(|c: char| c.is_ascii_uppercase());
            if is_macro {
                is_name = word == mdoc;
            } else if is_name && word != "," {
                names.insert(word.to_owned());
            }
        }
    }
    names
}

/// All flags that a help text speaks of before its examples, which use other programs too; without their first dash.
fn flags(help: &str) -> BTreeSet<String> {
    let text = help.split("Examples:").next().unwrap_or_default();
    let words = text.split_whitespace().filter_map(|word| word.strip_prefix('-'));
    words
        .map(|word| word.trim_end_matches([',', '.', ')']).to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

/// Names under `Commands:` in a help text.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn has_all(page_name: &str, mdoc: &str, wanted: impl IntoIterator<Item = String>) {
    let known = named(&page(page_name), mdoc);
    let wanted: BTreeSet<String> = wanted.into_iter().collect();
    assert!(!wanted.is_empty(), "nothing to look for in {page_name}");
    let missing: Vec<_> = wanted.difference(&known).collect();
    assert!(missing.is_empty(), "{page_name} has no {mdoc} {missing:?}");
}

#[test]
fn every_flag_is_in_the_manual_page() {
    has_all("bondd.8", "Fl", flags(&help("bondd", &[])));
    has_all("bondctl.8", "Fl", flags(&help("bondctl", &[])));
    has_all("ifenslave.8", "Fl", flags(&help("ifenslave", &[])));
}

#[test]
fn every_option_of_the_agent_is_in_the_synopsis() {
    let page = page("bondd.8");
    let (_, rest) = page.split_once(".Sh SYNOPSIS\n").expect("bondd.8 has a synopsis");
    let synopsis = rest.split("\n.Sh ").next().expect("a section has a text");
    let known = named(synopsis, "Fl");
    let help = flags(&help("bondd", &[]));
    // Of those with two names the synopsis has the short one.
    let wanted = help
        .iter()
        .filter(|flag| !["-help", "-version"].contains(&flag.as_str()));
    let missing: Vec<_> = wanted.filter(|flag| !known.contains(*flag)).collect();
    assert!(known.len() > 5, "{known:?}");
    assert!(missing.is_empty(), "the synopsis has no {missing:?}");
}

#[test]
fn every_command_of_bondctl_is_in_the_manual_page() {
    let top = commands(&help("bondctl", &[]));
    assert!(top.len() > 5, "{top:?}");
    let items: Vec<String> = page("bondctl.8").lines().map(str::to_owned).collect();
    for command in &top {
        let below = commands(&help("bondctl", &[command]));
        let lines: Vec<String> = match below.is_empty() {
            true => vec![format!(".It Cm {command}")],
            false => below.iter().map(|name| format!(".It Cm {command} {name}")).collect(),
        };
        for line in lines {
            assert!(
                items
                    .iter()
                    .any(|item| *item == line || item.starts_with(&format!("{line} "))),
                "bondctl.8 has no {line}"
            );
        }
    }
}

/// The section of bondctl.8 that describes every option of a bond.
const OPTIONS: &str = "Options of a bond";

#[test]
fn every_option_is_in_the_manual_pages_with_all_its_names() {
    let options = || TABLE.iter().flat_map(OptionRow::names).map(str::to_owned);
    let page_of_commands = page("bondctl.8");
    let (_, rest) = page_of_commands
        .split_once(&format!(".Ss {OPTIONS}\n"))
        .expect("bondctl.8 has a section of options");
    let known = named(rest.split("\n.Ss ").next().unwrap_or(rest), "Cm");
    let missing: Vec<String> = options().filter(|name| !known.contains(name)).collect();
    assert!(missing.is_empty(), "{OPTIONS}: no {missing:?}");
    has_all("bondctl.8", "Cm", PORT_TABLE.iter().map(|row| row.name.to_owned()));
    // What can be given in files is described there, too.
    let reference = format!(".Dq {OPTIONS}\nof\n.Xr bondctl 8\n");
    assert!(
        page("bondd.conf.5").contains(&reference),
        "bondd.conf.5 names {OPTIONS}"
    );
}

#[test]
fn every_file_of_the_driver_is_in_the_manual_page_and_its_command_is_one_that_bondctl_takes() {
    has_all("bondd-status.5", "Pa", files().map(|(file, _)| file.to_owned()));
    let page = page("bondd-status.5");
    let commands = page.lines().filter_map(|line| line.split_once(" Ta Ic bondctl "));
    let mut count = 0;
    for (item, command) in commands {
        count += 1;
        let command = command.replace("\\-", "-");
        let words: Vec<&str> = command.split([' ', '=']).collect();
        let asked = Command::new(bin("bondctl"))
            .args(command.split(' '))
            .env("BONDD_RUN_DIR", "/nonexistent")
            .output()
            .expect("bondctl can be run");
        assert_eq!(
            asked.status.code(),
            Some(3),
            "{command}: not taken, or done without bondd"
        );
        if let ["set", "bond0", option, value] = words[..] {
            assert_eq!(item.split_whitespace().nth(2), Some(option), "{item}");
            let pair = [(option.to_owned(), value.to_owned())];
            let row = TABLE.iter().find(|row| row.names().any(|name| name == option));
            assert!(row.is_some(), "{command}");
            // Options of some modes only, and removing a target from an empty list, are not tested here.
            let is_bad = |error: &OptionError| matches!(error, OptionError::BadValue { .. });
            let bad = options::check(&pair).into_iter().find(|(_, error)| is_bad(error));
            assert!(bad.is_none(), "{command}: {bad:?}");
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn defaults_in_the_manual_page_are_those_of_the_option_table() {
    let page = page("bondctl.8");
    for row in TABLE.iter().filter(|row| !row.default.is_empty()) {
        let begin = page
            .find(&format!(".It Cm {} ", row.name))
            .unwrap_or_else(|| panic!("no item {}", row.name));
        let item = page[begin + 1..]
            .split(".It ")
            .next()
            .expect("an item has a text")
            .replace("\n.Cm ", " ")
            .to_lowercase();
        let default = format!("default {}", row.default);
        let said = item
            .find(&default)
            .and_then(|at| item[at + default.len()..].chars().next());
        assert!(
            said.is_some_and(|next| !next.is_alphanumeric()),
            "{}: no \"{default}\" in: {item}",
            row.name
        );
    }
}

#[test]
fn shipped_and_printed_option_files_are_right() {
    let printed = page("bondd.conf.5");
    let example = printed
        .split_once(".Sh EXAMPLES\n.Bd -literal\n")
        .and_then(|(_, rest)| rest.split_once("\n.Ed"))
        .expect("bondd.conf.5 has an example")
        .0
        .replace("\\e", "\\");
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let in_readme = readme
        .split("```")
        .find(|block| block.contains("\nalias bond0 bonding"))
        .and_then(|block| block.split_once('\n'))
        .expect("README.md has an option file")
        .1;
    let shipped = fs::read_to_string(root().join("packaging/bondd.conf")).expect("there is an example");
    let uncommented = shipped
        .replace("\n#options", "\noptions")
        .replace("\n#alias", "\nalias");
    for text in [&example, in_readme, &shipped, &uncommented] {
        let path = PathBuf::from("/tmp").join(unique("example.conf"));
        fs::write(&path, text).expect("/tmp takes a file");
        let output = Command::new(bin("bondd"))
            .arg("--check")
            .arg("--config")
            .arg(&path)
            .output();
        let _ = fs::remove_file(&path);
        let output = output.expect("the program can be run");
        assert!(output.status.success(), "{output:?}\n{text}");
        assert!(output.stderr.is_empty(), "{output:?}\n{text}");
    }
}

#[test]
fn the_commands_to_try_in_the_readme_work_when_pasted_whole_and_leave_nothing() {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let (_, section) = readme.split_once("\n## Try it\n").expect("README.md has it");
    let blocks: Vec<&str> = section
        .split("```")
        .filter_map(|block| block.strip_prefix("sh\n"))
        .filter(|block| block.contains("/run/try"))
        .collect();
    let [make, undo] = blocks[..] else {
        panic!("one block that makes, one that removes: {blocks:?}");
    };
    let name = unique("readme");
    // If a line fails, the agent and its namespace do not stay.
    let script = format!(
        "set -e; trap 'kill $!; wait $!; ip netns del try; rm -r /run/try' EXIT\n{make}\n{undo}\ntrap - EXIT\n"
    );
    let programs = bin("bondd")
        .parent()
        .expect("it lies in a folder")
        .display()
        .to_string();
    let script = script.replace("target/release", &programs).replace("try", &name);
    let mut shell = Command::new("bash");
    let output = shell.args(["-c", &script]).output().expect("bash can be run");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let shown = succeeded(&script, output);
    assert!(shown.contains("bond0") && shown.contains("eth0"), "{shown}");
    assert!(!shown.contains("NO CARRIER"), "{shown}\n{log}");
    for left in [Path::new("/run/netns").join(&name), Path::new("/run").join(&name)] {
        assert!(!left.exists(), "{} is left", left.display());
    }
}

#[test]
fn each_column_of_the_first_commands_in_the_readme_works_when_pasted_whole() {
    let _machine = Machine::shared();
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let (_, table) = readme
        .split_once("| | bondctl | ifenslave |\n|---|---|---|\n")
        .expect("README.md has it");
    let (table, rest) = table.split_once("\n\n").expect("the table ends");
    let file = rest.split("```").find_map(|block| block.strip_prefix("text\n"));
    let programs = bin("bondd")
        .parent()
        .expect("it lies in a folder")
        .display()
        .to_string();
    for column in [2, 3] {
        let commands = table
            .lines()
            .map(|row| row.split('|').nth(column).and_then(|cell| cell.split('`').nth(1)));
        let commands: Vec<&str> = commands
            .map(|command| command.expect("each cell has a command"))
            .collect();
        assert_eq!(commands.len(), 8, "{table}");
        let host = Netns::new("host");
        let far = Netns::new("far");
        let _cables = ["eth0", "eth1"].map(|name| Cable::new(&host, name, &far, name));
        let dir = Path::new("/run").join(unique("first"));
        fs::create_dir_all(&dir).expect("root may write to /run");
        fs::write(dir.join("bond0.conf"), file.expect("README.md has an option file"))
            .expect("a new folder takes a file");
        let commands = commands
            .join("\n")
            .replace("/run/bondd/", &format!("{}/", dir.display()));
        let script = format!("set -e; trap 'kill $!; wait $!' EXIT\n{commands}\n");
        let mut shell = host.command("bash");
        shell.args(["-c", &script]).current_dir(&dir).env("BONDD_RUN_DIR", &dir);
        shell.env(
            "PATH",
            format!("{programs}:{}", std::env::var("PATH").unwrap_or_default()),
        );
        let output = shell.output().expect("bash can be run");
        let _ = fs::remove_dir_all(&dir);
        let shown = succeeded(&script, output);
        assert!(shown.contains("eth1") && host.link("bond0").is_none(), "{shown}");
    }
}

#[test]
fn the_lines_for_modprobe_are_printed_as_they_are_shipped() {
    let shipped = fs::read_to_string(root().join("packaging/modprobe.conf")).expect("there is a file for modprobe.d");
    let lines: Vec<&str> = shipped.lines().filter(|line| line.contains(" bonding /")).collect();
    assert_eq!(lines.len(), 2, "{shipped}");
    assert!(page("bondctl.8").contains(&lines.join("\n")), "{lines:?}");
}

#[test]
fn the_unit_stops_only_the_agent_and_keeps_its_state() {
    let unit = fs::read_to_string(root().join("packaging/bondd.service")).expect("there is a unit");
    for line in [
        "ExecStart=/usr/sbin/bondd",
        "KillMode=process",
        "Restart=always",
        "RuntimeDirectory=bondd",
        "RuntimeDirectoryPreserve=yes",
    ] {
        assert!(unit.lines().any(|found| found == line), "no {line}");
    }
}

#[test]
fn every_command_that_is_installed_has_a_manual_that_the_others_name_and_all_of_it_is_uninstalled() {
    let work = PathBuf::from("/tmp").join(unique("install"));
    let (tree, to) = (work.join("tree"), work.join("to"));
    put(
        &tree,
        ["bondd", "bondctl", "ifenslave"].map(|name| format!("target/release/{name}")),
    );
    for shared in ["Makefile", "man", "packaging"] {
        symlink(root().join(shared), tree.join(shared)).expect("the folder takes a link");
    }
    // Also in folders that are ours.
    put(
        &to,
        [
            "conf/bondd/bond0.conf",
            "conf/network/if-up.d/mine",
            "opt/share/doc/bondd/notes",
            "opt/sbin/mine",
        ],
    );
    let own = below(&to);
    make(&tree, &to, "install");
    let installed: BTreeSet<String> = below(&to).difference(&own).cloned().collect();
    assert!(installed.contains("conf/network/if-up.d/bondd"), "{installed:?}");
    for command in installed.iter().filter_map(|path| path.strip_prefix("opt/sbin/")) {
        let described = fs::read_dir(root().join("man")).expect("there are manuals").flatten();
        let mut names = described.map(|entry| page(&entry.file_name().to_string_lossy()));
        let named = |text: String| {
            text.lines()
                .any(|line| line.starts_with(".Nm ") && line.split(' ').any(|w| w == command))
        };
        assert!(names.any(named), "no manual of {command}");
    }
    for other in ["bondd.8", "bondctl.8", "bondd-status.5"] {
        assert!(
            page(other).contains(".Xr bondd-trees 8"),
            "{other} does not name bondd-trees"
        );
    }
    for _ in 0..2 {
        make(&tree, &to, "uninstall");
        assert_eq!(below(&to), own);
    }
    fs::remove_file(to.join("opt/share/doc/bondd/notes")).expect("it is ours");
    make(&tree, &to, "uninstall");
    assert!(!to.join("opt/share/doc/bondd").exists());
    fs::remove_dir_all(&work).expect("it is ours");
}

/// Runs make with a prefix and folder of settings of its own; nothing is built.
#[track_caller]
fn make(tree: &Path, to: &Path, target: &str) {
    let destination = format!("DESTDIR={}", to.display());
    let mut command = Command::new("make");
    command.arg("-C").arg(tree);
    command.args(["CARGO=true", "PREFIX=/opt", "SYSCONFDIR=/conf", &destination, target]);
    succeeded(target, command.output().expect("make can be run"));
}

/// Makes files.
fn put(folder: &Path, paths: impl IntoIterator<Item = impl AsRef<Path>>) {
    for path in paths {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("it is below a folder")).expect("/tmp takes a folder");
        fs::write(path, "").expect("the folder takes a file");
    }
}

/// Paths of all files and links below a folder.
fn below(folder: &Path) -> BTreeSet<String> {
    let find = Command::new("find")
        .arg(folder)
        .args(["!", "-type", "d", "-printf", "%P\\n"])
        .output();
    let found = succeeded("find", find.expect("find can be run"));
    found.lines().map(str::to_owned).collect()
}

//! `bondctl check` as a lint of option files: nothing listens, nothing is made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bondd_tests::bins::bin;
use bondd_tests::netns::unique;
use serde_json::Value;

/// A folder with these files, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Folder {
        let folder = Folder(PathBuf::from("/tmp").join(unique("check")));
        for (name, text) in files {
            let path = folder.0.join(name);
            fs::create_dir_all(path.parent().expect("a file is in a folder")).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    /// Output of `bondctl` in this folder without paths: status, standard output, standard error.
    fn check(&self, words: &str) -> (i32, String, String) {
        let output = self.run(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&format!("{}/", self.0.display()), "");
        (
            output.status.code().expect("it ends by itself"),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    fn run(&self, words: &str) -> Output {
        let mut command = Command::new(bin("bondctl"));
        command
            .args(["--run-dir", "/nonexistent"])
            .args(words.split_whitespace());
        command.current_dir(&self.0).output().expect("bondctl can be run")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_good_file_is_shown_as_bonds_without_an_agent() {
    let folder = Folder::new(&[(
        "a.conf",
        "alias bond0 bonding\noptions bond0 mode=1 slaves=eth0,eth1 plane=tc\n",
    )]);
    let bonds = "bond0: mode=1 plane=tc slaves=eth0,eth1\n";
    assert_eq!(folder.check("check a.conf"), (0, bonds.to_owned(), String::new()));
    assert_eq!(folder.check("check ."), (0, bonds.to_owned(), String::new()));
}

#[test]
fn everything_wrong_is_said_at_once_and_the_status_is_1() {
    let text = "alias bond0 bonding\noptions bond0 mimon=100\noptions bond0 updelay=soon\n";
    let folder = Folder::new(&[("a.conf", text)]);
    let (status, out, err) = folder.check("check a.conf missing.conf");
    assert_eq!((status, out.as_str()), (1, ""));
    for beginning in [
        "missing.conf: cannot be read (",
        "a.conf:2: unknown option mimon, expected miimon",
        "a.conf:3: updelay: bad value \"soon\", expected milliseconds",
        "bondctl: 3 errors in the option files",
    ] {
        assert!(
            err.lines().any(|line| line.starts_with(beginning)),
            "{beginning}: {err}"
        );
    }
}

#[test]
fn what_is_no_regular_file_is_an_error_and_nobody_waits_for_it() {
    let folder = Folder::new(&[("a.conf", "alias bond0 bonding\n")]);
    nix::unistd::mkfifo(&folder.0.join("b.conf"), nix::sys::stat::Mode::S_IRUSR).expect("a FIFO");
    std::os::unix::fs::symlink("/dev/zero", folder.0.join("c.conf")).expect("a link");
    let (status, _, err) = folder.check("check .");
    assert_eq!(status, 1);
    for file in ["b.conf", "c.conf"] {
        let said = format!("./{file}: cannot be read (it is not a regular file), expected ");
        assert!(err.lines().any(|line| line.starts_with(&said)), "{said}: {err}");
    }
}

#[test]
fn a_file_is_read_by_the_grammar_of_its_kind_or_the_one_given() {
    let text = "alias bond5 bonding\noptions bond5 miimon=100 # fast mode=1\n";
    let folder = Folder::new(&[("x.conf", text), ("modules.conf", text), ("modprobe.d/x.conf", text)]);
    let (own, old) = ("bond5: miimon=100\n", "bond0: miimon=100\n");
    assert_eq!(folder.check("check x.conf"), (0, own.to_owned(), String::new()));
    for (words, bonds) in [
        ("check modules.conf", old),
        ("check --grammar modules.conf x.conf", old),
        ("check --grammar bondd modules.conf", own),
        ("check modprobe.d", "bond0: miimon=100 mode=active-backup\n"),
    ] {
        let (status, out, _) = folder.check(words);
        assert_eq!((status, out.as_str()), (0, bonds), "{words}");
    }
    let (_, _, err) = folder.check("check modprobe.d");
    assert!(
        err.contains(
            "modprobe.d/x.conf:2: warning: \"#\" is no parameter of the driver, which ignores it; a comment begins in"
        ),
        "{err}"
    );
    assert_eq!(folder.run("check --grammar none x.conf").status.code(), Some(2));
}

#[test]
fn warnings_leave_the_status_0_and_json_has_all_of_it() {
    let folder = Folder::new(&[(
        "modules.conf",
        "alias bond5 bonding\noptions bond5 miimon=100 updelay=250\n",
    )]);
    let output = folder.run("-j check modules.conf");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(
        (&report["schema"], &report["errors"], &report["warnings"]),
        (&1.into(), &0.into(), &2.into())
    );
    let codes: Vec<&str> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|f| f["code"].as_str())
        .collect();
    assert_eq!(codes, ["alias-name-mismatch", "updelay-rounded"]);
    assert_eq!(report["findings"][1]["line"], 2);
    assert_eq!(report["findings"][1]["severity"], "warning");
    assert_eq!(report["bonds"][0]["name"], "bond0");
    assert_eq!(report["bonds"][0]["alias"], "bond5");
    assert_eq!(report["bonds"][0]["options"]["updelay"], "200");
    assert_eq!(report["bonds"][0]["given"]["updelay"], "250");

    fs::write(folder.0.join("modules.conf"), "blacklist x\n").unwrap();
    let output = folder.run("-j check modules.conf");
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(
        (&report["errors"], &report["bonds"]),
        (&1.into(), &Value::Array(Vec::new()))
    );
}

#[test]
fn included_files_are_read_beside_the_file_and_nowhere_else() {
    let folder = Folder::new(&[
        (
            "etc/modules.conf",
            "include more/bonds\ninclude ../secret\ninclude /etc/passwd\n",
        ),
        ("etc/more/bonds", "alias bond0 bonding\noptions bond0 miimon=50 fast\n"),
        ("secret", "options bond0 miimon=1\n"),
    ]);
    let (status, out, err) = folder.check("check etc/modules.conf");
    assert_eq!((status, out.as_str()), (0, "bond0: miimon=50\n"), "{err}");
    assert!(
        err.contains("etc/more/bonds:2: warning: \"fast\" ends the options"),
        "{err}"
    );
    assert!(
        err.contains("etc/modules.conf:2: warning: ../secret is not read"),
        "{err}"
    );
    assert!(
        err.contains("etc/modules.conf:3: warning: /etc/passwd is not read"),
        "{err}"
    );
    fs::write(folder.0.join("etc/more/bonds"), "include bonds\n").unwrap();
    let (status, _, err) = folder.check("check etc/modules.conf");
    assert!(status == 1 && err.contains("more than 20 files in each other"), "{err}");
    assert!(Path::new("/etc/passwd").exists(), "else the test above tests nothing");
}

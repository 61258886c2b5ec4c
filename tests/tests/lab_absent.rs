//! Tests that need the lab, on a machine that cannot have it: they fail where every test has to run, and are listed elsewhere.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use bondd_tests::bins::root;
use bondd_tests::vm::Lab;

/// The test that the others run without a lab.
#[test]
fn one_machine_boots() {
    let Some(lab) = Lab::for_test() else { return };
    let said = lab.run(&[], &[], &[], &["--sh", "uname -s"]);
    assert_eq!(said, "Linux\n");
}

#[test]
fn without_the_lab_make_test_fails_under_ci() {
    let made = make_test("true");
    let said = text(&made);
    assert!(!made.status.success(), "{said}");
    assert!(
        said.contains("there is no /nonexistent") && said.contains("CI=true"),
        "{said}"
    );
}

#[test]
fn without_the_lab_make_test_ends_with_what_it_did_not_run_and_why() {
    let made = make_test("");
    let said = text(&made);
    assert!(made.status.success(), "{said}");
    let end = said.split("not run, the rest says nothing about it:\n").nth(1);
    let listed = "    lab_absent: one_machine_boots: there is no /nonexistent, which BONDD_LAB names\n";
    assert_eq!(end, Some(listed), "{said}");
}

/// `make test` without a lab, with the test above in place of all tests.
fn make_test(ci: &str) -> Output {
    let folder = Folder::new(ci);
    let cargo = folder.0.join("cargo");
    let this = env::current_exe().unwrap();
    let script = format!("#!/bin/sh\nexec '{}' --exact one_machine_boots\n", this.display());
    fs::write(&cargo, script).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let mut make = Command::new("make");
    make.args([
        "--no-print-directory",
        "--old-file=deps",
        "--old-file=clients",
        "--old-file=lab",
        "test",
    ])
    .arg(format!("CARGO={}", cargo.display()))
    .arg(format!("NOT_RUN={}", folder.0.join("not-run").display()))
    .current_dir(root())
    .env_remove("MAKEFLAGS")
    .env("BONDD_LAB", "/nonexistent")
    .env("CI", ci);
    make.output().expect("make can be run")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    )
}

/// A folder that is removed again.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = env::temp_dir().join(format!("bondd-lab-absent-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

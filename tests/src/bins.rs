//! Paths of the programs under test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// Path of a program of this workspace: `bondd`, `bondctl` or `ifenslave`.
///
/// `BONDD_BIN_DIR` is their folder. Without it they are built once, in the profile of the running test, so that a test never
/// uses an outdated program.
pub fn bin(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let path = DIR.get_or_init(dir).join(name);
    assert!(
        path.exists(),
        "{} does not exist; run `cargo build --workspace`",
        path.display()
    );
    path
}

fn dir() -> PathBuf {
    if let Some(dir) = env::var_os("BONDD_BIN_DIR") {
        return PathBuf::from(dir);
    }
    let (mut build, dir) = cargo("build");
    let status = build
        .args(["-p", "bondd", "-p", "ifenslave-compat", "--bins"])
        .status()
        .expect("cargo can be run; or name a folder of programs in BONDD_BIN_DIR");
    assert!(status.success(), "building bondd, bondctl and ifenslave failed");
    dir
}

/// The tests of a package as a program, to be run elsewhere: its unit tests by `--lib`, or those of a file by `--test NAME`. Built
/// in the profile of the running test.
pub fn tests_of(package: &str, target: &[&str]) -> PathBuf {
    let (mut build, _) = cargo("test");
    build
        .args(["--no-run", "--message-format=json", "-p", package])
        .args(target);
    let output = build.output().expect("cargo can be run");
    assert!(output.status.success(), "building the tests of {package} failed");
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut built = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message["profile"]["test"] == true;
        message["executable"].as_str().filter(|_| is_test).map(PathBuf::from)
    });
    built.next().expect("cargo names what it built")
}

/// A command of cargo for this workspace in the profile of the running test, and the folder of that profile.
fn cargo(command: &str) -> (Command, PathBuf) {
    let exe = env::current_exe().expect("a running program has a path");
    let dir = exe.parent().expect("a program lies in a folder");
    let dir = if dir.ends_with("deps") {
        dir.parent().expect("deps lies in a folder")
    } else {
        dir
    };
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([command, "--locked", "--quiet"]);
    cargo.arg("--manifest-path").arg(root().join("Cargo.toml"));
    if dir.ends_with("release") {
        cargo.arg("--release");
    }
    (cargo, dir.to_owned())
}

/// A program of this package: that in `BONDD_BIN_DIR`, if it is there, or `built`, where cargo built it.
pub fn own_bin(built: &str) -> PathBuf {
    let built = Path::new(built);
    let name = built.file_name().expect("a program has a name");
    let other = env::var_os("BONDD_BIN_DIR").map(|dir| Path::new(&dir).join(name));
    other.filter(|path| path.exists()).unwrap_or_else(|| built.to_owned())
}

/// Folder of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
}

/// A program of a package that `make clients` has unpacked.
///
/// # Panics
/// When they are not unpacked.
#[track_caller]
pub fn client(path: &str) -> PathBuf {
    let path = root().join("target/clients").join(path);
    assert!(
        path.exists(),
        "{} is missing, expected what `make clients` unpacks",
        path.display()
    );
    path
}

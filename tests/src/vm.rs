//! The throw-away machine with a stock kernel that the lab, `tests/lab/vm`, starts.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::bins::{bin, root};

/// The program that starts machines, with what it needs installed and fetched.
#[derive(Debug)]
pub struct Lab {
    path: PathBuf,
    kernel: &'static str,
}

impl Lab {
    /// The lab for a test, which does nothing without it: then the test's name and the reason go to standard error and into the
    /// file that `BONDD_NOT_RUN` names, from which `make test` makes a list.
    ///
    /// # Panics
    /// Where there is no lab, under `CI=true`.
    #[track_caller]
    pub fn for_test() -> Option<Lab> {
        Lab::for_test_on(CLOUD)
    }

    /// The same with another of the lab's kernels, see `--kernel` in `tests/lab/vm`.
    ///
    /// # Panics
    /// Where there is no lab, under `CI=true`.
    #[track_caller]
    pub fn for_test_on(kernel: &'static str) -> Option<Lab> {
        let why = match Lab::with_kernel(kernel) {
            Ok(lab) => return Some(lab),
            Err(why) => why,
        };
        assert!(
            env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{why}, and under CI=true every test has to run"
        );
        not_run(&why);
        None
    }

    /// The lab, or why there is none on this machine: it is not there, or cannot install or fetch what it needs.
    ///
    /// # Panics
    /// When the lab fails for another reason.
    #[track_caller]
    pub fn find() -> Result<Lab, String> {
        Lab::with_kernel(CLOUD)
    }

    /// The same with another of the lab's kernels, see `--kernel` in `tests/lab/vm`.
    ///
    /// # Panics
    /// When the lab fails for another reason.
    #[track_caller]
    pub fn with_kernel(kernel: &'static str) -> Result<Lab, String> {
        let path = env::var_os("BONDD_LAB").map_or_else(|| root().join("tests/lab/vm"), PathBuf::from);
        if !path.exists() {
            return Err(format!("there is no {}, which BONDD_LAB names", path.display()));
        }
        let lab = Lab { path, kernel };
        let mut prepare = Command::new(&lab.path);
        prepare.args(["--prepare", "--kernel", kernel]).stdin(Stdio::null());
        let output = prepare.output().unwrap_or_else(|e| panic!("cannot run {lab:?}: {e}"));
        let why = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(LAB_FAILED) {
            return Err(format!("the lab cannot get what it needs: {}", why.trim()));
        }
        assert!(output.status.success(), "{lab:?}: {}\n{why}", output.status);
        Ok(lab)
    }

    /// Starts a machine with these kernel modules (with a `+`, only at hand), programs in `/usr/bin` and files, and returns what it
    /// printed. The machine's clock counts its instructions. The kernel it booted is named on standard error, also of tests that
    /// pass.
    ///
    /// # Panics
    /// When what runs in it fails, with its output.
    #[track_caller]
    pub fn run(&self, modules: &[&str], programs: &[&Path], files: &[(&Path, &str)], arguments: &[&str]) -> String {
        let mut command = Command::new(&self.path);
        command.args(["--kernel", self.kernel, "--count-instructions"]);
        for module in modules {
            command.args(["--module", module]);
        }
        let slim = Slim::new();
        for program in programs {
            let name = program.file_name().expect("a program has a name").to_string_lossy();
            let copy = slim.copy(program, &name);
            command.arg("--copy").arg(format!("{}:/usr/bin/{name}", copy.display()));
        }
        for (from, to) in files {
            command.arg("--copy").arg(format!("{}:{to}", from.display()));
        }
        let output = command
            .args(["--mem", "1024"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("cannot run {self:?}: {e}"));
        let (said, why) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{said}\n{why}",
            output.status
        );
        aloud(&why);
        said.into_owned()
    }
}

/// Notes that the running test does nothing, and why.
pub fn not_run(why: &str) {
    let program = env::current_exe().unwrap_or_default();
    let program = program.file_stem().unwrap_or_default().to_string_lossy();
    // Cargo adds a hash to the names of test programs; libtest names its threads after the tests.
    let program = program.rsplit_once('-').map_or(&*program, |(name, _)| name);
    let line = match thread::current().name() {
        Some(test) if test != "main" => format!("{program}: {test}: {why}\n"),
        _ => format!("{program}: {why}\n"),
    };
    aloud(&format!("not run: {line}"));
    if let Some(path) = env::var_os("BONDD_NOT_RUN") {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    }
}

/// To standard error itself: what `eprintln!` prints is kept back by libtest when the test passes.
fn aloud(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The lab's usual kernel.
const CLOUD: &str = "cloud";

/// Exit status of the lab when it failed itself.
const LAB_FAILED: i32 = 125;

/// Copies of programs without symbols: what goes into the machine is unpacked there by a slow processor.
struct Slim {
    folder: PathBuf,
}

impl Slim {
    fn new() -> Slim {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("bondd-slim-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("the temporary folder is ours");
        Slim { folder }
    }

    fn copy(&self, program: &Path, name: &str) -> PathBuf {
        let copy = self.folder.join(name);
        let stripped = Command::new("strip").arg("-o").arg(&copy).arg(program).status();
        if !stripped.is_ok_and(|status| status.success()) {
            fs::copy(program, &copy).unwrap_or_else(|e| panic!("cannot copy {}: {e}", program.display()));
        }
        copy
    }
}

impl Drop for Slim {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Runs a script of `tests/vm/` in Debian's stock kernel with our programs in `/usr/bin` and these kernel modules, and returns its
/// output; `None` where there is no lab, see [`Lab::for_test`].
///
/// # Panics
/// When the script fails, with its output; where there is no lab, under `CI=true`.
#[track_caller]
pub fn run_in_vm(script: &str, modules: &[&str]) -> Option<String> {
    let lab = Lab::for_test()?;
    let folder = root().join("tests/vm");
    let (bondd, bondctl) = (bin("bondd"), bin("bondctl"));
    // What the scripts read first, or use.
    let (common, teamopt) = (folder.join("common.sh"), folder.join("teamopt.py"));
    let files: [(&Path, &str); 2] = [(&common, "/common.sh"), (&teamopt, "/teamopt.py")];
    let path = folder.join(script);
    let mut arguments = vec!["--bin", "ping", "--bin", "tcpdump"];
    // A hung script is ended by the guest's clock; the computer may be busy with other things.
    arguments.extend(["--guest-timeout", "600", "--timeout", "1800"]);
    if script.starts_with("team") {
        arguments.push("--with-python");
    }
    arguments.extend(["--run", path.to_str().expect("the names of scripts are ASCII")]);
    Some(lab.run(modules, &[&bondd, &bondctl], &files, &arguments))
}

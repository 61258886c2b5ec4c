//! The throw-away machine with a stock kernel, where the lab that starts it is at hand.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::bins::{bin, root};

/// The program that starts machines, with what it needs installed and fetched.
#[derive(Debug)]
pub struct Lab {
    path: PathBuf,
}

impl Lab {
    /// The lab, or why there is none: it is not there, or cannot fetch its kernel. These are the only reasons for which a test
    /// may do nothing.
    ///
    /// # Panics
    /// When the lab fails for another reason.
    #[track_caller]
    pub fn find() -> Result<Lab, String> {
        let path = env::var_os("BONDD_LAB").map_or_else(|| root().join("../shared/lab/vm"), PathBuf::from);
        if !path.exists() {
            return Err(format!(
                "there is no {} (BONDD_LAB names another place)",
                path.display()
            ));
        }
        let lab = Lab { path };
        // With the real emulator in sight, which it may have to install.
        let mut prepare = Command::new(&lab.path);
        prepare.arg("--prepare").stdin(Stdio::null());
        let output = prepare.output().unwrap_or_else(|e| panic!("cannot run {lab:?}: {e}"));
        let why = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(125) && why.contains("apt-get") {
            return Err(format!("the lab cannot fetch what it needs: {}", why.trim()));
        }
        assert!(output.status.success(), "{lab:?}: {}\n{why}", output.status);
        Ok(lab)
    }

    /// Starts a machine with these kernel modules (with a `+`, only at hand), programs in `/usr/bin` and files, and returns what it
    /// printed. The machine has a clock of its own, see `tests/vm/qemu`.
    ///
    /// # Panics
    /// When what runs in it fails, with its output.
    #[track_caller]
    pub fn run(&self, modules: &[&str], programs: &[&Path], files: &[(&Path, &str)], arguments: &[&str]) -> String {
        let path = env::var_os("PATH").unwrap_or_default();
        let emulator = root().join("tests/vm/qemu");
        let paths = env::join_paths(std::iter::once(emulator).chain(env::split_paths(&path)));
        let mut command = Command::new(&self.path);
        command.env(
            "PATH",
            paths.expect("no folder of the workspace has a colon in its name"),
        );
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
        said.into_owned()
    }
}

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
/// output; `None`, with the reason on standard output, where there is no lab.
///
/// # Panics
/// When the script fails, with its output.
#[track_caller]
pub fn run_in_vm(script: &str, modules: &[&str]) -> Option<String> {
    let lab = match Lab::find() {
        Ok(lab) => lab,
        Err(why) => {
            println!("not run: {why}");
            return None;
        }
    };
    let folder = root().join("tests/vm");
    let (bondd, bondctl) = (bin("bondd"), bin("bondctl"));
    // What the scripts read first, or use.
    let (common, teamopt) = (folder.join("common.sh"), folder.join("teamopt.py"));
    let files: [(&Path, &str); 2] = [(&common, "/common.sh"), (&teamopt, "/teamopt.py")];
    let path = folder.join(script);
    let mut arguments = vec!["--bin", "ping", "--bin", "tcpdump", "--timeout", "500"];
    if script.starts_with("team") {
        arguments.push("--with-python");
    }
    arguments.extend(["--run", path.to_str().expect("the names of scripts are ASCII")]);
    Some(lab.run(modules, &[&bondd, &bondctl], &files, &arguments))
}

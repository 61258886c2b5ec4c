//! The throw-away machine with a stock kernel, where the lab that starts it is at hand.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::bins::{bin, root};

/// Runs a script of `tests/vm/` in Debian's stock kernel with our programs in `/usr/bin` and these kernel modules (with a `+`, only at
/// hand), and returns its output. `None`, with the reason on standard output, where there is no lab or it cannot fetch its kernel: the only reason for
/// which a test may do nothing.
///
/// # Panics
/// When the script fails, with its output.
#[track_caller]
pub fn run_in_vm(script: &str, modules: &[&str]) -> Option<String> {
    let lab = env::var_os("BONDD_LAB").map_or_else(|| root().join("../shared/lab/vm"), PathBuf::from);
    if !lab.exists() {
        println!("not run: there is no {} (BONDD_LAB names another place)", lab.display());
        return None;
    }
    let mut command = Command::new(&lab);
    for program in ["bondd", "bondctl"] {
        command
            .arg("--copy")
            .arg(format!("{}:/usr/bin/{program}", bin(program).display()));
    }
    // What the scripts read first, or use.
    for shared in ["common.sh", "teamopt.py"] {
        let shared_file = root().join("tests/vm").join(shared);
        command
            .arg("--copy")
            .arg(format!("{}:/{shared}", shared_file.display()));
    }
    if script.starts_with("team") {
        command.arg("--with-python");
    }
    for module in modules {
        command.args(["--module", module]);
    }
    command.args(["--bin", "ping", "--bin", "tcpdump", "--mem", "1024", "--timeout", "300"]);
    command
        .arg("--run")
        .arg(root().join("tests/vm").join(script))
        .stdin(Stdio::null());
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("cannot run {}: {e}", lab.display()));
    let (said, why) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if output.status.code() == Some(125) && why.contains("apt-get") {
        println!("not run: the lab cannot fetch what it needs: {}", why.trim());
        return None;
    }
    assert!(output.status.success(), "{script}: {}\n{said}\n{why}", output.status);
    Some(said.into_owned())
}

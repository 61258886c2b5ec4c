//! The command `ifenslave` for scripts written since 1999: a client of the agent's control socket with the command line and
//! the exit codes of the last one in the kernel's tree, 1.1.0.
//!
//! It starts nothing by itself. What it does to a port with its own hands is what 1.1.0 did before it asked the driver: it
//! sets the interface down and takes its IPv4 addresses away. Address, MTU and the rest are the agent's business.
//!
//! Exit codes: 0 done; 1 refused, by us or by bondd; 2 usage; 255 a setting of an interface could not be changed; any other
//! is the errno with which settings could not be read. With several interfaces the last failing one decides.
//!
//! Bugs of 1.1.0 that are left out: after a refusal the bond keeps its address and the interface its addresses and its up
//! flag; detaching restores the MTU instead of forcing 1500; addresses are shown whole and in decimal; the reason of a
//! failure is always printed; surplus operands of `-c` are mentioned.

use std::env;
use std::process::ExitCode;

use self::program::{Console, perform, plan};
use self::system::System;

mod getopt;
mod program;
mod system;
mod text;
mod world;

/// The whole program.
pub fn main() -> ExitCode {
    let words: Vec<String> = env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let posixly_correct = env::var_os("POSIXLY_CORRECT").is_some();
    let mut console = Console::of_this_process();
    let code = match plan(&words, posixly_correct, &mut console) {
        Err(code) => code,
        Ok(task) => match System::open(bondd::control::run_dir()) {
            Ok(mut system) => perform(&task, &mut system, &mut console),
            Err(e) => {
                console.complain(&format!("ifenslave: cannot open a socket to the kernel: {e}"));
                1
            }
        },
    };
    ExitCode::from(code)
}

//! The command `ifenslave` for scripts written since 1999: a client of the agent's control socket with the command line and
//! the exit codes of the last one in the kernel's tree, 1.1.0, or of the shell command that Debian had after it.
//!
//! It does not start the agent. As 1.1.0 did, it sets an interface down and removes its IPv4 addresses itself; the agent sets
//! the hardware address, the MTU and the rest.
//!
//! Exit codes: 0 done; 1 refused, by ifenslave or by bondd; 2 usage; 255 a setting of an interface could not be changed; any
//! other
//! is the errno with which settings could not be read. With several interfaces the last failing one decides.
//!
//! Bugs of 1.1.0 that are not repeated: after a refusal the bond keeps its address and the interface its addresses and its up
//! flag; detaching restores the MTU instead of forcing 1500; addresses are shown whole and in decimal; the reason of a
//! failure is always printed; surplus operands of `-c` are mentioned.

use std::env;
use std::ffi::OsStr;
use std::process::ExitCode;

use self::program::{Console, REFUSED, WRONG_USAGE};
use self::system::System;

mod debian;
#[cfg(test)]
mod fake;
mod getopt;
mod program;
mod system;
mod text;
mod world;

/// Environment variable with the form.
const FORM_ENV: &str = "BONDD_IFENSLAVE";

/// The old program whose behaviour is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The last one that came with the kernel.
    Kernel,
    /// Debian's shell command.
    Debian,
}

impl Form {
    /// Reads it from the environment; an empty value counts as unset.
    fn parse(value: Option<&OsStr>) -> Result<Form, String> {
        match value.map(OsStr::to_string_lossy).as_deref() {
            None | Some("" | "1.1.0") => Ok(Form::Kernel),
            Some("debian") => Ok(Form::Debian),
            Some(other) => Err(format!("{FORM_ENV} is {other:?}, expected 1.1.0 or debian")),
        }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let words: Vec<String> = env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut console = Console::of_this_process();
    ExitCode::from(run(&words, &mut console).unwrap_or_else(|code| code))
}

/// Returns the exit code; an error means that nothing was done.
fn run(words: &[String], console: &mut Console) -> Result<u8, u8> {
    let form = Form::parse(env::var_os(FORM_ENV).as_deref()).map_err(|why| {
        console.complain(&format!("ifenslave: {why}"));
        WRONG_USAGE
    })?;
    match form {
        Form::Kernel => {
            let posixly_correct = env::var_os("POSIXLY_CORRECT").is_some();
            let task = program::plan(words, posixly_correct, console)?;
            Ok(program::perform(&task, &mut open(console)?, console))
        }
        Form::Debian => {
            let task = debian::plan(words, console)?;
            Ok(debian::perform(&task, &mut open(console)?, console))
        }
    }
}

fn open(console: &mut Console) -> Result<System, u8> {
    System::open(bondd::control::run_dir()).map_err(|e| {
        console.complain(&format!("ifenslave: cannot open a socket to the kernel: {e}"));
        REFUSED
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_form_or_is_refused() {
        let parse = |value: &str| Form::parse(Some(OsStr::new(value)));
        assert_eq!(Form::parse(None), Ok(Form::Kernel));
        assert_eq!(
            (parse(""), parse("1.1.0"), parse("debian")),
            (Ok(Form::Kernel), Ok(Form::Kernel), Ok(Form::Debian))
        );
        let refusal = parse("2.6").unwrap_err();
        assert_eq!(refusal, "BONDD_IFENSLAVE is \"2.6\", expected 1.1.0 or debian");
    }
}

//! Runs in the lab's machine: plays the scenarios of a folder to the kernel's bonding driver and to the bondds whose planes are named
//! behind it, and prints what it observes.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let played = match &arguments[..] {
        [folder, columns @ ..] => bondd_tests::fidelity::guest::main(Path::new(folder), columns),
        [] => Err("wants a folder of scenarios, and planes".to_owned()),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bondd-fidelity-guest: {error}");
            ExitCode::FAILURE
        }
    }
}

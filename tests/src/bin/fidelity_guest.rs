//! Runs in the lab's machine: plays scenarios to the kernel's bonding driver and to bondd and prints what it observes.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "/fidelity".to_owned());
    let column = arguments.next().unwrap_or_else(|| "tc".to_owned());
    match bondd_tests::fidelity::guest::main(Path::new(&folder), &column) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bondd-fidelity-guest: {error}");
            ExitCode::FAILURE
        }
    }
}

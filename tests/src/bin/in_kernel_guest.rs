//! Runs in the lab's machine: pulls cables of agents that run, are stopped or gone, and prints what was lost.

use std::process::ExitCode;

fn main() -> ExitCode {
    let pulls = std::env::args().nth(1).map(|word| word.parse());
    match pulls {
        Some(Ok(pulls)) => {
            bondd_tests::in_kernel::play(pulls);
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: bondd-in-kernel-guest PULLS");
            ExitCode::FAILURE
        }
    }
}

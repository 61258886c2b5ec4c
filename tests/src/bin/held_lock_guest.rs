//! Runs in the lab's machine: pulls cables while others hold the kernel's RTNL lock, and prints what was lost.

use std::process::ExitCode;

fn main() -> ExitCode {
    let deletions: Result<Vec<usize>, _> = std::env::args().skip(1).map(|word| word.parse()).collect();
    match deletions {
        Ok(deletions) => {
            bondd_tests::held_lock::play(&deletions);
            ExitCode::SUCCESS
        }
        Err(_) => {
            eprintln!("usage: bondd-held-lock-guest INTERFACES...");
            ExitCode::FAILURE
        }
    }
}

//! Runs in the lab's machine: measures bondd and its competitors, and prints what was seen.

use std::process::ExitCode;

use bondd_tests::competitors::{costs, failover, slow_port};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let count = words.get(1).and_then(|word| word.parse().ok());
    match (words.first().map(String::as_str), count) {
        (Some("costs"), Some(frames)) => costs::play(frames),
        (Some(part @ ("pulled" | "dead")), Some(pulls)) => {
            failover::play(part == "dead", pulls, words.get(2).map_or("", String::as_str));
        }
        (Some("slow-port"), Some(seconds)) => slow_port::play(seconds, words.get(2..).unwrap_or_default()),
        _ => {
            eprintln!(
                "usage: bondd-competitors-guest costs FRAMES | pulled PULLS [WORD] | dead PULLS [WORD] | slow-port SECONDS NAME..."
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

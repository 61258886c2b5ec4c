//! The readers of option files withstand whatever they are given; `make fuzz` gives them more.

use std::process::Command;

use bondd_tests::daemon::succeeded;
use bondd_tests::fuzz_options::Fuzzer;

#[test]
fn changed_option_files_are_read_without_panic_hang_or_much_memory() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bondd-fuzz-options"));
    command.env("SEED", "7").env("EXECUTIONS", "5000").env("SECONDS", "120");
    let said = succeeded("bondd-fuzz-options", command.output().expect("it can be run"));
    println!("{said}");
    assert!(said.starts_with("seed 7: 5000 executions"), "{said}");
    // The changed files are still near enough to good ones to say something.
    let kinds = said
        .split("kinds of findings ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    let kinds: u32 = kinds.and_then(|kinds| kinds.parse().ok()).expect("it counts kinds");
    assert!(kinds > 40, "{said}");
}

#[test]
fn a_seed_gives_the_same_files_every_time() {
    let (first, second) = (Fuzzer::new(3), Fuzzer::new(3));
    for execution in 0..200 {
        assert_eq!(first.sources(execution), second.sources(execution));
    }
    assert_ne!(first.sources(1), Fuzzer::new(4).sources(1));
}

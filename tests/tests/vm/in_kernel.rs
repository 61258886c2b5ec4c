//! Failover by the kernel itself, on both of the lab's kernels: with the agent running, stopped and killed.

use bondd_tests::bins::{bin, own_bin, tests_of};
use bondd_tests::in_kernel::{MODULES, measure};
use bondd_tests::vm::Lab;

#[test]
fn on_6_1_the_kernel_fails_over_whether_the_agent_runs_is_stopped_or_killed() {
    if let Some(lab) = Lab::for_test() {
        check(&lab);
    }
}

#[test]
fn on_6_12_the_kernel_fails_over_whether_the_agent_runs_is_stopped_or_killed() {
    if let Some(lab) = Lab::for_test_on("6.12") {
        check(&lab);
    }
}

fn check(lab: &Lab) {
    let guest = own_bin(env!("CARGO_BIN_EXE_bondd-in-kernel-guest"));
    let measured = measure(lab, &[&bin("bondd"), &bin("bondctl"), &guest], PULLS);
    for row in &measured.rows {
        println!("{} {}: {:?}", row.who, row.how, row.lost);
        if row.who == "bondd" {
            let most = row.lost.iter().max().expect("cables were pulled");
            assert!(*most <= CLOSING, "{}: {most} frames lost", row.how);
        }
    }
    let rows = &measured.rows;
    assert_eq!(rows.iter().filter(|row| row.who == "bondd").count(), 3);
    let (whole, failover) = measured.instructions();
    println!("{whole} instructions, {failover} of them for the failover");
    assert!(failover < GOAL, "{failover} instructions");
}

#[test]
fn the_plane_prepares_fails_over_and_takes_over_on_both_kernels() {
    for kernel in [Lab::for_test(), Lab::for_test_on("6.12")].into_iter().flatten() {
        let program = tests_of("bondd", &["--lib"]);
        let path = format!(
            "/usr/bin/{}",
            program.file_name().expect("a program has a name").to_string_lossy()
        );
        let mut arguments = vec!["--timeout", "900", "--env", "CI=true", "--", &path];
        arguments.extend([
            "--include-ignored",
            "--test-threads",
            "1",
            "dataplane::tc::tests::failover",
        ]);
        let said = kernel.run(MODULES, &[&program], &[], &arguments);
        println!("{said}");
        assert!(said.contains("35 passed"), "{said}");
    }
}

/// Of each row.
const PULLS: usize = 4;
/// Frames, of 10,000 a second, that an emulated cable loses while it closes: it takes none any more before its other end hears of that.
const CLOSING: u64 = 50;
/// Instructions of a failover.
const GOAL: u64 = 5_000;

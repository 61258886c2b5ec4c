//! The kernel's RTNL lock is held by others, who delete thousands of interfaces: how many frames a pulled cable costs meanwhile, with
//! the kernel's driver and with bondd, in the lab's machine.

use bondd_tests::bins::{bin, own_bin};
use bondd_tests::held_lock::MODULES;
use bondd_tests::vm::Lab;
use serde_json::Value;

#[test]
fn with_the_lock_held_by_others_a_bond_moves_as_soon_as_the_kernel_reports_and_no_later_than_its_driver() {
    let guest = own_bin(env!("CARGO_BIN_EXE_bondd-held-lock-guest"));
    let Some(lab) = Lab::for_test() else { return };
    let play = [
        "--env",
        "BONDD_BIN_DIR=/usr/bin",
        "--timeout",
        "1200",
        "--guest-timeout",
        "120",
        "--",
        "/usr/bin/bondd-held-lock-guest",
    ];
    let said = lab.run(
        MODULES,
        &[&bin("bondd"), &bin("bondctl"), &guest],
        &[],
        &[&play[..], &DELETIONS].concat(),
    );
    println!("{said}");
    let rounds: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [idle, held] = &rounds[..] else {
        panic!("two rounds")
    };
    for round in [idle, held] {
        let (kernel, bondd) = (lost(&round["kernel"]), lost(&round["bondd"]));
        assert!(
            bondd <= kernel + SLOW,
            "bondd lost {bondd} frames, the kernel's driver {kernel}"
        );
        let after = round["bondd"]["lost after the report"]
            .as_u64()
            .expect("the kernel reports");
        assert!(after <= SLOW, "{after} frames lost after the kernel's report");
    }
    assert!(
        lost(&held["kernel"]) >= 20 * SLOW,
        "the lock was not in the way of the kernel's driver"
    );
}

fn lost(of: &Value) -> u64 {
    of["lost"].as_u64().expect("frames are counted")
}

/// Interfaces that three requests delete: the first holds the lock until the cables are pulled, the others while they are dead.
const DELETIONS: [&str; 3] = ["2000", "5000", "1000"];

/// Frames, one a millisecond, that the emulated processor may take to do something.
const SLOW: u64 = 20;

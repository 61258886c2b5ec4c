//! Tests in the lab's machines. One program, so that they run side by side: a machine takes one processor and computes without a
//! pause, because waiting costs it nothing.

mod fidelity;
mod files;
mod fixed_mac;
mod guest;
mod held_lock;
mod in_kernel;
mod instructions;
mod netkit;
mod path_dead;
mod team;

use bondd_tests::vm::run_in_vm;

/// Runs a script of `tests/vm/` to its last line.
fn all_steps_pass(script: &str, modules: &[&str]) {
    let Some(said) = run_in_vm(script, modules) else { return };
    println!("{said}");
    assert!(said.ends_with("all steps passed\n"), "{said}");
}

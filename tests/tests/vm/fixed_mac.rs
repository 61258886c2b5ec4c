//! Ports that cannot change their address, beside the kernel's driver, in a machine of its own.

use bondd_tests::vm::run_in_vm;

#[test]
fn a_port_that_cannot_change_its_address_is_taken_and_refused_as_by_the_kernels_driver() {
    let modules = [
        "veth",
        "bridge",
        "bonding",
        "ifb",
        "sch_ingress",
        "cls_bpf",
        "+team",
        "+team_mode_activebackup",
        "+team_mode_loadbalance",
        "+team_mode_broadcast",
    ];
    let Some(said) = run_in_vm("fixed_mac.sh", &modules) else {
        return;
    };
    println!("{said}");
    assert!(said.contains("all steps passed"), "{said}");
}

//! Ports that cannot change their address, beside the kernel's driver, in a machine of its own.

use super::all_steps_pass;

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
    all_steps_pass("fixed_mac.sh", &modules);
}

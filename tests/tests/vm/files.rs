//! Files of the agent beside those of a stock kernel, in a machine of its own.

use super::all_steps_pass;

#[test]
fn speed_and_duplex_of_a_port_without_carrier_are_what_the_kernel_says_of_it() {
    let modules = ["veth", "bridge", "bonding", "8021q", "sch_ingress", "cls_bpf"];
    all_steps_pass("speed.sh", &modules);
}

//! Files of the agent beside those of a stock kernel, in a machine of its own.

use bondd_tests::vm::run_in_vm;

#[test]
fn speed_and_duplex_of_a_port_without_carrier_are_what_the_kernel_says_of_it() {
    let modules = ["veth", "bridge", "bonding", "8021q", "sch_ingress", "cls_bpf"];
    let Some(said) = run_in_vm("speed.sh", &modules) else {
        return;
    };
    println!("{said}");
    assert!(said.contains("all steps passed"), "{said}");
}

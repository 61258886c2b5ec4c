//! Debian's 6.1 kernel has no tcx: the whole main job through clsact and cls_bpf, in a machine of its own.

use bondd_tests::vm::run_in_vm;

#[test]
fn a_kernel_without_tcx_fails_over_restarts_without_loss_and_gives_ports_back() {
    let Some(said) = run_in_vm("clsact.sh", &["veth", "bridge", "sch_ingress", "cls_bpf"]) else {
        return;
    };
    println!("{said}");
    assert!(said.contains("all steps passed"), "{said}");
}

#[test]
fn a_kernel_without_a_data_plane_is_named_with_the_option_it_needs() {
    let Some(said) = run_in_vm("no-plane.sh", &["dummy"]) else {
        return;
    };
    println!("{said}");
    assert!(said.contains("CONFIG_"), "{said}");
}

//! On Debian's 6.1 kernel, in a machine of its own: the whole main job through clsact and cls_bpf, for it has no tcx, and what the
//! kernel that runs the other tests may lack: VLANs, tc's marks, or any data plane at all.

use bondd_tests::vm::run_in_vm;

use super::all_steps_pass;

#[test]
fn a_kernel_without_tcx_fails_over_restarts_without_loss_and_gives_ports_back() {
    all_steps_pass("clsact.sh", &["veth", "bridge", "sch_ingress", "cls_bpf"]);
}

#[test]
fn marks_of_tc_reach_the_port_of_their_queue_and_nothing_else_does() {
    let tc = ["sch_ingress", "cls_bpf", "cls_u32", "act_skbedit", "sch_multiq"];
    all_steps_pass("queues.sh", &[&["veth", "bridge"][..], &tc].concat());
}

#[test]
fn probes_and_learning_frames_bear_the_tags_of_their_vlans() {
    all_steps_pass("vlans.sh", &["veth", "bridge", "8021q", "sch_ingress", "cls_bpf"]);
}

#[test]
fn a_kernel_without_a_data_plane_is_named_with_the_option_it_needs() {
    let Some(said) = run_in_vm("no-plane.sh", &["dummy"]) else {
        return;
    };
    println!("{said}");
    assert!(said.contains("CONFIG_"), "{said}");
}

//! Debian's 6.1 kernel has the team driver: the whole main job on it, in a machine of its own.

use bondd_tests::vm::run_in_vm;

#[test]
fn a_bond_on_the_team_driver_fails_over_restarts_without_loss_and_gives_ports_back() {
    let modules = [
        "veth",
        "bridge",
        "+team",
        "+team_mode_activebackup",
        "+team_mode_loadbalance",
        "+team_mode_broadcast",
        "sch_ingress",
        "cls_bpf",
    ];
    let Some(said) = run_in_vm("team.sh", &modules) else {
        return;
    };
    println!("{said}");
    assert!(said.contains("all steps passed"), "{said}");
}

#[test]
fn a_mode_without_its_module_is_named_with_the_option_it_needs() {
    let modules = [
        "veth",
        "bridge",
        "+team",
        "+team_mode_activebackup",
        "sch_ingress",
        "cls_bpf",
    ];
    let Some(said) = run_in_vm("team-modes.sh", &modules) else {
        return;
    };
    println!("{said}");
    assert!(said.contains("all steps passed"), "{said}");
}

//! Debian's 6.1 kernel has the team driver: the whole main job on it, in a machine of its own.

use super::all_steps_pass;

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
    all_steps_pass("team.sh", &modules);
}

#[test]
fn a_mode_without_its_module_is_named_with_the_option_it_needs() {
    all_steps_pass("team-modes.sh", ACTIVE_BACKUP_ALONE);
}

#[test]
fn a_port_that_others_want_stays_with_its_agent_or_leaves_as_itself() {
    all_steps_pass("team-ports.sh", ACTIVE_BACKUP_ALONE);
}

/// Kernel modules, of the modes of the team driver that of active-backup.
const ACTIVE_BACKUP_ALONE: &[&str] = &[
    "veth",
    "bridge",
    "+team",
    "+team_mode_activebackup",
    "sch_ingress",
    "cls_bpf",
];

//! Options of the kernel's driver for modes that bondd does not have.

/// Parameters of the kernel's driver for modes that bondd does not have.
const UNSUPPORTED: [&str; 3] = ["lacp_rate", "ad_select", "tx_queues"];

/// Further options for these modes that are not parameters. [bonding.rst]
const UNSUPPORTED_OPTIONS: [&str; 6] = [
    "ad_actor_sys_prio",
    "ad_actor_system",
    "ad_user_port_key",
    "coupled_control",
    "lacp_active",
    "tlb_dynamic_lb",
];

/// Whether the kernel's driver has this parameter, and bondd does not.
pub(super) fn is_unsupported(name: &str) -> bool {
    UNSUPPORTED.contains(&name.replace('-', "_").as_str())
}

/// Whether the kernel's driver has this option, as a parameter or not, and bondd does not.
pub(super) fn is_for_other_modes(name: &str) -> bool {
    is_unsupported(name) || UNSUPPORTED_OPTIONS.contains(&name.replace('-', "_").as_str())
}

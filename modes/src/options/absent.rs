//! Options of the kernel's driver for the modes that bondd does not have.

/// Those that are parameters of its module.
const PARAMETERS: [&str; 3] = ["lacp_rate", "ad_select", "tx_queues"];

/// Those that are not. [bonding.rst]
const OPTIONS: [&str; 6] = [
    "ad_actor_sys_prio",
    "ad_actor_system",
    "ad_user_port_key",
    "coupled_control",
    "lacp_active",
    "tlb_dynamic_lb",
];

/// Whether the driver's module has this parameter, and bondd does not; `-` and `_` are the same.
pub fn is_absent_parameter(name: &str) -> bool {
    PARAMETERS.contains(&name.replace('-', "_").as_str())
}

/// Whether the driver has this option, as a parameter or not, and bondd does not; `-` and `_` are the same.
pub fn is_absent_option(name: &str) -> bool {
    is_absent_parameter(name) || OPTIONS.contains(&name.replace('-', "_").as_str())
}

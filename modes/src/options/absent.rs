//! Words of the kernel's driver that bondd does not have.

/// Modes that bondd does not have, each with its number. [bonding.rst: mode]
pub const ABSENT_MODES: [(&str, u8); 3] = [("802.3ad", 4), ("balance-tlb", 5), ("balance-alb", 6)];

/// Parameters of the driver's module for these modes.
const PARAMETERS: [&str; 3] = ["lacp_rate", "ad_select", "tx_queues"];

/// Further options for these modes that are not parameters. [bonding.rst]
const OPTIONS: [&str; 6] = [
    "ad_actor_sys_prio",
    "ad_actor_system",
    "ad_user_port_key",
    "coupled_control",
    "lacp_active",
    "tlb_dynamic_lb",
];

/// Whether it is, by name or number, one of [`ABSENT_MODES`].
pub fn is_absent_mode(text: &str) -> bool {
    let text = text.trim();
    ABSENT_MODES
        .iter()
        .any(|(name, number)| *name == text || text.parse() == Ok(*number))
}

/// Whether the driver's module has this parameter, and bondd does not; `-` and `_` are the same.
pub fn is_absent_parameter(name: &str) -> bool {
    PARAMETERS.contains(&name.replace('-', "_").as_str())
}

/// Whether the driver has this option, as a parameter or not, and bondd does not; `-` and `_` are the same.
pub fn is_absent_option(name: &str) -> bool {
    is_absent_parameter(name) || OPTIONS.contains(&name.replace('-', "_").as_str())
}

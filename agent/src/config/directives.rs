//! Words of option files that more than one grammar knows.

/// Name of the kernel's module, which stands for all bonds.
pub(super) const MODULE: &str = "bonding";

/// Directives with commands to run before, instead of or after loading or removing a module.
pub(super) const COMMANDS: [&str; 6] = [
    "pre-install",
    "install",
    "post-install",
    "pre-remove",
    "remove",
    "post-remove",
];

/// Settings of modules.conf with a `=` after their name, and hints for depmod; they do not concern bonds.
pub(super) const SETTINGS: [&str; 15] = [
    "path",
    "depfile",
    "pcimapfile",
    "isapnpmapfile",
    "usbmapfile",
    "parportmapfile",
    "ieee1394mapfile",
    "pnpbiosmapfile",
    "generic_stringfile",
    "persistdir",
    "insmod_opt",
    "keep",
    "prune",
    "above",
    "below",
];

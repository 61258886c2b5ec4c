//! Names that are possible for network interfaces and for bonds.

use std::collections::BTreeSet;

/// Reserved names: files beside a bond's own, words of the option files, folders of the kernel's settings.
const RESERVED: [&str; 5] = ["bonding_masters", "max_bonds", "bonding", "all", "default"];

/// Longest name in bytes. [if.h: IFNAMSIZ]
const LONGEST: usize = 15;

/// Why no bond can have this name.
pub fn check_bond(name: &str) -> Result<(), String> {
    if RESERVED.contains(&name) {
        return Err(format!("{name} is reserved, expected another name for the bond"));
    }
    check_interface(name)
}

/// Why no interface can have this name. [dev.c: dev_valid_name]
pub fn check_interface(name: &str) -> Result<(), String> {
    let wrong = if name.is_empty() {
        "an empty name"
    } else if name.len() > LONGEST {
        "longer than 15 bytes"
    } else if name == "." || name == ".." {
        "a folder"
    // The kernel reads % as a pattern for a free number.
    } else if name.contains(|c: char| c.is_whitespace() || c.is_control() || "/:%".contains(c)) {
        "not possible with a blank, / : or % in it"
    } else {
        return Ok(());
    };
    Err(format!(
        "{name:?} is not an interface name ({wrong}), expected 1 to 15 bytes such as bond0"
    ))
}

/// The lowest free name. [bond_main.c: bond_create]
pub(super) fn free_name(taken: &BTreeSet<String>) -> String {
    (0..)
        .map(|number: usize| format!("bond{number}"))
        .find(|name| !taken.contains(name))
        .expect("fewer bonds than numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_takes_are_taken() {
        for name in ["bond0", "b", "uplink-a.5", "123456789012345", "größe", "-o", ".x"] {
            assert_eq!(check_bond(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_the_kernel_refuses_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "1234567890123456",
            "größe678901234",
            "a/b",
            "a b",
            "a\tb",
            "a:b",
            "bond%d",
            "a\0",
        ] {
            assert!(check_interface(name).is_err(), "{name:?}");
            assert!(check_bond(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn words_of_the_surroundings_are_no_bonds_but_may_be_ports() {
        for name in RESERVED {
            assert!(check_bond(name).is_err(), "{name}");
            assert_eq!(check_interface(name), Ok(()), "{name}");
        }
    }
}

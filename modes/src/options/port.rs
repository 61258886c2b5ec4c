//! Options of a single port.

use super::table::Modes;
use super::{ModeName, OptionError};

/// Effective options of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortOptions {
    /// Preference among ports while no primary is attached; higher wins.
    pub prio: i32,
}

/// One option of a port.
pub struct PortRow {
    /// The kernel's name.
    pub name: &'static str,
    /// In which modes it may be set.
    pub modes: Modes,
    /// What it takes, for messages and help.
    pub expected: &'static str,
    /// For help and man page.
    pub doc: &'static str,
    parse: fn(&str, &mut PortOptions) -> bool,
}

impl PortOptions {
    /// Takes a set of options in; all or nothing.
    pub fn apply(self, mode: ModeName, pairs: &[(String, String)]) -> Result<PortOptions, OptionError> {
        let mut next = self;
        for (name, value) in pairs {
            let Some(row) = PORT_TABLE.iter().find(|row| row.name == name) else {
                return Err(OptionError::Unknown {
                    name: name.clone(),
                    nearest: Some(PORT_TABLE[0].name),
                });
            };
            if !row.modes.contain(mode) {
                return Err(OptionError::WrongMode { option: row.name, mode });
            }
            if !(row.parse)(value, &mut next) {
                return Err(OptionError::BadValue {
                    option: row.name,
                    value: value.clone(),
                    expected: row.expected,
                });
            }
        }
        Ok(next)
    }
}

/// All options of a port. [bond_netlink.c: bond_slave_changelink]
pub static PORT_TABLE: &[PortRow] = &[PortRow {
    name: "prio",
    modes: Modes::Only(ModeName::ActiveBackup),
    expected: "a number, -2147483648 to 2147483647",
    doc: "Preference of this port while no primary is attached; the highest one whose link is up is active, as \
          primary_reselect allows. [bonding.rst: prio]",
    parse: |text, options| text.trim().parse().map(|prio| options.prio = prio).is_ok(),
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prio_is_any_signed_number() {
        let set = |value: &str| {
            PortOptions::default().apply(ModeName::ActiveBackup, &[("prio".to_owned(), value.to_owned())])
        };
        assert_eq!(set("-7"), Ok(PortOptions { prio: -7 }));
        assert!(matches!(
            set("2147483648"),
            Err(OptionError::BadValue { option: "prio", .. })
        ));
        assert!(matches!(
            PortOptions::default().apply(ModeName::ActiveBackup, &[("queue".to_owned(), "1".to_owned())]),
            Err(OptionError::Unknown { .. })
        ));
    }
}

//! Options of a single port.

use super::apply::nearest;
use super::row::Modes;
use super::{ModeName, OptionError};

/// Effective options of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortOptions {
    /// Preference among ports while no primary is attached; higher wins.
    pub prio: i32,
    /// Transmit queue whose frames leave through this port; 0 for none.
    pub queue_id: u16,
}

/// One option of a port.
pub struct PortRow {
    /// The kernel's name.
    pub name: &'static str,
    /// In which modes it may be set.
    pub modes: Modes,
    /// The expected values, for messages and help.
    pub expected: &'static str,
    /// For help and man page.
    pub doc: &'static str,
    parse: fn(&str, &mut PortOptions) -> bool,
    /// Effective value.
    pub(crate) show: fn(&PortOptions) -> i64,
}

impl PortOptions {
    /// Applies a set of options, all or nothing.
    pub fn apply(self, mode: ModeName, pairs: &[(String, String)]) -> Result<PortOptions, OptionError> {
        let mut next = self;
        for (name, value) in pairs {
            let Some(row) = PORT_TABLE.iter().find(|row| row.name == name) else {
                return Err(OptionError::Unknown {
                    name: name.clone(),
                    nearest: nearest(name, PORT_TABLE.iter().map(|row| row.name)),
                });
            };
            if !row.modes.contain(mode) {
                return Err(OptionError::WrongMode {
                    option: row.name,
                    mode,
                    expected: row.modes.names(),
                });
            }
            next = next.set_all([(name, value)])?;
        }
        Ok(next)
    }

    /// Sets the options with these names, in any mode.
    pub(crate) fn set_all<'a>(
        mut self,
        values: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<PortOptions, OptionError> {
        for (name, value) in values {
            let Some(row) = PORT_TABLE.iter().find(|row| row.name == name) else {
                continue;
            };
            if !(row.parse)(value, &mut self) {
                return Err(OptionError::BadValue {
                    option: row.name,
                    value: value.clone(),
                    expected: row.expected.to_owned(),
                });
            }
        }
        Ok(self)
    }
}

/// All options of a port. [bond_netlink.c: bond_slave_changelink]
pub static PORT_TABLE: &[PortRow] = &[
    PortRow {
        name: "prio",
        modes: Modes::Only(ModeName::ActiveBackup),
        expected: "a number, -2147483648 to 2147483647",
        doc: "Preference of this port while no primary is attached; the highest one whose link is up is active, as \
              primary_reselect allows. [bonding.rst: prio]",
        parse: |text, options| text.trim().parse().map(|prio| options.prio = prio).is_ok(),
        show: |options| options.prio.into(),
    },
    PortRow {
        name: "queue_id",
        modes: Modes::All,
        expected: "a transmit queue of the bond, 1 to 16, or 0 for none",
        doc: "Frames that tc marks with this queue of the bond (action skbedit queue_mapping) leave through this port while \
              its link is up, in balance-rr and active-backup. [bonding.rst: queue_id]",
        parse: |text, options| {
            let queue = text.trim().parse().ok().filter(|queue| *queue <= QUEUES);
            queue.map(|queue| options.queue_id = queue).is_some()
        },
        show: |options| options.queue_id.into(),
    },
];

/// Transmit queues of a bond. [bond_main.c: BOND_DEFAULT_TX_QUEUES]
const QUEUES: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prio_is_any_signed_number() {
        let set = |value: &str| {
            PortOptions::default().apply(ModeName::ActiveBackup, &[("prio".to_owned(), value.to_owned())])
        };
        assert_eq!(set("-7").map(|options| options.prio), Ok(-7));
        assert!(matches!(
            set("2147483648"),
            Err(OptionError::BadValue { option: "prio", .. })
        ));
        assert!(matches!(
            PortOptions::default().apply(ModeName::ActiveBackup, &[("queue".to_owned(), "1".to_owned())]),
            Err(OptionError::Unknown {
                nearest: Some("queue_id"),
                ..
            })
        ));
    }
}

//! Why an option was refused.

use std::net::IpAddr;

use super::ModeName;
use super::absent::is_absent_option;

/// A refused option; nothing was changed. The order of the checks is the driver's. [bond_options.c: __bond_opt_set]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// There is no such option.
    #[error("{}", unknown(name, *nearest))]
    Unknown {
        /// As given.
        name: String,
        /// A known one that looks like it.
        nearest: Option<&'static str>,
    },
    /// The option means nothing in this mode. (EACCES)
    #[error("{option} is not for mode {mode}, expected mode {expected}")]
    WrongMode {
        /// Its name.
        option: &'static str,
        /// The bond's mode.
        mode: ModeName,
        /// The modes that use it.
        expected: &'static str,
    },
    /// The driver has this value, and bondd does not. (EINVAL)
    #[error("{option}={value}: bondd does not have this {option}, expected {expected}")]
    AbsentValue {
        /// Its name.
        option: &'static str,
        /// As given.
        value: String,
        /// The expected values.
        expected: String,
    },
    /// The option does not take that value.
    #[error("{option}: bad value {value:?}, expected {expected}")]
    BadValue {
        /// Its name.
        option: &'static str,
        /// As given.
        value: String,
        /// The expected values.
        expected: String,
    },
    /// A target that is to be added is there already. (EINVAL)
    #[error("{option}: {target} is in the list already")]
    Listed {
        /// Its name.
        option: &'static str,
        /// That target.
        target: IpAddr,
    },
    /// A target that is to be removed is not there. (EINVAL)
    #[error("{option}: {target} is not in the list")]
    NotListed {
        /// Its name.
        option: &'static str,
        /// That target.
        target: IpAddr,
    },
    /// The option may not change while there are ports. (ENOTEMPTY)
    #[error("{option} cannot change while the bond has ports, expected an empty bond")]
    HasPorts {
        /// Its name.
        option: &'static str,
    },
    /// As [`OptionError::HasPorts`] and [`OptionError::BondUp`] at once. (ENOTEMPTY)
    #[error(
        "{option} cannot change while the bond has ports and is up, expected an empty bond that was set down first"
    )]
    HasPortsAndUp {
        /// Its name.
        option: &'static str,
    },
    /// The option may not change while the bond is up. (EBUSY)
    #[error("{option} cannot change while the bond is up, expected it to be set down first")]
    BondUp {
        /// Its name.
        option: &'static str,
    },
    /// A delay without the monitor that it belongs to. (EPERM)
    #[error("{option} needs the MII monitor, expected miimon above 0")]
    NeedsMiimon {
        /// Its name.
        option: &'static str,
    },
    /// Two options that cannot be had together. (EINVAL)
    #[error("{option} does not go with {with}: {why}")]
    Conflict {
        /// One of them.
        option: &'static str,
        /// The other one.
        with: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// The transmit queue is bound to another port already. (EPERM)
    #[error("queue_id {queue} belongs to {port} already, expected another number or 0 for none")]
    QueueTaken {
        /// The queue.
        queue: u16,
        /// That port.
        port: String,
    },
    /// The value names a port of a bond that is still to be made, so has none. (EINVAL)
    #[error(
        "{option}: {value} is not a port of the bond yet, expected primary={value}, or {option} once it is attached"
    )]
    NoPortsYet {
        /// Its name.
        option: &'static str,
        /// As given.
        value: String,
    },
    /// The value does not name an attached port.
    #[error("{option}: {value} is not a port of this bond")]
    NotAPort {
        /// Its name.
        option: &'static str,
        /// As given.
        value: String,
    },
    /// The port cannot carry traffic.
    #[error("{option}: the link of {value} is not up")]
    PortDown {
        /// Its name.
        option: &'static str,
        /// As given.
        value: String,
    },
}

impl OptionError {
    /// The same error about something that the client calls so, and not by the option's name.
    #[must_use]
    pub fn about(mut self, name: &'static str) -> Self {
        match &mut self {
            OptionError::WrongMode { option, .. }
            | OptionError::AbsentValue { option, .. }
            | OptionError::BadValue { option, .. }
            | OptionError::Listed { option, .. }
            | OptionError::NotListed { option, .. }
            | OptionError::HasPorts { option }
            | OptionError::HasPortsAndUp { option }
            | OptionError::BondUp { option }
            | OptionError::NeedsMiimon { option }
            | OptionError::Conflict { option, .. }
            | OptionError::NoPortsYet { option, .. }
            | OptionError::NotAPort { option, .. }
            | OptionError::PortDown { option, .. } => *option = name,
            OptionError::Unknown { .. } | OptionError::QueueTaken { .. } => {}
        }
        self
    }

    /// Whether a conflict is about the option of this name.
    pub(super) fn names(&self, name: &str) -> bool {
        matches!(self, OptionError::Conflict { option, .. } if option.split('=').next() == Some(&name.replace('-', "_")))
    }
}

fn unknown(name: &str, nearest: Option<&str>) -> String {
    if is_absent_option(name) {
        return format!("{name} is for modes that bondd does not have, expected it to be left out");
    }
    let expected = match (name, nearest) {
        // Words of other tools for what is no option of a bond here.
        ("slaves" | "ports" | "slave" | "port", _) => "ports to be attached by `bondctl port add`".to_owned(),
        ("mtu" | "address" | "mac", _) => format!("{name} to be set by `ip link set`"),
        (_, Some(nearest)) => format!("{nearest} perhaps"),
        (_, None) => "one that bondctl(8) lists".to_owned(),
    };
    format!("unknown option {name}, expected {expected}")
}

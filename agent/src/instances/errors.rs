//! Errors of options and of planes, as clients get them.

use bond_modes::OptionError;

use crate::control::proto::{ControlError, ErrorCode};
use crate::dataplane::PlaneError;
use crate::text::chain;

/// An option error as a client gets it.
pub(super) fn option_error(object: &str, error: OptionError) -> ControlError {
    let code = match error {
        OptionError::Unknown { .. } => ErrorCode::UnknownOption,
        OptionError::BadValue { .. } | OptionError::Listed { .. } | OptionError::NotListed { .. } => {
            ErrorCode::BadValue
        }
        OptionError::NotAPort { .. } | OptionError::NoPortsYet { .. } => ErrorCode::NotAPort,
        _ => ErrorCode::Refused,
    };
    ControlError::new(code, format!("{object}: {error}"))
}

/// A data plane's error as a client gets it.
pub(super) fn plane_error(object: &str, error: &PlaneError) -> ControlError {
    let code = match error {
        PlaneError::PortGone { .. } => ErrorCode::NoSuchDevice,
        PlaneError::NotYet { .. }
        | PlaneError::Unsupported { .. }
        | PlaneError::OneQueue { .. }
        | PlaneError::UnknownPlane { .. }
        | PlaneError::NoPlane { .. } => ErrorCode::NoPlane,
        PlaneError::Inexact { .. } => ErrorCode::Refused,
        PlaneError::Permission { .. } => ErrorCode::Permission,
        PlaneError::NameTaken { .. } => ErrorCode::NameTaken,
        PlaneError::NotUndone { error, .. } => plane_error(object, error).code,
        PlaneError::Kernel { .. } | PlaneError::Limit { .. } | PlaneError::NotRecognised { .. } => ErrorCode::Kernel,
    };
    ControlError::new(code, format!("{object}: {}", chain(error)))
}

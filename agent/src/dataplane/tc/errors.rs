//! What aya says of a failure, as an error of the kernel.

use std::error::Error;
use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::ProgramError;
use aya::programs::tc::TcError;

use crate::text::chain;

/// An error of the kernel in other words, which keeps it as its source.
pub fn in_words(text: String, source: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    let source = source.into();
    let kind = source
        .downcast_ref()
        .map_or(io::ErrorKind::Other, |error: &io::Error| error.kind());
    io::Error::new(kind, InWords { text, source })
}

#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct InWords {
    text: String,
    source: Box<dyn Error + Send + Sync>,
}

/// The kernel's errno, in whatever it is wrapped.
pub fn errno_of(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let mut cause = error.get_ref().map(|inner| inner as &(dyn Error + 'static));
        while let Some(inner) = cause {
            if let Some(errno) = inner.downcast_ref().and_then(errno_of) {
                return Some(errno);
            }
            cause = inner.source();
        }
        None
    })
}

/// A removal of what may be gone already.
pub fn gone_is_fine(removed: Result<(), MapError>) -> io::Result<()> {
    match removed.map_err(map_error) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The kernel's errno out of aya's error, for the caller to act on; anything else keeps its text.
pub fn load_error(error: EbpfError) -> io::Error {
    match error {
        EbpfError::FileError { error, .. } => error,
        EbpfError::MapError(error) => map_error(error),
        EbpfError::ProgramError(error) => program_error(error),
        other => io::Error::other(chain(&other)),
    }
}

/// The kernel's errno out of aya's error, for the caller to act on; anything else keeps its text.
pub fn map_error(error: MapError) -> io::Error {
    match error {
        MapError::CreateError { io_error, .. } | MapError::IoError(io_error) => io_error,
        MapError::SyscallError(error) => error.io_error,
        MapError::PinError { error, .. } => pin_error(error),
        MapError::KeyNotFound | MapError::ElementNotFound => io::ErrorKind::NotFound.into(),
        other => io::Error::other(other),
    }
}

/// The kernel's errno out of aya's error, for the caller to act on; anything else keeps its text.
pub fn program_error(error: ProgramError) -> io::Error {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            log::debug!("the kernel refuses a program: {verifier_log}");
            io_error
        }
        ProgramError::SyscallError(error) => error.io_error,
        ProgramError::IOError(error) => error,
        ProgramError::MapError(error) => map_error(error),
        ProgramError::TcError(error) => tc_error(error),
        ProgramError::NetlinkError(error) => netlink_error(error),
        other => io::Error::other(other),
    }
}

/// The kernel's errno out of aya's error, for the caller to act on; anything else keeps its text.
pub fn tc_error(error: TcError) -> io::Error {
    match error {
        TcError::NetlinkError(error) => netlink_error(error),
        TcError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

fn netlink_error(error: aya::sys::NetlinkError) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error),
    }
}

/// The kernel's errno out of aya's error, for the caller to act on; anything else keeps its text.
pub fn pin_error(error: PinError) -> io::Error {
    match error {
        PinError::SyscallError(error) => error.io_error,
        other => io::Error::other(other),
    }
}

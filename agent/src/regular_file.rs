//! Files that others may have replaced by something else.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Reads a file, if it is a regular one of at most `longest` bytes: a FIFO would keep us waiting for its writer, and a device may have
/// no end.
///
/// # Errors
/// It is something else, or cannot be read.
pub fn read(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    bounded(&open(path)?, longest)
}

/// Reads the rest of a file of at most `longest` bytes.
///
/// # Errors
/// It is longer, or cannot be read.
pub fn bounded(file: &File, longest: u64) -> io::Result<Vec<u8>> {
    let too_long = || io::Error::other(format!("it is longer than {} MiB", longest >> 20));
    if file.metadata()?.len() > longest {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    file.take(longest + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > longest {
        true => Err(too_long()),
        false => Ok(bytes),
    }
}

/// Opens a file to read it, if it is a regular one.
///
/// # Errors
/// It is something else, or cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    // With O_NONBLOCK a FIFO that nobody writes to is opened at once.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

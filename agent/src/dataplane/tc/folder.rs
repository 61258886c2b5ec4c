//! Folders of a bpffs.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Removes one pin; harmless if it is not there.
pub fn unpin(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a folder holds; nothing if there is no such folder.
pub fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Removes a folder with all pins in it; harmless if there is none.
pub fn remove(dir: &Path) -> io::Result<()> {
    for name in names(dir)? {
        unpin(&dir.join(name))?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

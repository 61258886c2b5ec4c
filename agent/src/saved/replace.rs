//! Files that are there as a whole at any time.

use std::fs;
use std::io;
use std::path::Path;

/// Writes a file whole, then renames it. Makes its folder if that was removed.
///
/// # Errors
/// The system's. The file is then as it was.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = folder
        .and_then(|()| fs::write(&temporary, text))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Remove the incomplete file, which would use space on a full disk.
        let _ = fs::remove_file(&temporary);
    }
    written
}

//! Files that are there as a whole at any time.

use std::fs;
use std::io;
use std::path::Path;

use crate::may_wait::MayWait;

/// Writes a file whole, then renames it. Makes its folder if that was removed.
///
/// # Errors
/// The system's. The file is then as it was.
pub fn replace(path: &Path, text: &str, _: &mut impl MayWait) -> io::Result<()> {
    on_disk();
    let temporary = path.with_extension(UNFINISHED);
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

/// How the name of a file ends that is not written to its end.
pub(super) const UNFINISHED: &str = "new";

#[cfg(not(test))]
pub(super) fn on_disk() {}

#[cfg(test)]
pub(super) use tests::on_disk;

/// Lets a test see when its thread is at work on the disk.
#[cfg(test)]
pub mod tests {
    use std::cell::RefCell;

    type Look = Box<dyn FnMut()>;

    thread_local!(static LOOK: RefCell<Option<Look>> = const { RefCell::new(None) });

    /// Calls this whenever the thread does something in a folder of states, until this is called again.
    pub fn watch(look: Option<Look>) {
        LOOK.set(look);
    }

    pub(in crate::saved) fn on_disk() {
        LOOK.with_borrow_mut(|look| look.iter_mut().for_each(|look| look()));
    }
}

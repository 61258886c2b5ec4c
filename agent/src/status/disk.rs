//! Replaces and removes files as a whole, readable for everyone, together with the folders above them.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use super::tree::{Entry, Tree};
use super::{procfs, sysfs};

/// Makes the disk match `tree`, where `written` is what is there, and says how many files were written; with an error, the path that
/// could not be.
pub fn bring(written: &mut Tree, run_dir: &Path, tree: &Tree, count: &mut usize) -> Result<(), (String, io::Error)> {
    let differs = |(path, entry): &(&String, &Entry)| written.get(*path) != Some(*entry);
    let (changed, new): (Vec<_>, Vec<_>) = tree
        .iter()
        .filter(differs)
        .partition(|(path, _)| written.contains_key(*path));
    for (path, entry) in new.into_iter().chain(changed) {
        replace(run_dir, path, entry).map_err(|error| (path.clone(), error))?;
        written.insert(path.clone(), entry.clone());
        *count += 1;
    }
    written.retain(|path, _| {
        let stays = tree.contains_key(path);
        if !stays {
            remove_file(run_dir, path);
        }
        stays
    });
    Ok(())
}

/// Name of the file being written, outside the folders that tools list. There is one writer, and it finishes each file before
/// the next.
pub(super) const DRAFT: &str = ".status.new";

/// Folders that only the agent uses; they stay when they are empty.
const ROOTS: [&str; 3] = [procfs::FOLDER, "proc/net", sysfs::FOLDER];

/// Replaces a file or link in one step, so that a reader sees either the old one or the new one as a whole.
pub(super) fn replace(run_dir: &Path, path: &str, entry: &Entry) -> io::Result<()> {
    let (draft, target) = (run_dir.join(DRAFT), run_dir.join(path));
    let place = || write_draft(&draft, entry).and_then(|()| fs::rename(&draft, &target));
    let placed = match place() {
        Err(e) if e.kind() == ErrorKind::NotFound => make_folders(run_dir, path).and_then(|()| place()),
        other => other,
    };
    if placed.is_err() {
        // If this fails too, only space is lost, and the next attempt removes the file first.
        let _ = fs::remove_file(&draft);
    }
    placed
}

fn write_draft(draft: &Path, entry: &Entry) -> io::Result<()> {
    match make_draft(draft, entry) {
        // A crash left one behind, which may belong to another user or be read-only.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(draft)?;
            make_draft(draft, entry)
        }
        made => made,
    }
}

fn make_draft(draft: &Path, entry: &Entry) -> io::Result<()> {
    let text = match entry {
        Entry::Link(to) => return symlink(to, draft),
        Entry::File(text) => text,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(draft)?;
    file.write_all(text.as_bytes())?;
    // Again, because the mode above is subject to the umask.
    file.set_permissions(Permissions::from_mode(0o444))
}

/// Makes the folders that lead to a path.
fn make_folders(run_dir: &Path, path: &str) -> io::Result<()> {
    for (end, _) in path.match_indices('/') {
        let folder = run_dir.join(&path[..end]);
        match DirBuilder::new().mode(0o755).create(&folder) {
            Ok(()) => fs::set_permissions(&folder, Permissions::from_mode(0o755))?,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Removes a file or link, and the folders that are empty without it.
pub(super) fn remove_file(run_dir: &Path, path: &str) {
    let full = run_dir.join(path);
    match fs::remove_file(&full) {
        Err(e) if e.kind() != ErrorKind::NotFound => log::warn!("cannot remove {}: {e}", full.display()),
        _ => {}
    }
    let mut rest = path;
    while let Some((folder, _)) = rest.rsplit_once('/')
        && !ROOTS.contains(&folder)
        // Fails as long as something is in it.
        && fs::remove_dir(run_dir.join(folder)).is_ok()
    {
        rest = folder;
    }
}

/// Removes everything at any depth that is not wanted.
pub(super) fn prune_folder(run_dir: &Path, folder: &str, wanted: &BTreeSet<&str>) {
    // An unreadable or missing folder contains no files of the agent.
    let Ok(entries) = fs::read_dir(run_dir.join(folder)) else {
        return;
    };
    for entry in entries.flatten() {
        // The agent writes no names that are not UTF-8.
        let Some(path) = entry.file_name().to_str().map(|name| format!("{folder}/{name}")) else {
            continue;
        };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            prune_folder(run_dir, &path, wanted);
        } else if !wanted.contains(path.as_str()) {
            remove_file(run_dir, &path);
        }
    }
}

//! Finds the files for paths with patterns in `source` lines. [glob(7)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::pattern::{is_pattern, matches};

/// Files and folders that match a path with `*`, `?` and `[...]`, in the order of their names. A path without them is returned
/// unchanged, even if it does not exist.
pub(super) fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let wanted = part.as_os_str();
        found = match wanted.to_str().filter(|wanted| is_pattern(wanted)) {
            Some(wanted) => found.iter().flat_map(|folder| entries(folder, wanted)).collect(),
            None => found.into_iter().map(|folder| folder.join(wanted)).collect(),
        };
    }
    found
}

/// The entries of a folder that match a pattern, in the order of their names.
fn entries(folder: &Path, wanted: &str) -> Vec<PathBuf> {
    let place = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let names = fs::read_dir(place)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    let mut names: Vec<_> = names
        .filter(|name| name.to_str().is_some_and(|name| is_meant(wanted, name)))
        .collect();
    names.sort();
    names.iter().map(|name| folder.join(name)).collect()
}

/// Whether the name of a file matches a pattern. A leading dot must be matched by a dot.
fn is_meant(pattern: &str, name: &str) -> bool {
    (!name.starts_with('.') || pattern.starts_with('.')) && matches(pattern, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_have_to_be_meant() {
        for (pattern, name, wanted) in [
            ("*", "a", true),
            ("*", ".a", false),
            (".*", ".a", true),
            ("[.]a", ".a", false),
        ] {
            assert_eq!(is_meant(pattern, name), wanted, "{pattern} {name}");
        }
    }
}

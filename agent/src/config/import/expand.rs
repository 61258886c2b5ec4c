//! The files that a path with patterns in it means, as `source` lines have them. [glob(7)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::pattern::{is_pattern, matches};

/// Files and folders that a path with `*`, `?` and `[...]` in it means, in the order of their names. One without them
/// means itself, there or not.
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

/// The entries of a folder that a pattern means, in the order of their names.
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

/// Whether a pattern stands for the name of a file; a dot in front has to be written.
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

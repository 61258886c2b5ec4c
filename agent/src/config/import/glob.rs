//! Patterns for names of files in `source` lines. [glob(7)]

use std::fs;
use std::path::{Path, PathBuf};

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

/// Whether a name or path contains a wildcard.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether a name matches a pattern. A leading dot must be matched by a dot.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    (name.first() != Some(&'.') || pattern.first() == Some(&'.')) && matches_rest(&pattern, &name)
}

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
        .filter(|name| name.to_str().is_some_and(|name| matches(wanted, name)))
        .collect();
    names.sort();
    names.iter().map(|name| folder.join(name)).collect()
}

/// Only the last `*` is tried again, one character longer; the part before it has its shortest match.
fn matches_rest(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    loop {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, n));
                p += 1;
                continue;
            }
            None if n == name.len() => return true,
            Some(_) if n < name.len() => one(&pattern[p..], name[n]),
            _ => None,
        };
        match (step, star) {
            (Some(length), _) => (p, n) = (p + length, n + 1),
            (None, Some((after, from))) if from < name.len() => {
                star = Some((after, from + 1));
                (p, n) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// Length of the pattern's first element, if it matches this character.
fn one(pattern: &[char], c: char) -> Option<usize> {
    let inner = match pattern {
        ['?', ..] => return Some(1),
        ['[', inner @ ..] => inner,
        [first, ..] => return (*first == c).then_some(1),
        [] => return None,
    };
    let negated = inner.first().is_some_and(|c| *c == '!' || *c == '^');
    let set = &inner[usize::from(negated)..];
    // A bracket at the beginning of a set is an element of it.
    let Some(end) = set.iter().skip(1).position(|c| *c == ']').map(|at| at + 1) else {
        return (c == '[').then_some(1);
    };
    let (mut at, mut is_in) = (0, false);
    while at < end {
        let is_range = at + 2 < end && set[at + 1] == '-';
        let last = if is_range { set[at + 2] } else { set[at] };
        is_in |= (set[at]..=last).contains(&c);
        at += if is_range { 3 } else { 1 };
    }
    (is_in != negated).then_some(1 + usize::from(negated) + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_the_names_that_the_shell_takes_them_for() {
        for (pattern, yes, no) in [
            ("*", "a", ".a"),
            (".*", ".a", "a"),
            ("eth?", "eth0", "eth10"),
            ("*.cfg", "x.y.cfg", "x.cfg.bak"),
            ("a*b*c", "axbxbyc", "axbx"),
            ("bond[0-2]x", "bond2x", "bond3x"),
            ("[!a-c]", "d", "b"),
            ("[]x]", "]", "y"),
            ("[a", "[a", "a"),
            ("", "", "a"),
            ("eth0", "eth0", "eth00"),
        ] {
            assert!(matches(pattern, yes), "{pattern} {yes}");
            assert!(!matches(pattern, no), "{pattern} {no}");
        }
    }

    #[test]
    fn many_stars_take_no_longer_than_one() {
        assert!(!matches(&"*a".repeat(500), &"a".repeat(499)));
        assert!(!matches(&format!("{}b", "*a".repeat(50)), &"a".repeat(5000)));
    }
}

//! Shell patterns for aliases, interfaces and files, with the meaning of fnmatch(3) without flags, except that a backslash is an
//! ordinary character.

/// Whether a name or path contains a wildcard.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether a pattern matches a name.
///
/// Only the last `*` is tried again, one character longer; the part before it has its shortest match. So the time grows with the
/// product of both lengths.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    // The pattern behind the last `*`, and what it was tried on last.
    let mut star: Option<(&str, &str)> = None;
    loop {
        if let Some(rest) = pattern.strip_prefix('*') {
            (pattern, star) = (rest, Some((rest, name)));
        } else if pattern.is_empty() && name.is_empty() {
            return true;
        } else if let Some(rests) = without_first(pattern, name) {
            (pattern, name) = rests;
        } else {
            // The `*` takes one more, if there is one.
            let Some((rest, tried)) = star else { return false };
            let mut tried = tried.chars();
            if tried.next().is_none() {
                return false;
            }
            (pattern, name, star) = (rest, tried.as_str(), Some((rest, tried.as_str())));
        }
    }
}

/// The rest of a pattern and a name, if the first element matches the first character.
fn without_first<'a>(pattern: &'a str, name: &'a str) -> Option<(&'a str, &'a str)> {
    let mut name = name.chars();
    let c = name.next()?;
    if let Some((set, is_inside, rest)) = bracket(pattern) {
        return (has(set, c) == is_inside).then_some((rest, name.as_str()));
    }
    let mut pattern = pattern.chars();
    let first = pattern.next()?;
    (first == '?' || first == c).then_some((pattern.as_str(), name.as_str()))
}

/// The set of a bracket at the beginning, whether a character must be in it, and what follows. A bracket that is never closed
/// stands for itself.
fn bracket(pattern: &str) -> Option<(&str, bool, &str)> {
    let inner = pattern.strip_prefix('[')?;
    let (inner, is_inside) = match inner.strip_prefix(['!', '^']) {
        Some(inner) => (inner, false),
        None => (inner, true),
    };
    // A closing bracket at the beginning of a set is an element of it.
    let first = inner.chars().next()?.len_utf8();
    let end = first + inner[first..].find(']')?;
    Some((&inner[..end], is_inside, &inner[end + 1..]))
}

/// Whether a character is in a set, by itself or within `a-z`.
fn has(set: &str, c: char) -> bool {
    let mut rest = set.chars();
    while let Some(first) = rest.next() {
        let mut range = rest.clone();
        let last = match (range.next(), range.next()) {
            (Some('-'), Some(last)) => {
                rest = range;
                last
            }
            _ => first,
        };
        if (first..=last).contains(&c) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fnmatch(3) of the GNU C library says.
    const KNOWN: [(&str, &str, bool); 45] = [
        ("", "", true),
        ("", "a", false),
        ("eth0", "eth0", true),
        ("eth0", "eth00", false),
        ("bond*", "bonding", true),
        ("bond*", "bond", true),
        ("*", "", true),
        ("*", ".a", true),
        (".*", ".a", true),
        (".*", "a", false),
        ("bond?", "bond", false),
        ("bond?", "bondö", true),
        ("eth?", "eth10", false),
        ("*.cfg", "x.y.cfg", true),
        ("*.cfg", "x.cfg.bak", false),
        ("*0*1", "bond0-bond01", true),
        ("*0*1", "bond1-bond0", false),
        ("a*b*c", "axbxbyc", true),
        ("a*b*c", "axbx", false),
        ("bond[0-3]", "bond3", true),
        ("bond[0-3]", "bond4", false),
        ("bond[0-2]x", "bond2x", true),
        ("bond[!0-3x]", "bond4", true),
        ("bond[^0-3x]", "bondx", false),
        ("[!a-c]", "d", true),
        ("[!a-c]", "b", false),
        ("[^a]", "^", true),
        ("bond[3-]", "bond-", true),
        ("[9-0]", "9", false),
        ("[a-c-e]", "d", false),
        ("[a-c-e]", "-", true),
        ("[a-c-e]", "e", true),
        ("[]x]", "]", true),
        ("[]x]", "y", false),
        ("[!]a]", "b", true),
        ("[!]a]", "]", false),
        ("[a", "[a", true),
        ("[a", "a", false),
        ("bond[]", "bond[]", true),
        ("bond[]", "bondx", false),
        ("bond[!]", "bond[!]", true),
        ("bond[!]", "bondx", false),
        ("[]a[b]", "[", true),
        ("[]a[b]", "a", true),
        ("[]a[b]", "c", false),
    ];

    #[test]
    fn patterns_mean_what_the_shell_takes_them_for() {
        for (pattern, name, wanted) in KNOWN {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_take_no_longer_than_one() {
        assert!(!matches(&"*a".repeat(500), &"a".repeat(499)));
        assert!(!matches(&format!("{}b", "*a".repeat(2000)), &"a".repeat(5000)));
    }
}

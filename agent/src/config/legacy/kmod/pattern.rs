//! Names of aliases, which may be shell patterns. [fnmatch(3)]

/// Longest name in bytes that is compared with patterns.
const LONGEST: usize = 255;

/// Whether a name contains wildcards.
pub(super) fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// Replaces `-` by `_` outside brackets; `None` if a bracket is not closed. [kmod: libkmod-util.c: underscores]
pub(super) fn normalized(name: &str) -> Option<String> {
    let mut bracket = false;
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '[' if !bracket => bracket = true,
            ']' if bracket => bracket = false,
            ']' => return None,
            _ => {}
        }
        text.push(if c == '-' && !bracket { '_' } else { c });
    }
    (!bracket).then_some(text)
}

/// Whether a pattern matches a name.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    if name.len() > LONGEST {
        return pattern == name;
    }
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
    if let Some((set, rest)) = pattern.strip_prefix('[').and_then(|set| set.split_once(']')) {
        let (set, inside) = match set.strip_prefix(['!', '^']) {
            Some(set) => (set, false),
            None => (set, true),
        };
        return (has(set, c) == inside).then_some((rest, name.as_str()));
    }
    let mut pattern = pattern.chars();
    let first = pattern.next()?;
    (first == '?' || first == c).then_some((pattern.as_str(), name.as_str()))
}

/// Whether a character is in a set, by itself or within `a-z`.
fn has(set: &str, c: char) -> bool {
    let set: Vec<char> = set.chars().collect();
    let mut rest = set.as_slice();
    loop {
        rest = match rest {
            [] => return false,
            [first, '-', last, ..] if (*first..=*last).contains(&c) => return true,
            [_, '-', _, rest @ ..] => rest,
            [one, ..] if *one == c => return true,
            [_, rest @ ..] => rest,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_are_underscores_outside_brackets_which_come_in_pairs() {
        for (name, wanted) in [
            ("bond-0", Some("bond_0")),
            ("a-[0-9-]-b", Some("a_[0-9-]_b")),
            ("a[0", None),
            ("a]0", None),
        ] {
            assert_eq!(normalized(name).as_deref(), wanted, "{name}");
        }
    }

    #[test]
    fn patterns_are_those_of_the_shell() {
        for (pattern, name, wanted) in [
            ("bond0", "bond0", true),
            ("bond0", "bond00", false),
            ("bond*", "bonding", true),
            ("bond*", "bond", true),
            ("*", "", true),
            ("bond?", "bond", false),
            ("bond?", "bondö", true),
            ("*0*1", "bond0-bond01", true),
            ("*0*1", "bond1-bond0", false),
            ("bond[0-3]", "bond3", true),
            ("bond[0-3]", "bond4", false),
            ("bond[!0-3x]", "bond4", true),
            ("bond[^0-3x]", "bondx", false),
            ("bond[3-]", "bond-", true),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
        let stars = "*a".repeat(2000) + "b";
        assert!(!matches(&stars, &"a".repeat(255)));
        assert!(!matches("*", &"a".repeat(256)));
    }
}

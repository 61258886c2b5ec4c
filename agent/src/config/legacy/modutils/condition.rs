//! Conditions of `if` and `elseif`.

use std::path::Path;

use crate::config::legacy::numbers::strtol;
use crate::config::lines::words;
use crate::config::loader::Files;

/// Whether a condition holds; `None` if it needs a shell.
pub(super) fn holds(text: &str, files: &dyn Files) -> Option<bool> {
    if text.contains(['`', '$']) {
        return None;
    }
    let words = words(text).ok()?;
    let mut words: &[String] = &words;
    let mut negated = false;
    while let Some(first) = words.first().filter(|word| word.starts_with('!')) {
        // Glued to a word it takes that away, too.
        negated ^= !first.is_empty();
        words = &words[1..];
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let holds = match words.as_slice() {
        // -k asks for the kernel's own loader, so it is false, with `!` or without.
        ["-k", ..] => return Some(false),
        ["-f", file, ..] => files.is_readable(Path::new(file)),
        ["-n", left, op, right, ..] => {
            let number = |text: &str| strtol(text).0.unwrap_or_default();
            compare(&number(left), op, &number(right))?
        }
        [left, op, right, ..] => compare(left, op, right)?,
        [word, ..] => !matches!(*word, "" | "0" | "false"),
        [] => false,
    };
    Some(holds != negated)
}

fn compare<T: Ord + ?Sized>(left: &T, op: &str, right: &T) -> Option<bool> {
    Some(match op {
        "==" | "=" => left == right,
        "!=" => left != right,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        ">=" => left >= right,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NoFiles;

    #[test]
    fn conditions_are_strings_unless_they_say_otherwise() {
        for (text, wanted) in [
            ("10 > 9", Some(false)),
            ("-n 10 > 9", Some(true)),
            ("-n 0x10 == 16", Some(true)),
            ("a = a", Some(true)),
            ("! a == b", Some(true)),
            ("! ! a == b", Some(false)),
            ("a != b", Some(true)),
            ("1", Some(true)),
            ("", Some(false)),
            ("false", Some(false)),
            ("! 0", Some(true)),
            ("-k", Some(false)),
            ("! -k", Some(false)),
            ("-f /etc/passwd", Some(false)),
            ("`uname -r` == 2.4.20", None),
            ("$X", None),
            ("a like b", None),
        ] {
            assert_eq!(holds(text, &NoFiles), wanted, "{text}");
        }
    }
}

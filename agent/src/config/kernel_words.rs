//! Words as the kernel takes them from its command line and from a module's parameters.

use super::diagnostic::Place;

/// A word for the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Before the `=`.
    pub(super) name: String,
    /// After the `=`; `None` without one.
    pub(super) value: Option<String>,
    pub(super) place: Place,
}

/// The word after which the kernel ignores all others. [kernel/params.c: parse_args]
pub(super) const END: &str = "--";

/// The words of an options line, split at blanks outside double quotes, which are removed. [lib/cmdline.c: next_arg]
pub(super) fn words(text: &str, place: &Place) -> Vec<Word> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let mut quoted = false;
        let end = rest.find(|c: char| {
            quoted ^= c == '"';
            !quoted && (c.is_whitespace() || c == '\u{a0}')
        });
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after.trim_start();
        // Quotes enclose the whole word or the value.
        let word = word
            .strip_prefix('"')
            .map_or(word, |inner| inner.strip_suffix('"').unwrap_or(inner));
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => {
                let inner = value.strip_prefix('"');
                (
                    name,
                    Some(inner.map_or(value, |inner| inner.strip_suffix('"').unwrap_or(inner))),
                )
            }
            None => (word, None),
        };
        found.push(Word {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            place: place.clone(),
        });
    }
    found
}

//! How texts become values. [bond_options.c: bond_opt_parse]

use std::time::Duration;

/// What a numeric option takes besides plain digits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub min: u32,
    pub max: u32,
    pub default: Option<u32>,
    /// The word `off` stands for 0.
    pub off: bool,
}

impl Range {
    pub const MILLIS: Range = Range { min: 0, max: i32::MAX as u32, default: Some(0), off: true };

    /// Digits, or a word of the option's own table.
    ///
    /// differs: the driver takes the first of several numbers in silence.
    pub fn parse(self, text: &str) -> Option<u32> {
        match text.trim() {
            "default" => self.default,
            "maxval" => Some(self.max),
            "minval" => Some(self.min),
            "off" if self.off => Some(0),
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|n| (self.min..=self.max).contains(n))
            }
            _ => None,
        }
    }

    pub fn millis(self, text: &str) -> Option<Duration> {
        self.parse(text).map(|ms| Duration::from_millis(ms.into()))
    }
}

/// A name, exactly its number, or `default`.
pub(super) fn named<T: Copy>(text: &str, values: &[(T, &str, u8)], default: T) -> Option<T> {
    let text = text.trim();
    if text == "default" {
        return Some(default);
    }
    values.iter().find(|(_, name, number)| *name == text || text.parse() == Ok(*number)).map(|(value, _, _)| *value)
}

/// `on`, `off`, 1 or 0.
pub(super) fn switch(text: &str, default: bool) -> Option<bool> {
    named(text, &[(false, "off", 0), (true, "on", 1)], default)
}

/// A port's name; empty or `none` for no port.
pub(super) fn port_name(text: &str) -> Option<Option<String>> {
    match text.trim() {
        "" | "none" => Some(None),
        name if is_interface_name(name) => Some(Some(name.to_owned())),
        _ => None,
    }
}

/// Whether the kernel would take it as an interface's name. [net/core/dev.c: dev_valid_name]
pub fn is_interface_name(name: &str) -> bool {
    (1..16).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.bytes().any(|b| b == b'/' || b == b':' || b.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_within_the_range() {
        let range = Range { min: 0, max: 255, default: Some(1), off: false };
        for (text, value) in [("0", Some(0)), ("255", Some(255)), ("default", Some(1)), ("maxval", Some(255))] {
            assert_eq!(range.parse(text), value, "{text}");
        }
        for bad in ["256", "-1", "0x10", "1x", "", "off", "1 2", "99999999999"] {
            assert_eq!(range.parse(bad), None, "{bad}");
        }
        assert_eq!(Range::MILLIS.parse("off"), Some(0));
    }

    #[test]
    fn names_and_exactly_their_numbers_are_values() {
        let values = [('a', "always", 0), ('b', "better", 1)];
        assert_eq!(named("better", &values, 'a'), Some('b'));
        assert_eq!(named("1\n", &values, 'a'), Some('b'));
        assert_eq!(named("2", &values, 'a'), None);
        assert_eq!(named("bett", &values, 'a'), None);
    }

    #[test]
    fn interface_names_are_those_of_the_kernel() {
        for good in ["eth0", "e", "eth0.100", "fifteen-bytes-x"] {
            assert!(is_interface_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "sixteen-bytes-xx"] {
            assert!(!is_interface_name(bad), "{bad}");
        }
    }
}

//! Numbers as the programs before us read them.

/// The number that C's strtol reads with base 0, or `None` without a digit or beyond its range, and the rest of the text.
pub(super) fn strtol(text: &str) -> (Option<i64>, &str) {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let hex = digits.strip_prefix("0x").or(digits.strip_prefix("0X"));
    let (radix, digits) = match hex.filter(|rest| rest.starts_with(|c: char| c.is_ascii_hexdigit())) {
        Some(rest) => (16, rest),
        None if digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if digits.is_empty() {
        return (None, text);
    }
    let number = i64::from_str_radix(digits, radix).ok();
    (number.map(|number| if negative { -number } else { number }), rest)
}

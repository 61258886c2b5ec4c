//! Names that users give to bonds in files for the module.

/// Whether a name is that of a bond as users call them, or of the module.
pub(super) fn is_bond(name: &str) -> bool {
    name.starts_with("bond")
}

/// The index of a name among the requests.
pub(super) fn bond_number(alias: &str) -> u64 {
    let digits = alias
        .strip_prefix("bond")
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX)
}

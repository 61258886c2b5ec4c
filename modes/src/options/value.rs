//! Parses values. [bond_options.c: bond_opt_parse]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Values of a numeric option besides plain digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// Meaning of the word `default`; `None` if the driver does not accept it.
    pub default: Option<u32>,
    /// The word `off` stands for 0.
    pub off: bool,
}

impl Range {
    pub(super) const MILLIS: Range = Range {
        min: 0,
        max: i32::MAX as u32,
        default: Some(0),
        off: true,
    };

    pub(super) const BYTE: Range = Range {
        min: 0,
        max: 255,
        default: Some(1),
        off: false,
    };

    /// Digits, or a word of the option's own table.
    ///
    /// differs: the driver uses the first of several numbers and ignores the rest.
    pub(super) fn parse(self, text: &str) -> Option<u32> {
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
}

/// A name, exactly its number, or `default`.
pub(super) fn named<T: Copy>(text: &str, values: &[(T, &str, u8)], default: T) -> Option<T> {
    let text = text.trim();
    if text == "default" {
        return Some(default);
    }
    values
        .iter()
        .find(|(_, name, number)| *name == text || text.parse() == Ok(*number))
        .map(|(value, _, _)| *value)
}

/// `on`, `off`, 1 or 0.
pub(super) fn switch(text: &str, default: bool) -> Option<bool> {
    named(text, &[(false, "off", 0), (true, "on", 1)], default)
}

/// A list of targets after a change: the whole list, or `+` and what is added, or `-` and what is removed.
/// [bond_options.c: bond_option_arp_ip_targets_set]
///
/// differs: the driver uses the first of several addresses and ignores the rest; here all of them count, or none.
pub(super) fn targets<T: FromStr + Copy + PartialEq>(
    text: &str,
    now: &[T],
    probeable: fn(T) -> bool,
) -> Option<Vec<T>> {
    let text = text.trim();
    let (sign, rest) = match text.split_at_checked(1) {
        Some((sign @ ("+" | "-"), rest)) => (sign, rest),
        _ => ("", text),
    };
    let mut list = if sign.is_empty() { Vec::new() } else { now.to_vec() };
    if sign.is_empty() && matches!(rest, "" | "none") {
        return Some(list);
    }
    for word in rest.split([',', ' ']) {
        let target = word.parse().ok().filter(|target| probeable(*target))?;
        let place = list.iter().position(|known| *known == target);
        match (sign, place) {
            ("-", Some(place)) => drop(list.remove(place)),
            ("-", None) | (_, Some(_)) => return None,
            _ => list.push(target),
        }
    }
    (list.len() <= MAX_TARGETS).then_some(list)
}

/// [bond_options.h: bond_is_ip_target_ok]
pub(super) fn probeable_v4(ip: Ipv4Addr) -> bool {
    !ip.is_unspecified() && !ip.is_broadcast()
}

/// [bond_options.h: bond_is_ip6_target_ok]
pub(super) fn probeable_v6(ip: Ipv6Addr) -> bool {
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

/// Of one family. [bonding.h: BOND_MAX_ARP_TARGETS]
const MAX_TARGETS: usize = 16;

/// A port's name; empty or `none` for no port.
pub(super) fn port_name(text: &str) -> Option<Option<String>> {
    match text.trim() {
        "" | "none" => Some(None),
        name if is_interface_name(name) => Some(Some(name.to_owned())),
        _ => None,
    }
}

/// Whether the kernel would accept it as an interface's name. [net/core/dev.c: dev_valid_name]
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
        let range = Range {
            min: 0,
            max: 255,
            default: Some(1),
            off: false,
        };
        for (text, value) in [
            ("0", Some(0)),
            ("255", Some(255)),
            ("default", Some(1)),
            ("maxval", Some(255)),
        ] {
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
    fn a_list_of_targets_is_taken_whole_or_not_at_all() {
        let (a, b, c) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), [10, 0, 0, 3].into());
        let change = |text: &str| targets(text, &[a, b], probeable_v4);
        assert_eq!(change("10.0.0.3"), Some(vec![c]));
        assert_eq!(change("+10.0.0.3\n"), Some(vec![a, b, c]));
        assert_eq!(change("-10.0.0.1,10.0.0.2"), Some(vec![]));
        assert_eq!(change("none"), Some(vec![]));
        for bad in [
            "+10.0.0.1",
            "-10.0.0.3",
            "10.0.0.3,10.0.0.3",
            "+10.0.0.3,x",
            "+",
            "10.0.0",
            "0.0.0.0",
            "255.255.255.255",
            "10.0.0.3,",
        ] {
            assert_eq!(change(bad), None, "{bad}");
        }
    }

    #[test]
    fn there_are_at_most_16_targets() {
        let list = |count: u8| (1..=count).map(|n| format!("10.0.0.{n}")).collect::<Vec<_>>().join(",");
        assert_eq!(targets(&list(16), &[], probeable_v4).map(|list| list.len()), Some(16));
        assert_eq!(targets(&list(17), &[], probeable_v4), None);
        let many: Vec<Ipv6Addr> = (1..=16).map(|n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)).collect();
        assert_eq!(targets("+fd00::11", &many, probeable_v6), None);
        for bad in ["::", "::1", "ff02::1"] {
            assert_eq!(targets(bad, &[], probeable_v6), None, "{bad}");
        }
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

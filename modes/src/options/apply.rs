//! Applies a set of options as a whole.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::change::{Change, Context};
use super::row::{Kind, OptionRow, SetWhen};
use super::shown::OptionValue;
use super::table::{TABLE, find};
use super::{BondOptions, OptionError};

/// Applies a set of options, all or nothing, in the driver's order.
pub fn apply(current: &BondOptions, context: Context, pairs: &[(String, String)]) -> Result<Change, OptionError> {
    let mut change = Change::new(current.clone());
    match take_all(&mut change, context, pairs).into_iter().next() {
        Some((_, error)) => Err(error),
        None => change.conflict().map_or(Ok(change), Err),
    }
}

/// Options for a new bond.
pub fn parse(pairs: &[(String, String)]) -> Result<Change, OptionError> {
    let change = apply(&BondOptions::default(), Context::default(), pairs)?;
    change.needs_ports().map_or(Ok(change), Err)
}

/// Options that were in force, by the kernel's names; defaults for missing ones. No rule about changes applies.
pub(crate) fn restore(values: &BTreeMap<String, String>) -> Result<BondOptions, OptionError> {
    let mut change = Change::new(BondOptions::default());
    for (row, value) in TABLE.iter().filter_map(|row| Some((row, values.get(row.name)?))) {
        if !row.restore(value, &mut change) {
            return Err(row.refuses(value));
        }
    }
    Ok(change.options)
}

/// All errors in a set of options for a new bond, by index into `pairs`.
pub fn check(pairs: &[(String, String)]) -> Vec<(usize, OptionError)> {
    let mut change = Change::new(BondOptions::default());
    let mut errors = take_all(&mut change, Context::default(), pairs);
    if let Some(conflict) = change.conflict() {
        let last = pairs.len().saturating_sub(1);
        let named = |(name, _): &(String, String)| conflict.names(name);
        errors.push((pairs.iter().rposition(named).unwrap_or(last), conflict));
    }
    if let Some(error @ OptionError::NoPortsYet { option, .. }) = change.needs_ports() {
        let named = |(name, _): &(String, String)| find(name).is_some_and(|row| row.name == option);
        errors.push((pairs.iter().rposition(named).unwrap_or_default(), error));
        errors.sort_by_key(|(index, _)| *index);
    }
    errors
}

fn take_all(change: &mut Change, context: Context, pairs: &[(String, String)]) -> Vec<(usize, OptionError)> {
    let mut errors = Vec::new();
    let mut known = Vec::new();
    for (index, (name, value)) in pairs.iter().enumerate() {
        match TABLE.iter().position(|row| row.is_called(name)) {
            Some(place) => known.push((place, index, value)),
            None => errors.push((
                index,
                OptionError::Unknown {
                    name: name.clone(),
                    nearest: nearest(name, TABLE.iter().flat_map(OptionRow::names)),
                },
            )),
        }
    }
    known.sort_by_key(|(place, index, _)| (*place, *index));
    for (place, index, value) in known {
        if let Err(error) = take(change, &TABLE[place], value, context) {
            errors.push((index, error));
        }
    }
    errors.sort_by_key(|(index, _)| *index);
    errors
}

/// Applies one option.
fn take(change: &mut Change, row: &OptionRow, value: &str, context: Context) -> Result<(), OptionError> {
    let option = row.name;
    if !row.modes.contain(change.options.mode) {
        let mode = change.options.mode;
        let expected = row.modes.names();
        return Err(OptionError::WrongMode { option, mode, expected });
    }
    if context.has_ports && context.up && row.set_when == SetWhen::EmptyAndDown {
        return Err(OptionError::HasPortsAndUp { option });
    }
    if context.has_ports && row.set_when != SetWhen::Always {
        return Err(OptionError::HasPorts { option });
    }
    if context.up && row.set_when == SetWhen::EmptyAndDown {
        return Err(OptionError::BondUp { option });
    }
    // Only a delay above zero needs the monitor: shipped files spell zeros out, and a delay that left them goes back to zero.
    // differs: the driver refuses 0 too (EPERM).
    let mut next = change.clone();
    if !row.parse(value, &mut next) {
        let misplaced = misplaced_target(row, value, &change.options);
        return Err(misplaced.unwrap_or_else(|| row.refuses(value)));
    }
    let is_zero = row.value(&next.options) == OptionValue::Number(0);
    if row.needs_miimon && change.options.miimon.is_zero() && next.options != change.options && !is_zero {
        return Err(OptionError::NeedsMiimon { option });
    }
    *change = next;
    Ok(())
}

/// Of a list of targets to add or to remove, the first one that is there already or is not there.
fn misplaced_target(row: &OptionRow, value: &str, options: &BondOptions) -> Option<OptionError> {
    let (sign, list) = value.trim().split_at_checked(1)?;
    let adds = match sign {
        "+" => true,
        "-" => false,
        _ => return None,
    };
    if row.kind != Kind::List {
        return None;
    }
    let mut targets = list.split([',', ' ']).map_while(|word| word.parse::<IpAddr>().ok());
    let target = targets.find(|target| options.targets().any(|known| known == *target) == adds)?;
    let option = row.name;
    Some(match adds {
        true => OptionError::Listed { option, target },
        false => OptionError::NotListed { option, target },
    })
}

/// The known name that looks most like `name`, if one does.
pub fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    known
        // Longer names are too different.
        .filter(|known| name.len() <= known.len() * 2)
        .map(|known| (distance(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3 || known.starts_with(name))
        .map(|(_, known)| known)
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::options::ModeName;

    fn pairs(text: &str) -> Vec<(String, String)> {
        text.split_whitespace()
            .map(|word| word.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap())
            .collect()
    }

    fn new(text: &str) -> Change {
        parse(&pairs(text)).unwrap()
    }

    #[test]
    fn options_are_applied_in_the_drivers_order_whatever_order_they_come_in() {
        let change = new("updelay=250 miimon=50 mode=1");
        assert_eq!(change.options.updelay, Duration::from_millis(250));
        assert!(change.warnings.is_empty());
    }

    #[test]
    fn a_delay_is_rounded_down_to_a_multiple_of_miimon_with_a_warning() {
        let change = new("mode=active-backup miimon=100 updelay=250 downdelay=50");
        assert_eq!(change.options.updelay, Duration::from_millis(200));
        assert_eq!(change.options.downdelay, Duration::ZERO);
        assert_eq!(change.warnings.len(), 2);
    }

    #[test]
    fn a_delay_keeps_its_milliseconds_when_miimon_changes() {
        let first = new("mode=1 miimon=100 updelay=300").options;
        let second = apply(&first, Context::default(), &pairs("miimon=70")).unwrap().options;
        assert_eq!(second.updelay, Duration::from_millis(300));
    }

    #[test]
    fn a_target_that_is_there_already_or_is_not_there_is_named() {
        let now = new("mode=1 arp_ip_target=10.0.0.1,10.0.0.2 ns_ip6_target=fe80::1").options;
        for (change, want) in [
            (
                "arp_ip_target=+10.0.0.3,10.0.0.2",
                "arp_ip_target: 10.0.0.2 is in the list already",
            ),
            (
                "arp_ip_target=-10.0.0.1,10.0.0.3",
                "arp_ip_target: 10.0.0.3 is not in the list",
            ),
            (
                "ns_ip6_target=+fe80:0::1",
                "ns_ip6_target: fe80::1 is in the list already",
            ),
            (
                "arp_ip_target=+10.0.0.3,gateway",
                "arp_ip_target: bad value \"+10.0.0.3,gateway\", expected up to 16 IPv4 addresses as a,b,c, or +a,b to add, \
                 -a,b to remove, none for none",
            ),
        ] {
            let refused = apply(&now, Context::default(), &pairs(change)).unwrap_err();
            assert_eq!(refused.to_string(), want);
        }
    }

    #[test]
    fn miimon_warns_of_the_arp_monitor_that_it_replaces_unless_the_same_set_ends_it() {
        let probed = new("mode=1 arp_interval=100 arp_ip_target=10.0.0.1 arp_validate=all").options;
        for (set, warns) in [
            ("miimon=100", true),
            ("miimon=100 arp_validate=none", true),
            ("miimon=100 arp_interval=0", false),
            ("arp_interval=0 miimon=100", false),
        ] {
            let change = apply(&probed, Context::default(), &pairs(set)).unwrap();
            assert_eq!(!change.warnings.is_empty(), warns, "{set}: {:?}", change.warnings);
            let options = change.options;
            assert_eq!(
                (options.miimon, options.arp_interval),
                (Duration::from_millis(100), Duration::ZERO),
                "{set}"
            );
        }
        let idle = apply(&probed, Context::default(), &pairs("arp_interval=0"))
            .unwrap()
            .options;
        let change = apply(&idle, Context::default(), &pairs("miimon=100")).unwrap();
        assert_eq!(change.warnings, [], "the ARP monitor was not in force");
        assert!(!change.options.arp_validate.validates());
    }

    #[test]
    fn a_delay_without_the_monitor_is_refused() {
        assert_eq!(
            parse(&pairs("mode=1 miimon=0 updelay=100")),
            Err(OptionError::NeedsMiimon { option: "updelay" })
        );
        assert!(parse(&pairs("mode=1 miimon=0 updelay=0")).is_ok());
    }

    #[test]
    fn the_state_of_the_bond_is_checked_before_the_value() {
        let options = BondOptions::default();
        let up = Context {
            up: true,
            has_ports: false,
        };
        let used = Context {
            up: true,
            has_ports: true,
        };
        assert_eq!(
            apply(&options, used, &pairs("mode=x")),
            Err(OptionError::HasPortsAndUp { option: "mode" })
        );
        let down = Context { up: false, ..used };
        assert_eq!(
            apply(&options, down, &pairs("mode=x")),
            Err(OptionError::HasPorts { option: "mode" })
        );
        assert_eq!(
            apply(&options, up, &pairs("mode=x")),
            Err(OptionError::BondUp { option: "mode" })
        );
        assert!(apply(&options, up, &pairs("fail_over_mac=active")).is_ok());
        assert!(apply(&options, used, &pairs("fail_over_mac=active")).is_err());
    }

    #[test]
    fn check_reports_everything_at_once() {
        let errors = check(&pairs("miimonn=100 updelay=x primary=eth0 num_grat_arp=256"));
        let places: Vec<usize> = errors.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [0, 1, 2, 3]);
        assert_eq!(
            errors[0].1,
            OptionError::Unknown {
                name: "miimonn".to_owned(),
                nearest: Some("miimon")
            }
        );
        assert_eq!(
            errors[2].1,
            OptionError::WrongMode {
                option: "primary",
                mode: ModeName::BalanceRr,
                expected: "active-backup",
            }
        );
    }

    #[test]
    fn a_new_bond_has_no_port_that_could_be_active() {
        let given = pairs("active-slave=eth0 mode=1");
        let refused = OptionError::NoPortsYet {
            option: "active_slave",
            value: "eth0".to_owned(),
        };
        assert_eq!(parse(&given), Err(refused.clone()));
        assert_eq!(check(&given), [(0, refused)]);
        // An empty set is accepted, as by the driver.
        assert!(parse(&pairs("mode=1 active_slave=")).is_ok() && check(&pairs("mode=1 active_slave=none")).is_empty());
    }

    #[test]
    fn a_name_that_resembles_nothing_gets_no_suggestion() {
        let nearest = |name| nearest(name, TABLE.iter().flat_map(OptionRow::names));
        assert_eq!(nearest("frobnicate"), None);
        assert_eq!(nearest("primary_reslect"), Some("primary_reselect"));
    }

    #[test]
    fn a_refusal_names_the_way_out() {
        let refused = |text: &str| parse(&pairs(text)).unwrap_err().to_string();
        for (given, way_out) in [
            (
                "mode=802.3ad",
                "mode=802.3ad: bondd does not have this mode, expected balance-rr, ",
            ),
            ("mode=6", "mode=6: bondd does not have this mode"),
            ("mode=7", "mode: bad value \"7\""),
            ("lacp-rate=fast", "lacp-rate is for modes that bondd does not have"),
            (
                "mtu=9000",
                "unknown option mtu, expected mtu to be set by `ip link set`",
            ),
            ("slaves=eth0", "`bondctl port add`"),
            ("miimonn=1", "expected miimon perhaps"),
            ("frobnicate=1", "expected one that bondctl(8) lists"),
            (
                "mode=2 primary=eth0",
                "primary is not for mode balance-xor, expected mode active-backup",
            ),
        ] {
            assert!(refused(given).contains(way_out), "{given}: {}", refused(given));
        }
    }

    #[test]
    fn both_names_of_the_announcement_count_are_one_option() {
        assert_eq!(new("mode=1 num_unsol_na=3").options.num_grat_arp, 3);
    }
}

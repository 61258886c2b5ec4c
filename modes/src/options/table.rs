//! One row per option.

use std::collections::BTreeMap;
use std::time::Duration;

use super::row::{Files, Kind, Modes, OptionRow, Parse, ROW, SetWhen, Show, Since, store};
use super::shown::{OptionValue, millis};
use super::value::{Range, named, port_name, probeable_v4, probeable_v6, switch, targets};
use super::{ArpAllTargets, ArpValidate, BondOptions, FailOverMac, ModeName, PrimaryReselect};
use crate::hash::XmitHashPolicy;
use crate::mode;

/// The row of an option.
pub fn find(name: &str) -> Option<&'static OptionRow> {
    TABLE.iter().find(|row| row.is_called(name))
}

/// The kernel's first name of an option; `name` itself if there is no such option.
pub fn row_name(name: &str) -> &str {
    find(name).map_or(name, |row| row.name)
}

/// Every option with its effective value, by name. The active port is state, not a stored option: the caller gives it.
pub fn show_all(options: &BondOptions, active: Option<&str>) -> BTreeMap<String, OptionValue> {
    let mut all = BTreeMap::new();
    for row in TABLE {
        let value = row.show.value(options, active);
        for name in row.names() {
            all.insert(name.to_owned(), value.clone());
        }
    }
    all
}

/// One option's effective value; none if there is no such option. The active port is state, not a stored option.
pub fn show(options: &BondOptions, name: &str) -> Option<OptionValue> {
    find(name).map(|row| row.show.value(options, None))
}

fn number(n: impl Into<i64>) -> OptionValue {
    OptionValue::Number(n.into())
}

fn list(items: &[impl ToString]) -> OptionValue {
    OptionValue::List(items.iter().map(ToString::to_string).collect())
}

fn ms(duration: Duration) -> OptionValue {
    number(i64::try_from(millis(duration)).unwrap_or(i64::MAX))
}

fn of_ms(milliseconds: u32) -> Duration {
    Duration::from_millis(milliseconds.into())
}

/// All options, in the order in which the driver applies them. [bond_netlink.c: bond_changelink]
pub static TABLE: &[OptionRow] = &[
    OptionRow {
        name: "mode",
        default: "balance-rr",
        kind: Kind::Choice(ModeName::NAMES),
        absent: mode::ABSENT,
        set_when: SetWhen::EmptyAndDown,
        since: Since::Linux24,
        doc: "How traffic is spread over the ports. [bonding.rst: mode]",
        parse: Parse::Text(|text, c| {
            store(named(text, ModeName::VALUES, ModeName::BalanceRr), |v| {
                c.options.mode = v;
                // [bond_options.c: bond_option_mode_set]
                c.options.arp_validate = ArpValidate::None;
            })
        }),
        show: Show::Stored(|o| OptionValue::Name(o.mode.to_string())),
        ..ROW
    },
    OptionRow {
        name: "active_slave",
        default: "",
        takes: "the name of an attached port whose link is up, or none",
        modes: Modes::Only(ModeName::ActiveBackup),
        since: Since::Later,
        doc: "The port that carries the traffic now; none lets the bond choose again. A later failover or a preferred port \
              may change it. [bonding.rst: active_slave]",
        parse: Parse::Text(|text, c| store(port_name(text), |v| c.active = Some(v))),
        show: Show::ActivePort,
        ..ROW
    },
    OptionRow {
        name: "miimon",
        unit: "ms",
        default: "100",
        kind: Kind::Number(Range {
            default: Some(100),
            ..Range::MILLIS
        }),
        since: Since::Linux24,
        doc: "How often the carrier of every port is polled. Link events count at once; polls find changes without an event. \
              0 switches both off. [bonding.rst: miimon]",
        parse: Parse::Number(|v, c| c.set_miimon(of_ms(v))),
        show: Show::Stored(|o| ms(o.miimon)),
        ..ROW
    },
    OptionRow {
        name: "updelay",
        unit: "ms",
        default: "0",
        needs_miimon: true,
        kind: Kind::Number(Range::MILLIS),
        since: Since::Linux24,
        doc: "How long carrier must be back before the port is used; skipped when no other port is usable. Rounded down to a \
              multiple of miimon. [bonding.rst: updelay]",
        parse: Parse::Delay(|v, c| c.options.updelay = of_ms(v)),
        show: Show::Stored(|o| ms(o.updelay)),
        ..ROW
    },
    OptionRow {
        name: "downdelay",
        unit: "ms",
        default: "0",
        needs_miimon: true,
        kind: Kind::Number(Range::MILLIS),
        since: Since::Linux24,
        doc: "How long carrier must be lost before the port is no longer used. Rounded down to a multiple of miimon. \
              [bonding.rst: downdelay]",
        parse: Parse::Delay(|v, c| c.options.downdelay = of_ms(v)),
        show: Show::Stored(|o| ms(o.downdelay)),
        ..ROW
    },
    OptionRow {
        name: "peer_notif_delay",
        aliases: &["peer_notify_delay"],
        unit: "ms",
        default: "0",
        needs_miimon: true,
        kind: Kind::Number(Range {
            max: 300_000,
            default: None,
            ..Range::MILLIS
        }),
        since: Since::Later,
        doc: "Time between two announcements after a failover; 0 means miimon. Rounded down to a multiple of miimon. \
              [bonding.rst: peer_notif_delay]",
        parse: Parse::Delay(|v, c| c.options.peer_notif_delay = of_ms(v)),
        show: Show::Stored(|o| ms(o.peer_notif_delay)),
        ..ROW
    },
    OptionRow {
        name: "use_carrier",
        default: "1",
        kind: Kind::Switch,
        since: Since::Linux24,
        doc: "1: carrier is read from the network stack. 0: it is read from the driver, by ethtool or MII registers, at each \
              poll and link event; if the driver supports neither, the port counts as up. [bonding.rst: use_carrier]",
        parse: Parse::Text(|text, c| store(switch(text, true), |v| c.options.use_carrier = v)),
        show: Show::Stored(|o| number(o.use_carrier)),
        ..ROW
    },
    OptionRow {
        name: "arp_interval",
        unit: "ms",
        default: "0",
        kind: Kind::Number(Range::MILLIS),
        since: Since::Linux24,
        doc: "How often every target is probed, by ARP requests and neighbour solicitations: the ARP monitor. It takes the \
              place of the MII monitor, so miimon becomes 0. 0 switches it off. [bonding.rst: arp_interval]",
        parse: Parse::Number(|v, c| c.set_arp_interval(of_ms(v))),
        show: Show::Stored(|o| ms(o.arp_interval)),
        ..ROW
    },
    OptionRow {
        name: "arp_ip_target",
        default: "",
        takes: "up to 16 IPv4 addresses as a,b,c, or +a,b to add, -a,b to remove, none for none",
        kind: Kind::List,
        since: Since::Linux24,
        doc: "Targets that are probed by ARP: neighbours that always run, such as routers. [bonding.rst: arp_ip_target]",
        parse: Parse::Text(|text, c| {
            let list = targets(text, &c.options.arp_ip_target, probeable_v4);
            store(list, |v| c.options.arp_ip_target = v)
        }),
        show: Show::Stored(|o| list(&o.arp_ip_target)),
        ..ROW
    },
    OptionRow {
        name: "ns_ip6_target",
        default: "",
        takes: "up to 16 IPv6 addresses as a,b,c, or +a,b to add, -a,b to remove, none for none",
        kind: Kind::List,
        since: Since::Later,
        files: Files::None,
        doc: "Targets that are probed by neighbour solicitations. [bonding.rst: ns_ip6_target]",
        parse: Parse::Text(|text, c| {
            let list = targets(text, &c.options.ns_ip6_target, probeable_v6);
            store(list, |v| c.options.ns_ip6_target = v)
        }),
        show: Show::Stored(|o| list(&o.ns_ip6_target)),
        ..ROW
    },
    OptionRow {
        name: "arp_validate",
        default: "none",
        kind: Kind::Choice(ArpValidate::NAMES),
        doc: "Which frames prove that a port works: any (none), only answers of targets and, on backup ports, probes that \
              came through the network (active, backup, all: on which ports), or any ARP and IPv6 (filter). A new mode sets \
              it back to none. [bonding.rst: arp_validate]",
        parse: Parse::Text(|text, c| {
            let value = named(text, ArpValidate::VALUES, ArpValidate::None);
            store(value, |v| {
                c.options.arp_validate = v;
                c.given.arp_validate = v != ArpValidate::None;
            })
        }),
        show: Show::Stored(|o| OptionValue::Name(o.arp_validate.to_string())),
        ..ROW
    },
    OptionRow {
        name: "arp_all_targets",
        default: "any",
        kind: Kind::Choice(ArpAllTargets::NAMES),
        doc: "Whether a validated port of active-backup works when any of the targets answers, or only when all do. \
              [bonding.rst: arp_all_targets]",
        parse: Parse::Text(|text, c| {
            let value = named(text, ArpAllTargets::VALUES, ArpAllTargets::Any);
            store(value, |v| c.options.arp_all_targets = v)
        }),
        show: Show::Stored(|o| OptionValue::Name(o.arp_all_targets.to_string())),
        ..ROW
    },
    OptionRow {
        name: "primary",
        default: "",
        takes: "the name of an interface, or none",
        modes: Modes::Only(ModeName::ActiveBackup),
        since: Since::Linux24,
        doc: "The preferred port: active whenever its link is up, subject to primary_reselect. It may be attached later. \
              [bonding.rst: primary]",
        parse: Parse::Text(|text, c| {
            store(port_name(text), |v| {
                c.options.primary = v;
                c.primary_given = true;
            })
        }),
        show: Show::Stored(|o| o.primary.clone().map_or(OptionValue::None, OptionValue::Name)),
        ..ROW
    },
    OptionRow {
        name: "primary_reselect",
        default: "always",
        kind: Kind::Choice(PrimaryReselect::NAMES),
        doc: "When a preferred port that recovered becomes active again: always, better (if it is faster than the active \
              one) or failure (if the active one fails). [bonding.rst: primary_reselect]",
        parse: Parse::Text(|text, c| {
            let value = named(text, PrimaryReselect::VALUES, PrimaryReselect::Always);
            store(value, |v| {
                c.options.primary_reselect = v;
                c.reselect = true;
            })
        }),
        show: Show::Stored(|o| OptionValue::Name(o.primary_reselect.to_string())),
        ..ROW
    },
    OptionRow {
        name: "fail_over_mac",
        default: "none",
        kind: Kind::Choice(FailOverMac::NAMES),
        set_when: SetWhen::Empty,
        doc: "MAC addresses at a failover: none (all ports have the bond's), active (the bond takes the active port's) or \
              follow (the active port gets the bond's). Becomes active if the first port of active-backup cannot change its \
              address. [bonding.rst: fail_over_mac]",
        parse: Parse::Text(|text, c| {
            store(named(text, FailOverMac::VALUES, FailOverMac::None), |v| {
                c.options.fail_over_mac = v
            })
        }),
        show: Show::Stored(|o| OptionValue::Name(o.fail_over_mac.to_string())),
        ..ROW
    },
    OptionRow {
        name: "xmit_hash_policy",
        default: "layer2",
        kind: Kind::Choice(XmitHashPolicy::NAMES),
        doc: "Fields of a frame that balance-xor hashes to choose a port. [bonding.rst: xmit_hash_policy]",
        parse: Parse::Text(|text, c| {
            let value = named(text, XmitHashPolicy::VALUES, XmitHashPolicy::Layer2);
            store(value, |v| c.options.xmit_hash_policy = v)
        }),
        show: Show::Stored(|o| OptionValue::Name(o.xmit_hash_policy.to_string())),
        ..ROW
    },
    OptionRow {
        name: "resend_igmp",
        default: "1",
        kind: Kind::Number(Range::BYTE),
        doc: "How often the bond's multicast memberships are reported again after a failover, every 200 ms. \
              [bonding.rst: resend_igmp]",
        parse: Parse::Number(|v, c| c.options.resend_igmp = v as u8),
        show: Show::Stored(|o| number(o.resend_igmp)),
        ..ROW
    },
    OptionRow {
        name: "num_grat_arp",
        aliases: &["num_unsol_na"],
        default: "1",
        kind: Kind::Number(Range::BYTE),
        files: Files::EveryName,
        doc: "How often every address of the bond is announced after a failover, by gratuitous ARP and unsolicited neighbour \
              advertisement. [bonding.rst: num_grat_arp]",
        parse: Parse::Number(|v, c| c.options.num_grat_arp = v as u8),
        show: Show::Stored(|o| number(o.num_grat_arp)),
        ..ROW
    },
    OptionRow {
        name: "all_slaves_active",
        default: "0",
        kind: Kind::Switch,
        doc: "1: frames that arrive on backup ports are accepted, too. [bonding.rst: all_slaves_active]",
        parse: Parse::Text(|text, c| store(switch(text, false), |v| c.options.all_slaves_active = v)),
        show: Show::Stored(|o| number(o.all_slaves_active)),
        ..ROW
    },
    OptionRow {
        name: "min_links",
        default: "0",
        kind: Kind::Number(Range {
            off: false,
            ..Range::MILLIS
        }),
        doc: "Stored and shown, without effect in modes 0 to 3, as in the kernel's driver. [bonding.rst: min_links]",
        parse: Parse::Number(|v, c| c.options.min_links = v),
        show: Show::Stored(|o| number(o.min_links)),
        ..ROW
    },
    OptionRow {
        name: "lp_interval",
        unit: "s",
        default: "1",
        kind: Kind::Number(Range {
            min: 1,
            default: Some(1),
            off: false,
            ..Range::MILLIS
        }),
        doc: "Stored and shown, without effect in modes 0 to 3, as in the kernel's driver. [bonding.rst: lp_interval]",
        parse: Parse::Number(|v, c| c.options.lp_interval = v),
        show: Show::Stored(|o| number(o.lp_interval)),
        ..ROW
    },
    OptionRow {
        name: "packets_per_slave",
        default: "1",
        modes: Modes::Only(ModeName::BalanceRr),
        kind: Kind::Number(Range {
            max: 65535,
            ..Range::BYTE
        }),
        doc: "How many frames in a row balance-rr sends through one port; 0 chooses a random port for each frame. \
              [bonding.rst: packets_per_slave]",
        parse: Parse::Number(|v, c| c.options.packets_per_slave = v),
        show: Show::Stored(|o| number(o.packets_per_slave)),
        ..ROW
    },
    OptionRow {
        name: "arp_missed_max",
        default: "2",
        kind: Kind::Number(Range {
            min: 1,
            default: Some(2),
            ..Range::BYTE
        }),
        since: Since::Later,
        doc: "How many intervals a port may stay without a sign of life before it goes down; backup ports one more. \
              [bonding.rst: arp_missed_max]",
        parse: Parse::Number(|v, c| c.options.arp_missed_max = v as u8),
        show: Show::Stored(|o| number(o.arp_missed_max)),
        ..ROW
    },
    OptionRow {
        name: "learn_packets",
        default: "1",
        modes: Modes::Only(ModeName::ActiveBackup),
        kind: Kind::Switch,
        since: Since::Ours,
        files: Files::None,
        doc: "1: after a failover one small broadcast frame each announces the addresses behind the bond to the switches: \
              those that a bridge above it has learned, and those of macvlans. Not in the kernel's driver.",
        parse: Parse::Text(|text, c| store(switch(text, true), |v| c.options.learn_packets = v)),
        show: Show::Stored(|o| number(o.learn_packets)),
        ..ROW
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::change::Change;

    #[test]
    fn every_row_shows_its_default() {
        let shown = show_all(&BondOptions::default(), None);
        for row in TABLE {
            let text = match &shown[row.name] {
                OptionValue::None => String::new(),
                OptionValue::Number(n) => n.to_string(),
                OptionValue::Name(name) => name.clone(),
                OptionValue::List(list) => list.join(","),
            };
            assert_eq!(text, row.default, "{}", row.name);
        }
    }

    #[test]
    fn numbers_are_taken_within_the_range_that_the_row_says() {
        for (row, range) in TABLE.iter().filter_map(|row| Some((row, row.range()?))) {
            let takes = |number: u64| {
                let options = BondOptions {
                    miimon: Duration::from_millis(1),
                    ..BondOptions::default()
                };
                row.parse(&number.to_string(), &mut Change::new(options))
            };
            let (least, most) = range.into_inner();
            assert!(takes(least.into()) && takes(most.into()), "{}", row.name);
            assert!(!takes(u64::from(most) + 1), "{}", row.name);
            assert!(least == 0 || !takes(u64::from(least) - 1), "{}", row.name);
            assert!(
                row.expected().contains(&most.to_string()),
                "{}: {}",
                row.name,
                row.expected()
            );
        }
    }

    #[test]
    fn a_choice_is_taken_by_name_and_by_number_and_shown_by_name() {
        let mut choices = 0;
        for row in TABLE {
            let Kind::Choice(values) = row.kind else { continue };
            choices += 1;
            for (name, number) in values {
                assert_eq!(row.number_of(name), Some(*number));
                for text in [(*name).to_owned(), number.to_string()] {
                    let mut change = Change::new(BondOptions::default());
                    assert!(row.parse(&text, &mut change), "{}={text}", row.name);
                    let shown = row.value(&change.options);
                    assert_eq!(shown, OptionValue::Name((*name).to_owned()), "{}", row.name);
                }
            }
            assert_eq!(row.number_of("x"), None);
        }
        assert_eq!(choices, 6);
    }

    #[test]
    fn dash_and_underscore_are_the_same_in_names() {
        assert_eq!(find("primary-reselect").map(|row| row.name), Some("primary_reselect"));
        assert_eq!(find("num_unsol_na").map(|row| row.name), Some("num_grat_arp"));
        assert!(find("primaryreselect").is_none());
    }
}

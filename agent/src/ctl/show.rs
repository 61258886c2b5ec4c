//! Text of `bondctl show`: a few lines and a table of ports for each bond.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bond_modes::options::OptionRow;
use bond_modes::{EvidenceStatus, OptionValue, PortStatus, Role, TargetStatus, options};
use bond_monitors::{AnswerKind, Duplex, SignOfLife};

use crate::control::proto::{BondReport, Origin, PortReport, Report, UnfulfilledReport, WaitingReport};

const HEADINGS: [&str; 10] = [
    "PORT",
    "STATE",
    "LINK",
    "CARRIER",
    "SPEED",
    "MAC",
    "FAILURES",
    "TX FRAMES",
    "RX FRAMES",
    "DROPPED",
];

/// The first column with numbers, which are aligned on the right.
const FIRST_NUMBER: usize = 6;

/// Shown for an unknown value.
const UNKNOWN: &str = "-";

/// The whole text.
pub(super) fn report(report: &Report) -> String {
    if report.bonds.is_empty() && report.waiting.is_empty() {
        return "no bonds\n".to_owned();
    }
    let waiting = report.waiting.iter().map(waiting);
    report
        .bonds
        .iter()
        .map(bond)
        .chain(waiting)
        .collect::<Vec<_>>()
        .join("\n")
}

fn waiting(bond: &WaitingReport) -> String {
    if bond.starting {
        return format!("{}: NOT THERE YET: {}\n", bond.name, bond.why);
    }
    let since = bond.since_ms.map(|since| format!(", for {}", age(since)));
    let (what, meanwhile) = match bond.unmade {
        true => ("NOT MADE", ""),
        false => ("NOT TAKEN OVER", "; it forwards as before and is not monitored"),
    };
    format!(
        "{}: {what}{}: {}{meanwhile}; next attempt in {} ms\n",
        bond.name,
        since.unwrap_or_default(),
        bond.why,
        bond.next_attempt_ms
    )
}

fn bond(bond: &BondReport) -> String {
    let status = &bond.status;
    let admin = if status.up { "up" } else { "down" };
    let carrier = if status.carrier { "carrier" } else { "NO CARRIER" };
    let active = status.active_port.as_deref().unwrap_or("none");
    let primary = match &status.primary {
        Some(primary) => format!("{primary} (primary_reselect {})", value(bond, "primary_reselect")),
        None => "none".to_owned(),
    };
    let mut text = format!("{}: {admin}, {carrier}\n", bond.name);
    for (name, value) in [
        (
            "mode",
            format!("{} ({}), plane {}", status.mode, status.mode_number, bond.plane),
        ),
        ("mac", format!("{}, mtu {}", status.mac, status.mtu)),
        ("active", format!("{active}, primary {primary}")),
        ("monitor", monitor(bond)),
    ] {
        text += &format!("  {name:<9}{value}\n");
    }
    if let Some(origins) = origins(bond) {
        text += &format!("  {:<9}{origins}\n", "options");
    }
    if let Some(failover) = bond.failover.as_ref().filter(|failover| failover.possible) {
        let by = match &failover.why_not {
            None => "in the kernel".to_owned(),
            Some(why) => format!("by bondd: {why}"),
        };
        text += &format!("  {:<9}{by}\n", "failover");
    }
    for part in &bond.unfulfilled {
        let UnfulfilledReport {
            what, why, since_ms, ..
        } = part;
        text += &format!("  {:<9}cannot {what}, for {}: {why}\n", "NOT DONE", age(*since_ms));
    }
    for target in &status.targets {
        text += &format!("  {:<9}{}\n", "target", way(target));
    }
    if bond.ports.is_empty() {
        return text + "  no ports\n";
    }
    text += &table(&bond.ports.iter().map(row).collect::<Vec<_>>());
    text + &bond.ports.iter().map(remarks).collect::<String>()
}

/// What the table does not say of a port, each in a line.
fn remarks(port: &PortReport) -> String {
    let mut remarks = Vec::new();
    if let Some(evidence) = port.status.as_ref().and_then(|status| status.evidence.as_ref()) {
        remarks.push(rests_on(evidence));
    }
    if port.notes.unmonitored {
        remarks
            .push("UNMONITORED: its driver reports no link, so it counts as up for ever; set use_carrier=1".to_owned());
    }
    if let Some(reason) = &port.notes.attach_error {
        let next = port.notes.next_attempt_ms.unwrap_or(0).div_ceil(1000);
        remarks.push(format!("CANNOT BE ATTACHED: {reason}; next attempt in {next} s"));
    }
    let lines = remarks.into_iter().map(|remark| format!("  {}: {remark}\n", port.name));
    lines.collect()
}

/// The options that files, operators and bondd itself have set.
fn origins(bond: &BondReport) -> Option<String> {
    let named = |row: &OptionRow| match bond.options_for_ports.get(row.name) {
        Some(port) => format!("{} for {port}", row.name),
        None => row.name.to_owned(),
    };
    let set_by = |origin: Origin| {
        // Only the first name of an option is listed.
        let rows = options::TABLE
            .iter()
            .filter(|row| bond.option_origins.get(row.name) == Some(&origin));
        let names: Vec<String> = rows.map(named).collect();
        (!names.is_empty()).then(|| format!("{origin}: {}", names.join(", ")))
    };
    let parts: Vec<String> = [Origin::File, Origin::Operator, Origin::Bondd]
        .into_iter()
        .filter_map(set_by)
        .collect();
    (!parts.is_empty()).then(|| format!("set by {}", parts.join("; ")))
}

/// A duration for people.
fn age(ms: u64) -> String {
    match ms / 1000 {
        0 => format!("{ms} ms"),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// The monitor and its times.
fn monitor(bond: &BondReport) -> String {
    let status = &bond.status;
    let value = |option| value(bond, option);
    match (status.monitor.as_deref(), status.unmonitored) {
        (Some("arp"), true) => "UNMONITORED except for carrier: no target can be asked through this bond".to_owned(),
        (Some("arp"), false) => format!(
            "arp, arp_interval {} ms, arp_missed_max {}, arp_validate {}, arp_all_targets {}",
            value("arp_interval"),
            value("arp_missed_max"),
            value("arp_validate"),
            value("arp_all_targets")
        ),
        (name, unmonitored) => {
            let (miimon, up, down) = (value("miimon"), value("updelay"), value("downdelay"));
            let mut delays = format!("miimon {miimon}, updelay {up}, downdelay {down} ms");
            if let Some(every) = bond.polled_every_ms {
                delays += &format!(", POLLED EVERY {every} ms");
            }
            if unmonitored {
                format!("UNMONITORED: a dead port stays in use, set miimon ({delays})")
            } else {
                format!("{}, {delays}", name.unwrap_or("none"))
            }
        }
    }
}

/// Way to a target.
fn way(target: &TargetStatus) -> String {
    let vlans = target.vlans.iter().map(|id| format!(", vlan {id}")).collect::<String>();
    let nothing: IpAddr = match target.target {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = target.source.unwrap_or(nothing);
    let why = match target.source {
        Some(_) => "",
        None => ", without an address in its network: not every host answers",
    };
    match (&target.elsewhere, target.monitored) {
        (Some(device), _) => format!("{}: DOES NOT COUNT, it is reached through {device}", target.target),
        (None, Some(_)) => format!("{}: asked from {source}{vlans}{why}", target.target),
        (None, None) => format!("{}: not asked yet", target.target),
    }
}

/// Evidence about a port.
fn rests_on(evidence: &EvidenceStatus) -> String {
    let counts = match evidence.counts {
        SignOfLife::Any => "any frame counts",
        SignOfLife::Probes => "ARP and IPv6 count",
        SignOfLife::Validated => "validated answers count",
    };
    let heard = match evidence.heard_ms_ago {
        Some(ms) => format!("last heard {ms} ms ago"),
        None => "never heard".to_owned(),
    };
    let answers = evidence.answers.iter().map(|answer| match answer.by {
        AnswerKind::Reply => format!(", {} answered {} ms ago", answer.target, answer.ms_ago),
        AnswerKind::Request => format!(", heard {} being asked {} ms ago", answer.target, answer.ms_ago),
    });
    format!("{counts}, {heard}{}", answers.collect::<String>())
}

/// An option's effective value; unknown if the agent, being older or newer, does not report it.
fn value(bond: &BondReport, option: &str) -> String {
    debug_assert!(options::find(option).is_some(), "there is no option {option}");
    match bond.status.options.get(option) {
        Some(OptionValue::Number(n)) => n.to_string(),
        Some(OptionValue::Name(name)) => name.clone(),
        Some(OptionValue::List(items)) => items.join(","),
        Some(OptionValue::None) | None => UNKNOWN.to_owned(),
    }
}

fn row(port: &PortReport) -> [String; HEADINGS.len()] {
    let (status, counters) = (port.status.as_ref(), port.counters.as_ref());
    let role = |status: &PortStatus| match status.role {
        Role::Active => "active",
        Role::Backup => "backup",
    };
    let link = |status: &PortStatus| match status.delay_left_ms {
        Some(left) => format!("{}, {left} ms left", status.link.as_str()),
        None => status.link.as_str().to_owned(),
    };
    let speed = |status: &PortStatus| match (status.speed_mbps.0, status.duplex) {
        (Some(speed), Duplex::Unknown) => Some(speed.to_string()),
        (Some(speed), duplex) => Some(format!("{speed}/{duplex}")),
        (None, Duplex::Unknown) => None,
        (None, duplex) => Some(duplex.to_string()),
    };
    [
        port.name.clone(),
        status.map_or(port.absence(), role).to_owned(),
        known(status.map(link)),
        known(status.map(|status| if status.carrier { "yes" } else { "no" })),
        known(status.and_then(speed)),
        known(status.map(|status| status.mac)),
        known(status.map(|status| status.link_failures)),
        known(counters.map(|counters| counters.tx_frames)),
        known(counters.map(|counters| counters.rx_frames)),
        known(counters.map(|counters| counters.rx_dropped)),
    ]
}

fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

fn table(rows: &[[String; HEADINGS.len()]]) -> String {
    let headings = HEADINGS.map(str::to_owned);
    let lines: Vec<_> = std::iter::once(&headings).chain(rows).collect();
    let mut text = String::new();
    for line in &lines {
        let mut shown = String::from(" ");
        for (column, cell) in line.iter().enumerate() {
            let width = lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
            // Writing to a String cannot fail.
            let _ = if column < FIRST_NUMBER {
                write!(shown, " {cell:<width$} ")
            } else {
                write!(shown, " {cell:>width$} ")
            };
        }
        text += shown.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::ctl) fn sample() -> Report {
        let options = json!({"miimon":100,"updelay":200,"downdelay":0,"primary_reselect":"always","arp_ip_target":[]});
        let port = |name: &str, more: serde_json::Value| {
            let mut port = json!({"name":name,"ifindex":3,"state":"attached","link":"up","usable":true,"role":"active","carrier":true,
                "speed_mbps":1000,"duplex":"full","mac":"02:00:00:00:00:01","permanent_mac":"52:54:00:00:00:03",
                "link_failures":0,"prio":0,"queue_id":0,"tx_frames":123456,"tx_bytes":1000,"rx_frames":10,"rx_bytes":1000,
                "rx_dropped":0});
            for (key, value) in more.as_object().unwrap() {
                port[key] = value.clone();
            }
            port
        };
        let absent = json!(PortReport::absent("eth2"));
        serde_json::from_value(json!({"schema":1,"bonds":[{"name":"bond0","ifindex":7,"plane":"tc","mode":"active-backup",
            "mode_number":1,"up":true,"carrier":true,"mii_status":"up","mac":"02:00:00:00:00:01","mtu":1500,
            "active_port":"eth0","primary":"eth0","monitor":"mii","unmonitored":false,"options":options,
            "ports":[port("eth0", json!({})), port("eth1", json!({"link":"going back","usable":false,"role":"backup","delay_left_ms":150,
                "speed_mbps":null,"duplex":null,"link_failures":2,"rx_dropped":7})), absent]}]}))
        .unwrap()
    }

    #[test]
    fn the_arp_monitor_shows_what_its_verdicts_rest_on() {
        let mut report = sample();
        let bond = &mut report.bonds[0];
        bond.status.monitor = Some("arp".to_owned());
        let target = |more: serde_json::Value| {
            let mut target =
                json!({"target":"10.0.0.2","monitored":true,"source":"10.0.0.1","vlans":[7],"elsewhere":null});
            target
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            serde_json::from_value(target).unwrap()
        };
        bond.status.targets = vec![
            target(json!({})),
            target(json!({"target":"10.1.0.1","source":null,"vlans":[]})),
            target(json!({"target":"fe80::1","source":null,"vlans":[]})),
            target(json!({"target":"10.2.0.1","source":null})),
            target(json!({"target":"10.9.9.9","monitored":false,"elsewhere":"eth9"})),
        ];
        let evidence = json!({"counts":"validated","heard_ms_ago":12,
            "answers":[{"target":"10.0.0.2","by":"reply","ms_ago":12}]});
        bond.ports[0].status.as_mut().unwrap().evidence = Some(serde_json::from_value(evidence).unwrap());
        let text = super::report(&report);
        for line in [
            "  target   10.0.0.2: asked from 10.0.0.1, vlan 7\n",
            "  target   10.1.0.1: asked from 0.0.0.0, without an address in its network: not every host answers\n",
            "  target   fe80::1: asked from ::, without an address in its network: not every host answers\n",
            "  target   10.2.0.1: asked from 0.0.0.0, vlan 7, without an address in its network: not every host answers\n",
            "  target   10.9.9.9: DOES NOT COUNT, it is reached through eth9\n",
            "  eth0: validated answers count, last heard 12 ms ago, 10.0.0.2 answered 12 ms ago\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        report.bonds[0].status.unmonitored = true;
        assert!(super::report(&report).contains("UNMONITORED except for carrier"));
    }

    #[test]
    fn a_bond_is_a_header_and_an_aligned_table() {
        let wanted = "\
bond0: up, carrier
  mode     active-backup (1), plane tc
  mac      02:00:00:00:00:01, mtu 1500
  active   eth0, primary eth0 (primary_reselect always)
  monitor  mii, miimon 100, updelay 200, downdelay 0 ms
  PORT  STATE   LINK                     CARRIER  SPEED      MAC                FAILURES  TX FRAMES  RX FRAMES  DROPPED
  eth0  active  up                       yes      1000/full  02:00:00:00:00:01         0     123456         10        0
  eth1  backup  going back, 150 ms left  yes      -          02:00:00:00:00:01         2     123456         10        7
  eth2  absent  -                        -        -          -                         -          -          -        -
";
        assert_eq!(report(&sample()), wanted);
    }

    #[test]
    fn options_say_who_set_them() {
        let mut sample = sample();
        let origins = [
            ("mode", Origin::File),
            ("miimon", Origin::File),
            ("num_grat_arp", Origin::Operator),
        ];
        let more = [("num_unsol_na", Origin::Operator), ("updelay", Origin::Default)];
        let origins = origins.into_iter().chain(more);
        sample.bonds[0].option_origins = origins.map(|(name, origin)| (name.to_owned(), origin)).collect();
        let line = "\n  options  set by file: mode, miimon; operator: num_grat_arp\n";
        let text = report(&sample);
        assert!(text.contains(line), "{text}");
        let for_port = ("fail_over_mac".to_owned(), "eth0".to_owned());
        sample.bonds[0].option_origins.insert(for_port.0.clone(), Origin::Bondd);
        sample.bonds[0].options_for_ports = [for_port].into();
        let text = report(&sample);
        let line = "; operator: num_grat_arp; bondd: fail_over_mac for eth0\n";
        assert!(text.contains(line), "{text}");
        // Another option required it.
        let entailed = sample.bonds[0]
            .option_origins
            .insert("miimon".to_owned(), Origin::Bondd);
        assert_eq!(entailed, Some(Origin::File));
        let text = report(&sample);
        let line = "set by file: mode; operator: num_grat_arp; bondd: miimon, fail_over_mac for eth0\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn what_should_worry_is_in_capitals() {
        let mut sample = sample();
        let bond = &mut sample.bonds[0];
        bond.status.carrier = false;
        bond.status.unmonitored = true;
        bond.status.monitor = None;
        bond.status.active_port = None;
        bond.status.primary = None;
        bond.ports.clear();
        let text = report(&sample);
        assert!(text.starts_with("bond0: up, NO CARRIER\n"), "{text}");
        assert!(text.contains("  monitor  UNMONITORED: "), "{text}");
        assert!(text.contains("  active   none, primary none\n"), "{text}");
        assert!(text.ends_with("  no ports\n"), "{text}");
    }

    #[test]
    fn polls_that_come_later_than_miimon_says_are_told() {
        let mut sample = sample();
        assert!(!report(&sample).contains("POLLED EVERY"));
        sample.bonds[0].polled_every_ms = Some(180);
        let told = report(&sample);
        assert!(told.contains(" ms, POLLED EVERY 180 ms\n"), "{told}");
    }

    #[test]
    fn what_could_not_be_brought_about_is_told_with_its_age_and_reason() {
        let mut sample = sample();
        let what = "set the address of bond0".to_owned();
        let why = "Device or resource busy (os error 16)".to_owned();
        sample.bonds[0].unfulfilled = vec![UnfulfilledReport {
            what,
            why,
            since_ms: 12_345,
            is_cut: false,
        }];
        let wanted = "  NOT DONE cannot set the address of bond0, for 12 s: Device or resource busy (os error 16)\n";
        assert!(report(&sample).contains(wanted), "{}", report(&sample));
        assert_eq!(
            [999, 119_999, 120_000, 7_200_000].map(age),
            ["999 ms", "119 s", "2 min", "2 h"]
        );
    }

    #[test]
    fn a_port_whose_interface_is_there_is_not_attached_and_not_absent() {
        let mut sample = sample();
        let eth2 = sample.bonds[0].ports.last_mut().unwrap();
        eth2.notes.attach_error = Some("eth2 belongs to br0".to_owned());
        assert!(json!(eth2)["state"] == "absent", "what JSON calls it stays");
        let text = report(&sample);
        assert!(text.contains("\n  eth2  not attached  - "), "{text}");
        assert!(
            text.contains("  eth2: CANNOT BE ATTACHED: eth2 belongs to br0; next"),
            "{text}"
        );
    }

    #[test]
    fn bonds_are_separated_by_an_empty_line_and_none_is_said() {
        let mut two = sample();
        two.bonds.push(two.bonds[0].clone());
        assert_eq!(report(&two).matches("\n\nbond0: ").count(), 1);
        two.bonds.clear();
        assert_eq!(report(&two), "no bonds\n");
        let waiting = json!([{"name":"bond1","why":"out of memory","next_attempt_ms":100}]);
        two.waiting = serde_json::from_value(waiting).unwrap();
        assert_eq!(
            report(&two),
            "bond1: NOT TAKEN OVER: out of memory; it forwards as before and is not monitored; next attempt in 100 ms\n"
        );
        two.waiting[0].unmade = true;
        two.waiting[0].since_ms = Some(12_000);
        assert_eq!(
            report(&two),
            "bond1: NOT MADE, for 12 s: out of memory; next attempt in 100 ms\n"
        );
        two.waiting[0].starting = true;
        assert_eq!(report(&two), "bond1: NOT THERE YET: out of memory\n");
    }
}

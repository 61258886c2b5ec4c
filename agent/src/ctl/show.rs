//! `bondctl show` for people: a few lines a bond and a table of its ports.

use std::fmt::Write;

use bond_modes::OptionValue;

use crate::control::proto::{BondReport, PortPresence, PortReport, Report};

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

/// From this column on they hold numbers, which line up on the right.
const FIRST_NUMBER: usize = 6;

/// Stands for what is not known.
const UNKNOWN: &str = "-";

/// The whole text.
pub(super) fn report(report: &Report) -> String {
    if report.bonds.is_empty() {
        return "no bonds\n".to_owned();
    }
    report.bonds.iter().map(bond).collect::<Vec<_>>().join("\n")
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
    let delays = format!(
        "miimon {}, updelay {}, downdelay {} ms",
        value(bond, "miimon"),
        value(bond, "updelay"),
        value(bond, "downdelay")
    );
    let monitor = if status.unmonitored {
        format!("UNMONITORED: a dead port stays in use, set miimon ({delays})")
    } else {
        format!("{}, {delays}", status.monitor.as_deref().unwrap_or("none"))
    };
    let mut text = format!("{}: {admin}, {carrier}\n", bond.name);
    for (name, value) in [
        (
            "mode",
            format!("{} ({}), plane {}", status.mode, status.mode_number, bond.plane),
        ),
        ("mac", format!("{}, mtu {}", status.mac, status.mtu)),
        ("active", format!("{active}, primary {primary}")),
        ("monitor", monitor),
    ] {
        text += &format!("  {name:<9}{value}\n");
    }
    if bond.ports.is_empty() {
        return text + "  no ports\n";
    }
    text + &table(&bond.ports.iter().map(row).collect::<Vec<_>>())
}

/// An option's effective value.
fn value(bond: &BondReport, option: &str) -> String {
    match bond.status.options.get(option) {
        Some(OptionValue::Number(n)) => n.to_string(),
        Some(OptionValue::Name(name)) => name.clone(),
        Some(OptionValue::List(items)) => items.join(","),
        Some(OptionValue::None) | None => UNKNOWN.to_owned(),
    }
}

fn row(port: &PortReport) -> [String; HEADINGS.len()] {
    let state = match (port.state, port.role) {
        (PortPresence::Absent, _) => "absent".to_owned(),
        (PortPresence::Attached, role) => known(role.map(|role| format!("{role:?}").to_lowercase())),
    };
    let link = port.link.map(|link| match port.delay_left_ms {
        Some(left) => format!("{}, {left} ms left", link.as_str()),
        None => link.as_str().to_owned(),
    });
    let speed = match (port.speed_mbps, port.duplex) {
        (Some(speed), Some(duplex)) => Some(format!("{speed}/{duplex}")),
        (Some(speed), None) => Some(speed.to_string()),
        (None, duplex) => duplex.map(|duplex| duplex.to_string()),
    };
    [
        port.name.clone(),
        state,
        known(link),
        known(port.carrier.map(|on| if on { "yes" } else { "no" })),
        known(speed),
        known(port.mac),
        known(port.link_failures),
        known(port.tx_frames),
        known(port.rx_frames),
        known(port.rx_dropped),
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
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Report {
        let options = json!({"miimon":100,"updelay":200,"downdelay":0,"primary_reselect":"always","arp_ip_target":[]});
        let port = |name: &str, more: serde_json::Value| {
            let mut port = json!({"name":name,"ifindex":3,"state":"attached","link":"up","role":"active","carrier":true,
                "speed_mbps":1000,"duplex":"full","mac":"02:00:00:00:00:01","permanent_mac":"52:54:00:00:00:03",
                "link_failures":0,"prio":0,"queue_id":0,"tx_frames":123456,"tx_bytes":1000,"rx_frames":10,"rx_bytes":1000,
                "rx_dropped":0});
            for (key, value) in more.as_object().unwrap() {
                port[key] = value.clone();
            }
            port
        };
        let mut absent = serde_json::to_value(PortReport::absent("eth2")).unwrap();
        absent["state"] = json!("absent");
        serde_json::from_value(json!({"schema":1,"bonds":[{"name":"bond0","ifindex":7,"plane":"tc","mode":"active-backup",
            "mode_number":1,"up":true,"carrier":true,"mii_status":"up","mac":"02:00:00:00:00:01","mtu":1500,
            "active_port":"eth0","primary":"eth0","monitor":"mii","unmonitored":false,"options":options,
            "ports":[port("eth0", json!({})), port("eth1", json!({"link":"going back","role":"backup","delay_left_ms":150,
                "speed_mbps":null,"duplex":null,"link_failures":2,"rx_dropped":7})), absent]}]}))
        .unwrap()
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
    fn bonds_are_separated_by_an_empty_line_and_none_is_said() {
        let mut two = sample();
        two.bonds.push(two.bonds[0].clone());
        assert_eq!(report(&two).matches("\n\nbond0: ").count(), 1);
        two.bonds.clear();
        assert_eq!(report(&two), "no bonds\n");
    }
}

//! Text of `/proc/net/bonding/<bond>`, as the kernel's driver prints it. [bond_procfs.c]
//!
//! Monitoring tools match these lines, so the text is the driver's, byte for byte, including its old words. Ports that are
//! configured but absent are not listed: the driver knows no such thing.

use std::fmt::{self, Write};

use bond_modes::{BondStatus, OptionValue, UpDown};
use bond_monitors::Duplex;

use crate::control::proto::{BondReport, PortPresence, PortReport};

/// The driver's number of active-backup.
const ACTIVE_BACKUP: u8 = 1;

/// The driver's number of balance-xor.
const BALANCE_XOR: u8 = 2;

/// Hash policies by the driver's number. [bond_options.c: bond_xmit_hashtype_tbl]
const HASH_POLICIES: [&str; 6] = ["layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"];

/// The whole file of one bond. `release` is the running kernel's, as `uname -r` prints it.
pub fn render(bond: &BondReport, release: &str) -> String {
    let mut text = String::with_capacity(1024);
    write_all(&mut text, bond, release).expect("writing to a String cannot fail");
    text
}

fn write_all(out: &mut String, bond: &BondReport, release: &str) -> fmt::Result {
    writeln!(out, "Ethernet Channel Bonding Driver: v{release}\n")?;
    head(out, bond)?;
    arp(out, &bond.status)?;
    for port in attached(bond) {
        port_block(out, port)?;
    }
    Ok(())
}

/// Everything between the banner and the ARP lines. [bond_procfs.c: bond_info_show_master]
fn head(out: &mut String, bond: &BondReport) -> fmt::Result {
    let status = &bond.status;
    write!(out, "Bonding Mode: {}", mode_text(status))?;
    match name(status, "fail_over_mac") {
        Some(policy) if status.mode_number == ACTIVE_BACKUP && policy != "none" => {
            writeln!(out, " (fail_over_mac {policy})")?;
        }
        _ => writeln!(out)?,
    }
    if status.mode_number == BALANCE_XOR {
        let policy = name(status, "xmit_hash_policy").unwrap_or(HASH_POLICIES[0]);
        let number = HASH_POLICIES.iter().position(|&p| p == policy).unwrap_or(0);
        writeln!(out, "Transmit Hash Policy: {policy} ({number})")?;
    }
    if status.mode_number == ACTIVE_BACKUP {
        primary(out, bond)?;
        let active = status.active_port.as_deref().unwrap_or("None");
        writeln!(out, "Currently Active Slave: {active}")?;
    }
    let mii = match status.mii_status {
        UpDown::Up => "up",
        UpDown::Down => "down",
    };
    writeln!(out, "MII Status: {mii}")?;
    writeln!(out, "MII Polling Interval (ms): {}", number(status, "miimon"))?;
    writeln!(out, "Up Delay (ms): {}", number(status, "updelay"))?;
    writeln!(out, "Down Delay (ms): {}", number(status, "downdelay"))?;
    writeln!(
        out,
        "Peer Notification Delay (ms): {}",
        number(status, "peer_notif_delay")
    )
}

/// A primary that is not attached reads as none. [bond_procfs.c: bond_info_show_master]
fn primary(out: &mut String, bond: &BondReport) -> fmt::Result {
    let wanted = bond.status.primary.as_deref();
    match attached(bond).find(|port| Some(port.name.as_str()) == wanted) {
        Some(port) => {
            let reselect = name(&bond.status, "primary_reselect").unwrap_or("always");
            writeln!(out, "Primary Slave: {} (primary_reselect {reselect})", port.name)
        }
        None => writeln!(out, "Primary Slave: None"),
    }
}

/// ARP monitoring, when it runs; a line whose option this bond does not have is left out.
fn arp(out: &mut String, status: &BondStatus) -> fmt::Result {
    let interval = number(status, "arp_interval");
    if interval <= 0 {
        return Ok(());
    }
    writeln!(out, "ARP Polling Interval (ms): {interval}")?;
    if let Some(OptionValue::Number(missed)) = status.options.get("arp_missed_max") {
        writeln!(out, "ARP Missed Max: {missed}")?;
    }
    for (option, label) in [
        ("arp_ip_target", "ARP IP target/s (n.n.n.n form):"),
        ("ns_ip6_target", "NS IPv6 target/s (xx::xx form):"),
    ] {
        if let Some(OptionValue::List(targets)) = status.options.get(option) {
            let list: Vec<String> = targets.iter().map(|target| format!(" {target}")).collect();
            writeln!(out, "{label}{}", list.join(","))?;
        }
    }
    Ok(())
}

/// One port. [bond_procfs.c: bond_info_show_slave]
fn port_block(out: &mut String, port: &PortReport) -> fmt::Result {
    writeln!(out, "\nSlave Interface: {}", port.name)?;
    writeln!(
        out,
        "MII Status: {}",
        port.link.map_or("down", bond_modes::LinkWord::as_str)
    )?;
    match port.speed_mbps {
        Some(speed) => writeln!(out, "Speed: {speed} Mbps")?,
        None => writeln!(out, "Speed: Unknown")?,
    }
    match port.duplex {
        Some(duplex) if duplex != Duplex::Unknown => writeln!(out, "Duplex: {duplex}")?,
        _ => writeln!(out, "Duplex: Unknown")?,
    }
    writeln!(out, "Link Failure Count: {}", port.link_failures.unwrap_or(0))?;
    writeln!(out, "Permanent HW addr: {}", port.permanent_mac.unwrap_or_default())?;
    writeln!(out, "Slave queue ID: {}", port.queue_id.unwrap_or(0))
}

fn attached(bond: &BondReport) -> impl Iterator<Item = &PortReport> {
    bond.ports.iter().filter(|port| port.state == PortPresence::Attached)
}

/// The driver's phrase for a mode; a mode without one is named as the option is.
fn mode_text(status: &BondStatus) -> &str {
    match status.mode_number {
        0 => "load balancing (round-robin)",
        ACTIVE_BACKUP => "fault-tolerance (active-backup)",
        BALANCE_XOR => "load balancing (xor)",
        3 => "fault-tolerance (broadcast)",
        _ => &status.mode,
    }
}

fn name<'a>(status: &'a BondStatus, option: &str) -> Option<&'a str> {
    match status.options.get(option) {
        Some(OptionValue::Name(name)) => Some(name),
        _ => None,
    }
}

fn number(status: &BondStatus, option: &str) -> i64 {
    match status.options.get(option) {
        Some(OptionValue::Number(number)) => *number,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bond_modes::{LinkWord, Role};
    use bond_monitors::MacAddr;

    use super::*;

    /// Recorded on a 6.1 kernel with the real driver.
    const RELEASE: &str = "6.1.0-56-cloud-amd64";

    fn bond(mode: &str, mode_number: u8, options: &[(&str, OptionValue)]) -> BondReport {
        let options: BTreeMap<String, OptionValue> =
            options.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        BondReport {
            name: "bond0".into(),
            ifindex: 7,
            plane: "tc".into(),
            status: BondStatus {
                mode: mode.into(),
                mode_number,
                up: true,
                carrier: true,
                mii_status: UpDown::Up,
                mac: MacAddr([2, 0, 0, 0, 0, 0x10]),
                mtu: 1500,
                active_port: None,
                primary: None,
                monitor: None,
                unmonitored: false,
                targets: Vec::new(),
                options,
            },
            ports: Vec::new(),
        }
    }

    fn port(name: &str, last_byte: u8) -> PortReport {
        PortReport {
            state: PortPresence::Attached,
            link: Some(LinkWord::Up),
            role: Some(Role::Active),
            speed_mbps: Some(10000),
            duplex: Some(Duplex::Full),
            permanent_mac: Some(MacAddr([2, 0, 0, 0, 0, last_byte])),
            link_failures: Some(0),
            queue_id: Some(0),
            ..PortReport::absent(name)
        }
    }

    fn word(text: &str) -> OptionValue {
        OptionValue::Name(text.to_owned())
    }

    fn list(items: &[&str]) -> OptionValue {
        OptionValue::List(items.iter().map(|&i| i.to_owned()).collect())
    }

    fn arp_bond() -> BondReport {
        let mut bond = bond(
            "active-backup",
            1,
            &[
                ("fail_over_mac", word("follow")),
                ("primary_reselect", word("better")),
                ("miimon", OptionValue::Number(0)),
                ("arp_interval", OptionValue::Number(1000)),
                ("arp_missed_max", OptionValue::Number(2)),
                ("arp_ip_target", list(&["10.0.0.1", "10.0.0.2"])),
                ("ns_ip6_target", list(&["2001:db8::1"])),
            ],
        );
        bond.status.active_port = Some("eth0".into());
        bond.status.primary = Some("eth0".into());
        bond.ports = vec![port("eth0", 0x10), port("eth1", 0x11)];
        bond
    }

    #[test]
    fn active_backup_with_every_line_reads_as_the_driver_wrote_it() {
        let want = include_str!("../../testdata/procfs/active-backup-arp.txt");
        assert_eq!(render(&arp_bond(), RELEASE), want);
    }

    #[test]
    fn a_bond_without_ports_reads_as_the_driver_wrote_it() {
        let mut bond = bond(
            "active-backup",
            1,
            &[
                ("fail_over_mac", word("none")),
                ("primary_reselect", word("always")),
                ("miimon", OptionValue::Number(100)),
                ("updelay", OptionValue::Number(200)),
                ("downdelay", OptionValue::Number(200)),
                ("peer_notif_delay", OptionValue::Number(0)),
                ("arp_interval", OptionValue::Number(0)),
                ("arp_ip_target", list(&[])),
            ],
        );
        bond.status.mii_status = UpDown::Down;
        let want = include_str!("../../testdata/procfs/active-backup-no-ports.txt");
        assert_eq!(render(&bond, RELEASE), want);
    }

    #[test]
    fn ports_read_as_the_driver_wrote_them() {
        let mut unknown = port("br9", 0);
        unknown.permanent_mac = Some(MacAddr([0x72, 0x76, 0xbd, 0x39, 0x2f, 0x0f]));
        unknown.speed_mbps = None;
        unknown.duplex = None;
        let mut down = port("eth0", 0x10);
        down.link = Some(LinkWord::Down);
        let mut failed = down.clone();
        failed.link_failures = Some(1);

        let mut text = String::new();
        for port in [&unknown, &down, &port("eth0", 0x10), &failed] {
            port_block(&mut text, port).unwrap();
        }
        assert_eq!(text, include_str!("../../testdata/procfs/ports.txt"));
    }

    #[test]
    fn other_modes_have_neither_primary_nor_active_lines() {
        let mut bond = arp_bond();
        bond.status.mode = "balance-rr".into();
        bond.status.mode_number = 0;
        let want: String = include_str!("../../testdata/procfs/active-backup-arp.txt")
            .replace(
                "fault-tolerance (active-backup) (fail_over_mac follow)",
                "load balancing (round-robin)",
            )
            .lines()
            .filter(|line| !line.starts_with("Primary") && !line.starts_with("Currently"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(render(&bond, RELEASE), want);
    }

    #[test]
    fn the_hash_policy_is_shown_in_balance_xor_only() {
        let policy = [("xmit_hash_policy", word("layer3+4"))];
        let xor = render(&bond("balance-xor", 2, &policy), RELEASE);
        assert!(
            xor.contains("\nBonding Mode: load balancing (xor)\nTransmit Hash Policy: layer3+4 (1)\nMII Status: up\n"),
            "{xor}"
        );
        for (mode, number) in [("balance-rr", 0), ("active-backup", 1), ("broadcast", 3)] {
            assert!(
                !render(&bond(mode, number, &policy), RELEASE).contains("Hash"),
                "{mode}"
            );
        }
    }

    #[test]
    fn absent_ports_are_not_listed_and_an_absent_primary_reads_as_none() {
        let mut bond = arp_bond();
        bond.ports[0] = PortReport::absent("eth0");
        let text = render(&bond, RELEASE);
        assert!(text.contains("\nPrimary Slave: None\n"), "{text}");
        assert!(!text.contains("Slave Interface: eth0"), "{text}");
        assert!(text.contains("Slave Interface: eth1"), "{text}");
    }

    #[test]
    fn delays_show_in_the_link_words() {
        let mut text = String::new();
        let mut going = port("eth0", 1);
        going.link = Some(LinkWord::GoingDown);
        port_block(&mut text, &going).unwrap();
        going.link = Some(LinkWord::GoingBack);
        port_block(&mut text, &going).unwrap();
        assert!(text.contains("MII Status: going down\n") && text.contains("MII Status: going back\n"));
    }
}

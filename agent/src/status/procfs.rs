//! Text of `/proc/net/bonding/<bond>`, as the kernel's driver prints it. [bond_procfs.c]
//!
//! Monitoring tools match these lines, so the text equals the driver's byte for byte, including its old words. Absent ports are
//! not listed, because the driver has none.

use std::fmt::{self, Write};

use bond_modes::options::{FailOverMac, millis};
use bond_modes::{BondOptions, ModeStatus, PortStatus, Spread, UpDown};
use bond_monitors::Duplex;

use super::attached::{attached, attached_primary};
use crate::control::proto::BondReport;

/// The folder of all bonds, under the run directory.
pub const FOLDER: &str = "proc/net/bonding";

/// The whole file of one bond with these options. `release` is the running kernel's, as `uname -r` prints it.
pub fn render(bond: &BondReport, options: &BondOptions, release: &str) -> String {
    let mut text = String::with_capacity(1024);
    write_all(&mut text, bond, options, release).expect("writing to a String cannot fail");
    text
}

fn write_all(out: &mut String, bond: &BondReport, options: &BondOptions, release: &str) -> fmt::Result {
    writeln!(out, "Ethernet Channel Bonding Driver: v{release}\n")?;
    head(out, bond, options)?;
    arp(out, options)?;
    of_mode(out, &bond.status.of_mode)?;
    for port in attached(bond) {
        port_block(out, port)?;
    }
    Ok(())
}

/// Everything between the banner and the ARP lines. [bond_procfs.c: bond_info_show_master]
fn head(out: &mut String, bond: &BondReport, options: &BondOptions) -> fmt::Result {
    let status = &bond.status;
    write!(out, "Bonding Mode: {}", bond_modes::mode_title(options))?;
    match bond_modes::moving_macs(options) {
        FailOverMac::None => writeln!(out)?,
        policy => writeln!(out, " (fail_over_mac {})", policy.name())?,
    }
    if let Spread::Hash(policy) = bond_modes::spread(options) {
        writeln!(out, "Transmit Hash Policy: {} ({})", policy.name(), policy.number())?;
    }
    if status.of_mode.has_active {
        primary(out, bond, options)?;
        let active = status.active_port.as_deref().unwrap_or("None");
        writeln!(out, "Currently Active Slave: {active}")?;
    }
    let mii = match status.mii_status {
        UpDown::Up => "up",
        UpDown::Down => "down",
    };
    writeln!(out, "MII Status: {mii}")?;
    writeln!(out, "MII Polling Interval (ms): {}", millis(options.miimon))?;
    writeln!(out, "Up Delay (ms): {}", millis(options.updelay))?;
    writeln!(out, "Down Delay (ms): {}", millis(options.downdelay))?;
    writeln!(
        out,
        "Peer Notification Delay (ms): {}",
        millis(options.peer_notif_delay)
    )
}

/// A primary that is not attached reads as none. [bond_procfs.c: bond_info_show_master]
fn primary(out: &mut String, bond: &BondReport, options: &BondOptions) -> fmt::Result {
    match attached_primary(bond) {
        Some(port) => {
            let reselect = options.primary_reselect.name();
            writeln!(out, "Primary Slave: {} (primary_reselect {reselect})", port.name)
        }
        None => writeln!(out, "Primary Slave: None"),
    }
}

/// ARP monitoring, when it runs.
fn arp(out: &mut String, options: &BondOptions) -> fmt::Result {
    if options.arp_interval.is_zero() {
        return Ok(());
    }
    writeln!(out, "ARP Polling Interval (ms): {}", millis(options.arp_interval))?;
    writeln!(out, "ARP Missed Max: {}", options.arp_missed_max)?;
    let (v4, v6) = (targets(&options.arp_ip_target), targets(&options.ns_ip6_target));
    writeln!(out, "ARP IP target/s (n.n.n.n form):{v4}")?;
    writeln!(out, "NS IPv6 target/s (xx::xx form):{v6}")
}

/// What the mode itself has to say. [bond_procfs.c: bond_info_show_master, "802.3ad info"]
fn of_mode(out: &mut String, shown: &ModeStatus) -> fmt::Result {
    let Some(paragraph) = &shown.paragraph else {
        return Ok(());
    };
    writeln!(out, "\n{}", paragraph.title)?;
    for (name, value) in &paragraph.lines {
        writeln!(out, "{name}: {value}")?;
    }
    Ok(())
}

fn targets(targets: &[impl ToString]) -> String {
    let list: Vec<String> = targets
        .iter()
        .map(|target| format!(" {}", target.to_string()))
        .collect();
    list.join(",")
}

/// One port. [bond_procfs.c: bond_info_show_slave]
fn port_block(out: &mut String, port: &PortStatus) -> fmt::Result {
    writeln!(out, "\nSlave Interface: {}", port.name)?;
    writeln!(out, "MII Status: {}", port.link.as_str())?;
    match port.speed_mbps.0 {
        Some(speed) => writeln!(out, "Speed: {speed} Mbps")?,
        None => writeln!(out, "Speed: Unknown")?,
    }
    match port.duplex {
        Duplex::Unknown => writeln!(out, "Duplex: Unknown")?,
        duplex => writeln!(out, "Duplex: {duplex}")?,
    }
    writeln!(out, "Link Failure Count: {}", port.link_failures)?;
    writeln!(out, "Permanent HW addr: {}", port.permanent_mac)?;
    writeln!(out, "Slave queue ID: {}", port.queue_id)
}

#[cfg(test)]
mod tests {
    use bond_modes::LinkWord;
    use bond_modes::status::Paragraph;
    use bond_monitors::{MacAddr, Speed};

    use super::super::golden::{bond, port, status};
    use super::*;

    #[test]
    fn what_the_mode_adds_stands_before_the_ports() {
        let (mut bond, options) = bond("balance-rr", &[]);
        bond.ports = vec![port("eth0", 0x10)];
        let plain = render(&bond, &options, RELEASE);
        let lines = [("Aggregator ID", "1"), ("Number of ports", "2")];
        bond.status.of_mode.paragraph = Some(Paragraph {
            title: "Active Aggregator Info:".into(),
            lines: lines.map(|(name, value)| (name.into(), value.into())).into(),
        });
        let added = "\nActive Aggregator Info:\nAggregator ID: 1\nNumber of ports: 2\n";
        let (head, ports) = plain.split_once("\nSlave Interface").unwrap();
        assert_eq!(
            render(&bond, &options, RELEASE),
            format!("{head}{added}\nSlave Interface{ports}")
        );
        assert!(!plain.contains("Active Slave"));
        bond.status.of_mode.has_active = true;
        assert!(render(&bond, &options, RELEASE).contains("\nCurrently Active Slave: None\n"));
    }

    /// Recorded on a 6.1 kernel with the real driver.
    const RELEASE: &str = "6.1.0-56-cloud-amd64";

    fn arp_bond() -> (BondReport, BondOptions) {
        let given = [
            ("fail_over_mac", "follow"),
            ("primary_reselect", "better"),
            ("primary", "eth0"),
            ("arp_interval", "1000"),
            ("arp_ip_target", "10.0.0.1,10.0.0.2"),
            ("ns_ip6_target", "2001:db8::1"),
        ];
        let (mut bond, options) = bond("active-backup", &given);
        bond.status.active_port = Some("eth0".into());
        bond.ports = vec![port("eth0", 0x10), port("eth1", 0x11)];
        (bond, options)
    }

    #[test]
    fn active_backup_with_every_line_reads_as_the_driver_wrote_it() {
        let want = include_str!("../../testdata/procfs/active-backup-arp.txt");
        let (bond, options) = arp_bond();
        assert_eq!(render(&bond, &options, RELEASE), want);
    }

    #[test]
    fn a_bond_without_ports_reads_as_the_driver_wrote_it() {
        let (mut bond, options) = bond("active-backup", &[("updelay", "200"), ("downdelay", "200")]);
        bond.status.mii_status = UpDown::Down;
        let want = include_str!("../../testdata/procfs/active-backup-no-ports.txt");
        assert_eq!(render(&bond, &options, RELEASE), want);
    }

    #[test]
    fn ports_read_as_the_driver_wrote_them() {
        let mut unknown = status("br9", 0);
        unknown.permanent_mac = MacAddr([0x72, 0x76, 0xbd, 0x39, 0x2f, 0x0f]);
        unknown.speed_mbps = Speed(None);
        unknown.duplex = Duplex::Unknown;
        let mut down = status("eth0", 0x10);
        down.link = LinkWord::Down;
        let mut failed = down.clone();
        failed.link_failures = 1;

        let mut text = String::new();
        for port in [&unknown, &down, &status("eth0", 0x10), &failed] {
            port_block(&mut text, port).unwrap();
        }
        assert_eq!(text, include_str!("../../testdata/procfs/ports.txt"));
    }
}

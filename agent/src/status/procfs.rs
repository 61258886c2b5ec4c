//! Text of `/proc/net/bonding/<bond>`, as the kernel's driver prints it. [bond_procfs.c]
//!
//! Monitoring tools match these lines, so the text is the driver's, byte for byte, including its old words. Ports that are
//! configured but absent are not listed: the driver knows no such thing.

use std::fmt::{self, Write};

use bond_modes::{BondStatus, OptionValue, PortStatus, UpDown};
use bond_monitors::Duplex;

use super::{attached, attached_primary, name, number, number_of};
use crate::control::proto::BondReport;

/// The folder of all bonds, under the run directory.
pub const FOLDER: &str = "proc/net/bonding";

/// The driver's number of active-backup.
pub(super) const ACTIVE_BACKUP: u8 = 1;

/// The driver's number of balance-xor.
const BALANCE_XOR: u8 = 2;

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
        let policy = name(status, "xmit_hash_policy").unwrap_or("layer2");
        let number = number_of("xmit_hash_policy", policy).unwrap_or(0);
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
    match attached_primary(bond) {
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

/// The driver's phrase for a mode; a mode without one is named as the option is.
pub(super) fn mode_text(status: &BondStatus) -> &str {
    match status.mode_number {
        0 => "load balancing (round-robin)",
        ACTIVE_BACKUP => "fault-tolerance (active-backup)",
        BALANCE_XOR => "load balancing (xor)",
        3 => "fault-tolerance (broadcast)",
        _ => &status.mode,
    }
}

#[cfg(test)]
mod tests {
    use bond_modes::LinkWord;
    use bond_monitors::{MacAddr, Speed};

    use super::super::golden::{bond, port, status};
    use super::*;

    /// Recorded on a 6.1 kernel with the real driver.
    const RELEASE: &str = "6.1.0-56-cloud-amd64";

    fn arp_bond() -> BondReport {
        let given = [
            ("fail_over_mac", "follow"),
            ("primary_reselect", "better"),
            ("primary", "eth0"),
            ("arp_interval", "1000"),
            ("arp_ip_target", "10.0.0.1,10.0.0.2"),
            ("ns_ip6_target", "2001:db8::1"),
        ];
        let mut bond = bond("active-backup", &given);
        bond.status.active_port = Some("eth0".into());
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
        let mut bond = bond("active-backup", &[("updelay", "200"), ("downdelay", "200")]);
        bond.status.mii_status = UpDown::Down;
        let want = include_str!("../../testdata/procfs/active-backup-no-ports.txt");
        assert_eq!(render(&bond, RELEASE), want);
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

//! Text of `/proc/net/<bond>/info`, the file of the driver of Linux 2.4, without the fields that only its last versions had.
//!
//! differs: each file has one bond; that driver repeated all bonds of one load in each file.

use std::fmt::{self, Write};

use bond_modes::options::millis;
use bond_modes::{BondOptions, LinkWord, PortStatus};

use super::attached::attached;
use crate::control::proto::BondReport;

/// The whole file of one bond with these options.
pub fn render(bond: &BondReport, options: &BondOptions) -> String {
    let mut text = String::with_capacity(512);
    write_all(&mut text, bond, options).expect("writing to a String cannot fail");
    text
}

fn write_all(out: &mut String, bond: &BondReport, options: &BondOptions) -> fmt::Result {
    writeln!(out, "Bonding Mode: {}", bond_modes::mode_title(options))?;
    let current = current(bond);
    if let Some(port) = current {
        writeln!(out, "Currently Active Slave: {}", port.name)?;
    }
    writeln!(out, "MII Status: {}", up_or_down(current.is_some()))?;
    writeln!(out, "MII Polling Interval (ms): {}", millis(options.miimon))?;
    writeln!(out, "Up Delay (ms): {}", millis(options.updelay))?;
    writeln!(out, "Down Delay (ms): {}", millis(options.downdelay))?;
    // The driver lists the newest port first.
    for port in attached(bond).rev() {
        writeln!(out, "\nSlave Interface: {}", port.name)?;
        // Delays are not shown.
        writeln!(out, "MII Status: {}", up_or_down(port.link == LinkWord::Up))?;
        writeln!(out, "Link Failure Count: {}", port.link_failures)?;
    }
    Ok(())
}

/// That driver had a current port in every mode: the next in turn or the one to fall back to, here the first that is used.
fn current(bond: &BondReport) -> Option<&PortStatus> {
    match bond.status.active_port.as_deref() {
        Some(active) => attached(bond).find(|port| port.name == active),
        None => attached(bond)
            .find(|port| port.usable)
            .filter(|_| !bond.status.of_mode.has_active),
    }
}

fn up_or_down(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{bond, port};
    use super::*;

    /// [bonding.txt of 2003]
    const SAMPLE: &str = "\
Bonding Mode: load balancing (round-robin)
Currently Active Slave: eth0
MII Status: up
MII Polling Interval (ms): 1000
Up Delay (ms): 0
Down Delay (ms): 0

Slave Interface: eth1
MII Status: up
Link Failure Count: 1

Slave Interface: eth0
MII Status: up
Link Failure Count: 1
";

    #[test]
    fn the_sample_of_the_old_document_is_what_is_written() {
        let (mut bond, options) = bond("balance-rr", &[("miimon", "1000")]);
        bond.ports = vec![port("eth0", 0x10), port("eth1", 0x11)];
        for status in bond.ports.iter_mut().filter_map(|port| port.status.as_mut()) {
            status.link_failures = 1;
        }
        assert_eq!(render(&bond, &options), SAMPLE);
    }
}

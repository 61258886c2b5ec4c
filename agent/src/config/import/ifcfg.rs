//! Files ifcfg-NAME: of Red Hat's network scripts, where ports name their bond, and of SUSE's, where a bond names its
//! ports.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::bond::{Bond, by_hand, named};
use super::reading::{Import, Text};
use super::shell::{Assignment, Command, commands};
use crate::config::diagnostic::{Findings, Place, Severity};

/// Prefix of the files' names.
const PREFIX: &str = "ifcfg-";

/// Suffixes that editors and packages add to old files. [initscripts: __sed_discard_ignored_files]
const BACKUPS: [&str; 8] = ["~", ".bak", ".old", ".orig", ".rpmnew", ".rpmorig", ".rpmsave", ".swp"];

/// Prefixes of variables that concern the interface but not bondd.
const STAYS: [&str; 12] = [
    "IPADDR",
    "IPV6ADDR",
    "IPV6INIT",
    "BOOTPROTO",
    "NETMASK",
    "PREFIX",
    "GATEWAY",
    "DNS",
    "DHCP",
    "BRIDGE",
    "VLAN",
    "ROUTE",
];

/// One file.
struct Profile {
    path: Arc<Path>,
    /// Its interface, and the place that names it.
    device: String,
    place: Place,
    assignments: Vec<Assignment>,
    /// A part that may matter could not be parsed; it was reported.
    is_unsure: bool,
}

/// Whether to read a file of a folder.
pub(super) fn is_wanted(path: &Path, findings: &mut Findings) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let is_backup = BACKUPS.iter().any(|end| name.ends_with(end));
    if name.starts_with(PREFIX) && is_backup {
        let place = Place {
            file: Arc::from(path),
            line: 0,
        };
        findings.info(&place, "not read: by its name it is a backup");
    }
    name.starts_with(PREFIX) && !is_backup
}

/// Reads the files of one machine.
pub(super) fn read(texts: &[Text], import: &mut Import) {
    let mut profiles: Vec<Profile> = Vec::new();
    for text in texts {
        let profile = Profile::read(text, &mut import.findings);
        if profile.device.is_empty() {
            if profile.concerns_bonds() {
                let text = "not imported: it names no interface, expected DEVICE=NAME or a file ifcfg-NAME";
                import.findings.error(&profile.place, text);
            }
            continue;
        }
        match profiles.iter().find(|before| before.device == profile.device) {
            Some(before) if before.concerns_bonds() || profile.concerns_bonds() => {
                let text = format!(
                    "not imported: {} has a file already, {}, expected one for each interface",
                    profile.device,
                    before.place.file.display()
                );
                import.findings.error(&profile.place, text);
            }
            _ => profiles.push(profile),
        }
    }
    let masters: Vec<Option<(String, Place)>> = profiles
        .iter()
        .map(|profile| profile.master(&mut import.findings))
        .collect();
    for profile in &profiles {
        let is_named = masters.iter().flatten().any(|(bond, _)| *bond == profile.device);
        if profile.is_bond(is_named, &mut import.findings) {
            profile.bond(import);
        }
    }
    for (profile, master) in profiles.iter().zip(masters) {
        let Some((bond, place)) = master else { continue };
        if import.bonds.iter().all(|known| known.name != bond) {
            let text = format!("{bond} has no file {PREFIX}{bond}, so that it gets the default options");
            import.findings.warning(&place, text);
        }
        let Import { bonds, findings, .. } = &mut *import;
        named(bonds, &bond, &place).port(&profile.device, &place, findings);
    }
}

impl Profile {
    fn read(text: &Text, findings: &mut Findings) -> Profile {
        let mut profile = Profile {
            path: text.path.clone(),
            device: String::new(),
            place: Place {
                file: text.path.clone(),
                line: 0,
            },
            assignments: Vec::new(),
            is_unsure: false,
        };
        for command in commands(&text.text) {
            match command {
                Command::Assign(assignment) => profile.assignments.push(assignment),
                Command::Run { line, text } => profile.say_what_is_not_run(line, &text, findings),
                Command::Unclosed { line, quote } => {
                    let text = format!("{quote} is never closed, expected a second {quote}; the rest is not read");
                    findings.error(&profile.at(line), text);
                    profile.is_unsure = true;
                }
            }
        }
        // The last value of a variable counts.
        let mut later = BTreeSet::new();
        profile.assignments.reverse();
        profile
            .assignments
            .retain(|assignment| later.insert(assignment.name.clone()));
        profile.assignments.reverse();
        let name = text.path.file_name().and_then(|name| name.to_str());
        let name = name.and_then(|name| name.strip_prefix(PREFIX));
        profile.device = name.unwrap_or_default().to_owned();
        if let Some((device, place)) = profile.value("DEVICE", findings) {
            (profile.device, profile.place) = (device.to_owned(), place);
        } else if profile.concerns_bonds()
            && let Some((address, place)) = profile.value("HWADDR", findings)
        {
            let text = format!(
                "{} is taken from the file's name, while HWADDR={address} chooses the interface, expected DEVICE=NAME",
                profile.device
            );
            findings.warning(&place, text);
        }
        profile
    }

    fn say_what_is_not_run(&mut self, line: usize, text: &str, findings: &mut Findings) {
        let short: String = text.chars().take(60).collect();
        let finding = format!("{short:?} is not run, expected NAME=value");
        let matters = ["MASTER", "SLAVE", "BONDING", "DEVICE", "TYPE"]
            .iter()
            .any(|name| text.contains(name));
        self.is_unsure |= matters;
        let severity = if matters { Severity::Error } else { Severity::Warning };
        findings.add(severity, "command-ignored", &self.at(line), finding);
    }

    fn at(&self, line: usize) -> Place {
        Place {
            file: self.path.clone(),
            line,
        }
    }

    fn get(&self, name: &str) -> Option<&Assignment> {
        self.assignments.iter().find(|assignment| assignment.name == name)
    }

    /// The value of a variable, with its place. `None` if it is empty, or needs a shell, which is reported.
    fn value(&self, name: &str, findings: &mut Findings) -> Option<(&str, Place)> {
        let assignment = self.get(name)?;
        let place = self.at(assignment.line);
        if assignment.needs_shell {
            let text = format!("{name}={} needs a shell, expected the value itself", assignment.value);
            findings.error(&place, text);
            return None;
        }
        Some((assignment.value.trim(), place)).filter(|(value, _)| !value.is_empty())
    }

    fn says_yes(&self, name: &str, findings: &mut Findings) -> bool {
        let yes = |value: &str| {
            ["yes", "y", "true", "t", "1"]
                .iter()
                .any(|yes| value.eq_ignore_ascii_case(yes))
        };
        self.value(name, findings).is_some_and(|(value, _)| yes(value))
    }

    /// Whether the file has anything to do with bonds.
    fn concerns_bonds(&self) -> bool {
        let about = |name: &str| name.starts_with("BONDING_") || ["MASTER", "SLAVE"].contains(&name);
        self.assignments.iter().any(|assignment| about(&assignment.name)) || self.has_type_of_bond()
    }

    fn has_type_of_bond(&self) -> bool {
        let is_bond = |value: &str| value.eq_ignore_ascii_case("bond") || value.eq_ignore_ascii_case("bonding");
        self.get("TYPE")
            .is_some_and(|assignment| is_bond(assignment.value.trim()))
    }

    /// The bond that the interface is a port of. [initscripts: ifup-eth]
    fn master(&self, findings: &mut Findings) -> Option<(String, Place)> {
        let is_port = self.says_yes("SLAVE", findings);
        let master = self.value("MASTER", findings);
        match (is_port, master) {
            (true, Some((bond, place))) => {
                if self.says_yes("RECEIVEONLY", findings) {
                    let text = format!(
                        "{}: RECEIVEONLY is not supported, expected a port that sends, too",
                        self.device
                    );
                    findings.error(&place, text);
                }
                Some((bond.to_owned(), place))
            }
            (true, None) => {
                let place = self.at(self.get("SLAVE").map_or(0, |slave| slave.line));
                if self.get("MASTER").is_none_or(|master| !master.needs_shell) {
                    let text = format!("{} is not a port without MASTER, expected MASTER=<bond>", self.device);
                    findings.error(&place, text);
                }
                None
            }
            (false, Some((bond, place))) => {
                let text = format!(
                    "{} is not a port of {bond} without SLAVE=yes, expected both or none",
                    self.device
                );
                findings.warning(&place, text);
                None
            }
            (false, None) => None,
        }
    }

    fn is_bond(&self, is_named: bool, findings: &mut Findings) -> bool {
        let has_ports = self.assignments.iter().find(|assignment| is_port_key(&assignment.name));
        let is_suse = self.says_yes("BONDING_MASTER", findings);
        let is_bond = is_named || is_suse || self.has_type_of_bond() || self.get("BONDING_OPTS").is_some();
        if let Some(port) = has_ports.filter(|_| !is_bond) {
            let text = format!(
                "{} is not a bond without BONDING_MASTER=yes, expected both or none",
                self.device
            );
            findings.warning(&self.at(port.line), text);
        }
        is_bond
    }

    fn bond(&self, import: &mut Import) {
        let findings = &mut import.findings;
        let mut bond = Bond::new(&self.device, &self.place);
        bond.is_broken = self.is_unsure;
        for name in ["BONDING_MODULE_OPTS", "BONDING_OPTS"] {
            let Some(assignment) = self.get(name) else { continue };
            self.value(name, findings);
            bond.is_broken |= assignment.needs_shell;
            let words = assignment.value.split_whitespace();
            let mut words: Vec<&str> = words
                .filter(|word| !assignment.needs_shell || word.contains('='))
                .collect();
            // The scripts write these options first, and the primary once there are ports. [initscripts: ifup-eth]
            words.sort_by_key(|word| match word.split('=').next() {
                Some("mode" | "miimon") => 0,
                Some("primary") => 2,
                _ => 1,
            });
            for word in words {
                bond.write(word, &self.at(assignment.line), findings);
            }
            if name == "BONDING_OPTS" && !assignment.value.trim().is_empty() {
                bond.keep_last_monitor(findings);
            }
        }
        let mut ports: Vec<&Assignment> = self.assignments.iter().filter(|a| is_port_key(&a.name)).collect();
        ports.sort_by_key(|port| (port.name.len(), port.name.as_str()));
        for port in ports {
            if let Some((name, place)) = self.value(&port.name, findings) {
                bond.port(name, &place, findings);
            }
        }
        self.say_what_stays(findings);
        import.bonds.push(bond);
    }

    /// Settings of the bond besides ports and options.
    fn say_what_stays(&self, findings: &mut Findings) {
        let device = &self.device;
        if let Some((mtu, place)) = self.value("MTU", findings) {
            by_hand(
                &place,
                &format!("MTU={mtu}"),
                &format!("ip link set {device} mtu {mtu}"),
                findings,
            );
        }
        for name in ["MACADDR", "LLADDR"] {
            if let Some((mac, place)) = self.value(name, findings) {
                let command = format!("ip link set {device} address {mac}");
                by_hand(&place, &format!("{name}={mac}"), &command, findings);
            }
        }
        for (name, off, on) in [
            ("ONBOOT", &["no"][..], "yes"),
            ("STARTMODE", &["manual", "off"][..], "auto"),
        ] {
            if let Some((value, place)) = self.value(name, findings).filter(|(value, _)| off.contains(value)) {
                let text =
                    format!("{name}={value} has no effect: bondd makes {device} at every start, expected {name}={on}");
                findings.warning(&place, text);
            }
        }
        let stays = |a: &&Assignment| STAYS.iter().any(|name| a.name.starts_with(name)) && a.value != "none";
        let stays: Vec<&Assignment> = self.assignments.iter().filter(stays).collect();
        if let Some(first) = stays.first() {
            let names: Vec<&str> = stays.iter().map(|assignment| assignment.name.as_str()).collect();
            let text = format!(
                "left to the network scripts: {}; bondd sets no addresses",
                names.join(", ")
            );
            findings.info(&self.at(first.line), text);
        }
    }
}

/// `BONDING_SLAVE_0`, in old files `BONDING_SLAVE0`.
fn is_port_key(name: &str) -> bool {
    name.starts_with("BONDING_SLAVE")
}

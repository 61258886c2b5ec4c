//! Debian's interfaces(5): translates the bonding options of one `iface` stanza into names and values of bondd.
//!
//! The lines come from a file, or from the variables that ifupdown sets for its hooks. Names are those of Debian's package
//! ifenslave, in any case and with `-` or `_`: `bond-` and an option of the table, and a few others. A refused option does not
//! affect the others.

use std::time::Duration;

use bond_modes::options::{Kind, find, is_absent_option};

use super::keep_good::keep_good;
use crate::config::diagnostic::{Diagnostic, Findings, Place, Severity};
use crate::config::names::check_interface;
use crate::config::option_list::set;
use crate::config::{Check, SpecOption};

/// A line of a stanza, or a variable of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its place.
    pub place: Place,
    /// As written: `bond-mode`, `bond_mode`, `slaves`, or the variable's name behind `IF_`.
    pub name: String,
    /// The rest of the line. In a hook, values of several lines with one name are joined by newlines.
    pub value: String,
}

/// The settings of a stanza.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stanza {
    /// Options of the bond by the table's names, each once and without those below. For a port's stanza only those that count
    /// there.
    pub options: Vec<SpecOption>,
    /// Ports to attach, by `bond-slaves`.
    pub ports: Option<(Place, Ports)>,
    /// The bond that the interface is to be a port of, by `bond-master`.
    pub bond: Option<(Place, String)>,
    /// Preferred ports; the first that is attached counts.
    pub primary: Option<(Place, Vec<String>)>,
    /// The port to make active, or `none` to let the bond choose.
    pub active: Option<(Place, Option<String>)>,
    /// Transmit queues by port, as written.
    pub queue_ids: Option<(Place, Vec<(String, String)>)>,
    /// How long the port is preferred while it waits for its link, by `bond-give-a-chance`.
    pub chance: Option<Duration>,
}

/// Ports of a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Those with a stanza that names the bond.
    None,
    /// Every interface named `eth` and a number.
    All,
    /// These.
    Named(Vec<String>),
}

/// Kind of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A bond's.
    Bond,
    /// A port's.
    Port,
    /// Of another interface: it makes no bond and no port.
    Neither,
}

impl Stanza {
    /// The kind of the stanza. With options of both kinds it is a port's.
    pub fn role(&self) -> Role {
        if self.bond.is_some() {
            Role::Port
        } else if self.ports.is_some() || self.options.iter().any(|option| option.name == "mode") {
            Role::Bond
        } else {
            Role::Neither
        }
    }

    /// The first attached one of the preferred ports.
    pub fn primary_of(&self, is_there: impl Fn(&str) -> bool) -> Option<&str> {
        let (_, wanted) = self.primary.as_ref()?;
        wanted.iter().map(String::as_str).find(|name| is_there(name))
    }

    /// Reads the options of one line.
    fn take(&mut self, name: &str, line: Line, findings: &mut Findings) {
        let Line { place, value, .. } = line;
        match name {
            "slaves" => self.ports = Some((place.clone(), port_list(&value, &place, findings))),
            "master" => {
                let name = single(name, &value, &place, findings);
                // With an impossible name it is nevertheless a port's stanza.
                interface(name, &place, findings);
                self.bond = Some((place, name.to_owned()));
            }
            "primary" => self.primary = Some((place.clone(), interfaces(&value, &place, findings))),
            "active_slave" => {
                let name = single(name, &value, &place, findings);
                self.active = match name {
                    "none" => Some((place, None)),
                    _ => interface(name, &place, findings).map(|name| (place, Some(name))),
                };
            }
            "queue_id" => self.queue_ids = Some((place.clone(), queue_ids(&value, &place, findings))),
            "give_a_chance" => {
                let text = single(name, &value, &place, findings);
                self.chance = text.parse().ok().map(Duration::from_secs);
                if self.chance.is_none() {
                    findings.error(
                        &place,
                        format!("bond-give-a-chance {text}: expected a number of seconds"),
                    );
                }
            }
            _ => self.option(name, &value, place, findings),
        }
    }

    fn option(&mut self, name: &str, value: &str, place: Place, findings: &mut Findings) {
        let row = find(name);
        let name = row.map_or(name, |row| row.name);
        let value = match row.map(|row| row.kind) {
            Some(Kind::List) => items(value).collect::<Vec<_>>().join(","),
            _ => single(name, value, &place, findings).to_owned(),
        };
        let option = SpecOption {
            name: name.to_owned(),
            value,
            place,
        };
        let place = option.place.clone();
        // num_grat_arp and num_unsol_na are one option, and often both are given.
        if let Some(before) = set(&mut self.options, option)
            && self
                .options
                .iter()
                .all(|option| option.name != name || option.value != before.value)
        {
            findings.warning(
                &place,
                format!(
                    "{name} is given again, {} has no effect, expected it once",
                    before.value
                ),
            );
        }
    }

    /// Drops the options that have no effect in the stanza of a port.
    fn keep_a_ports(&mut self, findings: &mut Findings) {
        let Some((place, bond)) = &self.bond else { return };
        if self.ports.take().is_some() {
            let text = format!("bond-slaves has no effect in a stanza with bond-master {bond}");
            findings.warning(place, text);
        }
        for option in self.options.extract_if(.., |option| option.name != "primary_reselect") {
            let text = format!(
                "bond-{} has no effect here, expected it in the stanza of {bond}",
                option.name
            );
            findings.warning(&option.place, text.replace('_', "-"));
        }
    }
}

/// Reads the lines of one stanza; lines that have nothing to do with bonds are skipped. Options that `check` refuses are
/// reported and dropped, except the mode.
pub fn read(lines: Vec<Line>, check: Check<'_>) -> (Stanza, Vec<Diagnostic>) {
    let mut files = Vec::new();
    let mut findings = Findings::default();
    let mut stanza = Stanza::default();
    for line in joined(lines) {
        if !files.contains(&line.place.file) {
            files.push(line.place.file.clone());
        }
        let Some(name) = option_name(&line.name) else { continue };
        if is_absent_option(&name) {
            let text = format!("bond-{name} is for modes that bondd does not have, it sets nothing");
            findings.add(
                Severity::Warning,
                "unsupported-option",
                &line.place,
                text.replace('_', "-"),
            );
        } else {
            stanza.take(&name, line, &mut findings);
        }
    }
    stanza.keep_a_ports(&mut findings);
    if stanza.role() == Role::Bond {
        keep_good(&mut stanza.options, check, &mut findings);
    }
    (stanza, findings.sorted(&files))
}

/// Lines as passed to hooks: lines of one name are joined by newlines, and of names that differ only in spelling the last
/// counts. [interfaces(5)]
fn joined(lines: Vec<Line>) -> Vec<Line> {
    let mut joined: Vec<Line> = Vec::new();
    for line in lines {
        let Some(before) = joined.iter_mut().find(|before| before.name == line.name) else {
            joined.push(line);
            continue;
        };
        before.value = format!("{}\n{}", before.value, line.value);
    }
    let names: Vec<_> = joined.iter().map(|line| option_name(&line.name)).collect();
    let mut at = 0;
    joined.retain(|_| {
        at += 1;
        names[at - 1].is_none() || !names[at..].contains(&names[at - 1])
    });
    joined
}

/// The name behind `bond-`, as the kernel spells it; `None` if it is not a bonding option.
fn option_name(written: &str) -> Option<String> {
    let name = written.to_ascii_lowercase().replace('-', "_");
    match name.strip_prefix("bond_") {
        Some(name) => Some(name.to_owned()),
        // From the years before the prefix.
        None => Some(name).filter(|name| name == "slaves"),
    }
}

/// Elements of a list with blanks, newlines or commas between them.
fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split([' ', '\t', '\n', ',']).filter(|item| !item.is_empty())
}

/// The value of an option that has one.
fn single<'a>(name: &str, value: &'a str, place: &Place, findings: &mut Findings) -> &'a str {
    let mut lines = value.lines().rev();
    let last = lines.next().unwrap_or_default().trim();
    for before in lines.rev() {
        let text = format!(
            "{name} is given again, {} has no effect, expected it once",
            before.trim()
        );
        findings.warning(place, text);
    }
    last
}

fn port_list(value: &str, place: &Place, findings: &mut Findings) -> Ports {
    match value.trim() {
        "none" => Ports::None,
        "all" => Ports::All,
        _ => Ports::Named(interfaces(value, place, findings)),
    }
}

fn interface(name: &str, place: &Place, findings: &mut Findings) -> Option<String> {
    let checked = check_interface(name);
    checked.map_err(|wrong| findings.error(place, wrong)).ok()?;
    Some(name.to_owned())
}

/// Each once.
fn interfaces(value: &str, place: &Place, findings: &mut Findings) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in items(value).filter_map(|name| interface(name, place, findings)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn queue_ids(value: &str, place: &Place, findings: &mut Findings) -> Vec<(String, String)> {
    let mut queues = Vec::new();
    for item in items(value) {
        // An alias of an interface may have a colon of its own.
        match item.rsplit_once(':') {
            Some((port, queue)) => queues.push((port.to_owned(), queue.to_owned())),
            None => findings.error(place, format!("bond-queue-id {item}: expected PORT:NUMBER")),
        }
    }
    queues
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::instances::check_options;

    /// A stanza of these lines, and the findings about it.
    fn stanza(text: &str) -> (Stanza, Vec<String>) {
        let file: Arc<Path> = Arc::from(Path::new("interfaces"));
        let lines = text.lines().enumerate().map(|(at, line)| {
            let (name, value) = line.trim().split_once(' ').unwrap();
            Line {
                place: Place {
                    file: file.clone(),
                    line: at + 1,
                },
                name: name.to_owned(),
                value: value.replace("\\n", "\n"),
            }
        });
        let (stanza, findings) = read(lines.collect(), &check_options);
        (stanza, findings.iter().map(ToString::to_string).collect())
    }

    fn options(stanza: &Stanza) -> String {
        let pairs = stanza
            .options
            .iter()
            .map(|option| format!("{}={}", option.name, option.value));
        pairs.collect::<Vec<_>>().join(" ")
    }

    fn named(ports: &[&str]) -> Option<Ports> {
        Some(Ports::Named(ports.iter().map(|port| (*port).to_owned()).collect()))
    }

    fn ports(stanza: &Stanza) -> Option<Ports> {
        stanza.ports.as_ref().map(|(_, ports)| ports.clone())
    }

    #[test]
    fn every_spelling_of_a_stanza_says_the_same() {
        for text in [
            "address 192.0.2.1/24\nbond-slaves eth0 eth1\nbond-mode active-backup\nbond-miimon 100\nbond-primary eth0",
            "slaves eth0 eth1\nbond_mode active-backup\nbond_miimon 100\nbond_primary eth0",
            "BOND_SLAVES eth0\\neth1\nBOND_MODE active-backup\nBOND_MIIMON 100\nBOND_PRIMARY eth0",
            "bond-slaves eth0\nBond-Mode active-backup\nbond-miimon 100\nbond-slaves eth1\nbond-primary eth0",
            "bond-mode 4\nbond-slaves eth0,eth1\nbond_mode active-backup\nbond-miimon 100\nbond-primary eth0",
        ] {
            let (stanza, said) = stanza(text);
            assert_eq!(options(&stanza), "mode=active-backup miimon=100", "{text}");
            assert_eq!(ports(&stanza), named(&["eth0", "eth1"]), "{text}");
            assert_eq!(stanza.primary_of(|name| name == "eth0"), Some("eth0"), "{text}");
            assert_eq!((stanza.role(), said), (Role::Bond, Vec::new()), "{text}");
        }
    }

    #[test]
    fn lists_have_blanks_newlines_or_commas_between_their_elements() {
        let (read, said) = stanza(
            "bond-mode 1\nbond-arp-interval 500\nbond-arp-ip-target 10.0.0.1 10.0.0.2,10.0.0.3\n\
             bond-arp-ip-target 10.0.0.4\nbond-primary eth2,eth1 eth0\nbond-queue-id eth0:2 eth1:3",
        );
        assert_eq!(
            options(&read),
            "mode=1 arp_interval=500 arp_ip_target=10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4"
        );
        assert_eq!(read.primary_of(|name| name != "eth2"), Some("eth1"));
        let queues = [("eth0", "2"), ("eth1", "3")].map(|(port, queue)| (port.to_owned(), queue.to_owned()));
        assert_eq!(read.queue_ids.map(|(_, queues)| queues), Some(queues.to_vec()));
        assert_eq!(said, Vec::<String>::new());
        for (value, wanted) in [("none", Ports::None), ("all", Ports::All)] {
            assert_eq!(ports(&stanza(&format!("bond-slaves {value}")).0), Some(wanted));
        }
    }

    #[test]
    fn a_stanza_with_a_master_is_a_ports() {
        let (stanza, said) =
            stanza("bond-master bond0\nbond-mode 1\nbond-primary eth0\nbond-primary-reselect 2\nbond-give-a-chance 5");
        assert_eq!(stanza.role(), Role::Port);
        assert_eq!(stanza.bond.as_ref().map(|(_, bond)| bond.as_str()), Some("bond0"));
        assert_eq!(options(&stanza), "primary_reselect=2");
        assert_eq!(stanza.chance, Some(Duration::from_secs(5)));
        let wanted = "interfaces:2: warning: bond-mode has no effect here, expected it in the stanza of bond0";
        assert_eq!(said, [wanted]);
    }

    #[test]
    fn a_name_that_is_none_does_not_change_whose_stanza_it_is() {
        for (line, role) in [
            ("bond-master a/b", Role::Port),
            ("bond-master bond0 bond1", Role::Port),
            ("bond-slaves a/b", Role::Bond),
        ] {
            let (stanza, said) = stanza(line);
            assert_eq!(stanza.role(), role, "{line}");
            assert!(
                said.len() == 1 && said[0].contains("is not an interface name"),
                "{line}: {said:?}"
            );
        }
    }

    #[test]
    fn what_has_nothing_to_do_with_bonds_is_left_alone() {
        let (read, said) = stanza("address 192.0.2.1/24\nbridge_ports bond0\nmode 1\nmtu 9000");
        assert_eq!(
            (read.role(), read, said),
            (Role::Neither, Stanza::default(), Vec::new())
        );
    }

    #[test]
    fn a_bad_option_is_reported_and_costs_no_other() {
        for (line, kept, wanted) in [
            (
                "bond-miimonn 100",
                "",
                "unknown option miimonn, expected miimon perhaps",
            ),
            ("bond-updelay x", "", "updelay: bad value \"x\", expected milliseconds"),
            (
                "bond-packets-per-slave 3",
                "",
                "packets_per_slave is not for mode active-backup",
            ),
            (
                "bond-lacp-rate fast",
                "",
                "bond-lacp-rate is for modes that bondd does not have",
            ),
            ("bond-tlb-dynamic-lb 0", "", "bond-tlb-dynamic-lb is for modes"),
            (
                "bond-miimon 100\nbond-miimon 50",
                " miimon=50",
                "miimon is given again, 100 has no effect",
            ),
            (
                "bond-miimon 100\nbond-arp-interval 9",
                " miimon=100",
                "arp_interval=9 has no effect, because miimon=100",
            ),
            (
                "bond-num-grat-arp 2\nbond-num-unsol-na 3",
                " num_grat_arp=3",
                "num_grat_arp is given again, 2 has no effect",
            ),
            ("bond-slaves eth0 a/b", "", "\"a/b\" is not an interface name"),
            ("bond-slaves a/b", "", "\"a/b\" is not an interface name"),
            ("bond-queue-id eth0", "", "bond-queue-id eth0: expected PORT:NUMBER"),
            (
                "bond-give-a-chance x",
                "",
                "bond-give-a-chance x: expected a number of seconds",
            ),
            ("bond-plane x", "", "plane: bad value \"x\""),
        ] {
            let (stanza, said) = stanza(&format!("bond-mode active-backup\n{line}\nbond-use-carrier 0"));
            assert_eq!(
                options(&stanza),
                format!("mode=active-backup{kept} use_carrier=0"),
                "{line}"
            );
            assert!(said.len() == 1 && said[0].contains(wanted), "{line}: {said:?}");
        }
    }

    #[test]
    fn a_mode_that_is_none_stays_so_that_no_other_bond_is_made() {
        let (stanza, said) = stanza("bond-slaves none\nbond-mode 802.3ad\nbond-xmit-hash-policy layer3+4");
        assert_eq!(options(&stanza), "mode=802.3ad xmit_hash_policy=layer3+4");
        assert!(
            said.len() == 1 && said[0].contains("expected balance-rr, active-backup"),
            "{said:?}"
        );
    }
}

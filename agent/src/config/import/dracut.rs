//! Words `bond=NAME:PORTS:OPTIONS:MTU` of the kernel's command line. [dracut.cmdline(7); dracut: parse-bond.sh]

use super::bond::{Bond, by_hand};
use super::reading::{Import, Text};
use crate::config::diagnostic::{Findings, Place};
use crate::config::kernel_words::{END, Word, words};
use crate::config::limits::MOST_IN_ALL;

/// The meaning of `bond` without a value.
const BOND: &str = "bond0";
const PORTS: &str = "eth0,eth1";

/// Reads command lines; a line that begins with `#` is a comment.
pub(super) fn read(texts: &[Text], import: &mut Import) {
    let mut all = Vec::new();
    for text in texts {
        for (index, line) in text.text.lines().enumerate() {
            let place = Place {
                file: text.path.clone(),
                line: index + 1,
            };
            if !line.trim_start().starts_with('#') {
                all.extend(words(line, &place).into_iter().take_while(|word| word.name != END));
            }
        }
    }
    for Word { name, value, place } in &all {
        if name == "bond" {
            if import.bonds.len() > MOST_IN_ALL {
                break;
            }
            let bond = bond(value.as_deref(), place, &mut import.findings);
            if let Some(before) = import.bonds.iter().position(|before| before.name == bond.name) {
                let before = import.bonds.remove(before);
                let text = format!("{} is given again, that at {} has no effect", bond.name, before.place);
                import.findings.warning(place, text);
            }
            import.bonds.push(bond);
        }
    }
    for Word { value, place, .. } in all.iter().filter(|word| word.name == "ip") {
        let of = |bond: &&Bond| {
            value
                .iter()
                .flat_map(|value| value.split(':'))
                .any(|field| field == bond.name)
        };
        if let Some(bond) = import.bonds.iter().find(of) {
            let text = format!("the addresses of {} stay with dracut: bondd sets none", bond.name);
            import.findings.info(place, text);
        }
    }
}

fn bond(value: Option<&str>, place: &Place, findings: &mut Findings) -> Bond {
    let fields: Vec<&str> = value.unwrap_or_default().split(':').collect();
    let field = |at: usize| fields.get(at).copied();
    let (name, ports) = match (field(0).unwrap_or_default(), field(1)) {
        ("", ports) => {
            if let Some(ports) = ports.filter(|ports| !ports.is_empty()) {
                let text = format!(
                    "a bond without a name is {BOND} of {PORTS}, {ports} has no effect, expected bond=NAME:{ports}"
                );
                findings.warning(place, text);
            }
            (BOND, PORTS)
        }
        (name, ports) => (name, ports.unwrap_or(PORTS)),
    };
    let mut bond = Bond::new(name, place);
    for port in ports.split(',').filter(|port| !port.is_empty()) {
        bond.port(port, place, findings);
    }
    for word in field(2).unwrap_or_default().split(',').filter(|word| !word.is_empty()) {
        if word.parse::<std::net::IpAddr>().is_ok() {
            let text = format!("{word} is not imported: no option, expected ; instead of the comma before it");
            findings.error(place, text);
        } else {
            bond.write(&word.replace(';', ","), place, findings);
        }
    }
    bond.keep_last_monitor(findings);
    if let Some(mtu) = field(3).filter(|mtu| !mtu.is_empty()) {
        by_hand(
            place,
            &format!("MTU {mtu}"),
            &format!("ip link set {name} mtu {mtu}"),
            findings,
        );
    }
    if fields.len() > 4 {
        let text = format!(
            "bond={}: more than four fields, expected NAME:PORTS:OPTIONS:MTU",
            fields.join(":")
        );
        findings.error(place, text);
        bond.is_broken = true;
    }
    bond
}

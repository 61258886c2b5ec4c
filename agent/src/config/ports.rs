//! Which ports a bond has, and that no two bonds have the same.

use std::collections::{BTreeMap, BTreeSet};

use super::BondSpec;
use super::diagnostic::{Findings, Place};
use super::limits::MOST_WORDS;
use super::names::check_interface;

/// The ports of a bond that a comma-separated list names; bad names are reported and left out, a list that is too long as a whole.
pub(super) fn port_names(bond: &str, list: &str, place: &Place, findings: &mut Findings) -> Vec<String> {
    let many = list.split(',').count();
    if many > MOST_WORDS {
        let text = format!("slaves= of {bond} names {many} ports, expected {MOST_WORDS} at most");
        findings.error(place, text);
        return Vec::new();
    }
    // Each wrong name has a message of its own.
    let shown = if list.len() <= LONGEST_SHOWN { list } else { "..." };
    let mut ports: Vec<String> = Vec::new();
    for name in list.split(',') {
        if let Err(wrong) = check_interface(name) {
            findings.error(place, format!("slaves={shown}: {wrong}"));
        } else if ports.iter().any(|port| port == name) {
            findings.error(
                place,
                format!("slaves={shown} names {name} twice, expected each port once"),
            );
        } else if name == bond {
            findings.error(
                place,
                format!("{bond} cannot be its own port, expected other interfaces"),
            );
        } else {
            ports.push(name.to_owned());
        }
    }
    ports
}

/// Checks that each port belongs to one bond only and is not a bond itself.
pub(super) fn check_ports(bonds: &[BondSpec], findings: &mut Findings) {
    let mut claims = Claims::new(bonds.iter().map(|bond| bond.name.clone()));
    for bond in bonds {
        let Some(place) = &bond.ports_place else { continue };
        for port in &bond.ports {
            if let Err(wrong) = claims.claim(&bond.name, port) {
                findings.error(place, wrong);
            }
        }
    }
}

/// Owner of each port.
pub(super) struct Claims {
    bonds: BTreeSet<String>,
    owners: BTreeMap<String, String>,
}

impl Claims {
    /// No owners yet, with these bonds.
    pub(super) fn new(bonds: impl IntoIterator<Item = String>) -> Claims {
        Claims {
            bonds: bonds.into_iter().collect(),
            owners: BTreeMap::new(),
        }
    }

    /// Gives a port to a bond, or returns the reason why it cannot.
    pub(super) fn claim(&mut self, bond: &str, port: &str) -> Result<(), String> {
        if self.bonds.contains(port) {
            return Err(format!(
                "{port} is a bond and cannot be a port of {bond}, expected an interface"
            ));
        }
        match self.owners.get(port) {
            Some(owner) => Err(format!(
                "{port} is a port of {owner} already, expected another one for {bond}"
            )),
            None => {
                self.owners.insert(port.to_owned(), bond.to_owned());
                Ok(())
            }
        }
    }
}

/// Longest list that messages repeat, in bytes.
const LONGEST_SHOWN: usize = 256;

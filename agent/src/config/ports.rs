//! Which ports a bond has, and that no two bonds have the same.

use std::collections::{BTreeMap, BTreeSet};

use super::BondSpec;
use super::diagnostic::{Findings, Place};
use super::names::check_interface;

/// The ports of a bond that a comma-separated list names; bad names are reported and left out.
pub(super) fn port_names(bond: &str, list: &str, place: &Place, findings: &mut Findings) -> Vec<String> {
    let mut ports: Vec<String> = Vec::new();
    for name in list.split(',') {
        if let Err(wrong) = check_interface(name) {
            findings.error(place, format!("slaves={list}: {wrong}"));
        } else if ports.iter().any(|port| port == name) {
            findings.error(
                place,
                format!("slaves={list} names {name} twice, expected each port once"),
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

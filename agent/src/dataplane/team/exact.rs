//! Which options the team driver brings about exactly.

use bond_modes::options::{ArpValidate, PortOptions};
use bond_modes::{BondOptions, Spread, XmitHashPolicy};

use super::bond::Bond;
use super::driver::Mode;
use super::options::{Key, Name, Value};
use super::program::inexact;
use crate::dataplane::PlaneError;
use crate::dataplane::can;

/// Refuses options that the team driver cannot carry out as the bonding driver does, even with all of its modes.
///
/// Exact, because the agent does it: monitoring by carrier, delays, choice of the active port, addresses, announcements. Exact in
/// the driver: the hash of all policies that look at one packet at a time.
pub fn check(options: &BondOptions) -> Result<(), PlaneError> {
    let spread = bond_modes::spread(options);
    can::check_spread(&spread)?;
    match spread {
        Spread::RoundRobin { packets_per_port, .. } if packets_per_port != 1 => Err(inexact(
            format!("packets_per_slave={packets_per_port}"),
            "the driver takes turns of its own, one frame long",
        )),
        Spread::RoundRobin { .. } => Err(inexact(
            format!("mode={}", options.mode.name()),
            "the driver begins its turns elsewhere and spreads IGMP over all ports",
        )),
        Spread::One if options.all_slaves_active => Err(inexact(
            "all_slaves_active=1",
            "the driver lets nothing in from backup ports",
        )),
        Spread::Hash(policy @ (XmitHashPolicy::Encap23 | XmitHashPolicy::Encap34)) => Err(inexact(
            format!("xmit_hash_policy={}", policy.name()),
            "its hash programs cannot follow any number of headers",
        )),
        _ if !options.arp_interval.is_zero() && options.arp_validate != ArpValidate::All => Err(inexact(
            format!("arp_validate={}", options.arp_validate.name()),
            "the driver does not report when a port received something; only probes that are validated on every port are seen",
        )),
        _ => Ok(()),
    }
}

/// As [`check`], for a bond that has ports.
pub(super) fn check_mode(bond: &Bond, options: &BondOptions) -> Result<(), PlaneError> {
    let wanted = Mode::of(&bond_modes::spread(options)).map(|mode| Value::text(mode.name()));
    if bond.settings.get(&Key::team(Name::Mode)) == wanted.as_ref() {
        return Ok(());
    }
    Err(inexact(
        format!("mode={}", options.mode.name()),
        "the driver is in another mode, which it keeps while it has ports",
    ))
}

/// As [`check`], for the options of a port.
pub fn check_port(options: &PortOptions) -> Result<(), PlaneError> {
    match options.queue_id {
        0 => Ok(()),
        queue => Err(inexact(
            format!("queue_id={queue}"),
            "the driver gives a queue to ports that receive, which backup ports do not",
        )),
    }
}

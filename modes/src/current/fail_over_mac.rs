//! Moves addresses when another port becomes active. [bonding.rst: fail_over_mac; bond_main.c: bond_do_fail_over_mac]

use bond_monitors::MacAddr;

use crate::bond::device::{Device, MacOrigin};
use crate::ids::PortId;
use crate::options::FailOverMac;
use crate::outbox::{AddressMove, Outbox};
use crate::port::{Port, Ports};

/// The address for a port before it is attached; `None` if it keeps its own. [bond_main.c: bond_enslave]
pub(crate) fn for_new_port(how: FailOverMac, own: MacAddr, ports: &Ports, device: &Device) -> Option<MacAddr> {
    let first = ports.is_empty();
    match how {
        FailOverMac::None if first && device.mac_origin == MacOrigin::Random => None,
        FailOverMac::None => Some(device.mac),
        FailOverMac::Active => None,
        FailOverMac::Follow if first || own != device.mac => None,
        // One more than there are ports, so one of them is free.
        FailOverMac::Follow => (ports.len()..=2 * ports.len())
            .map(|place| sibling(own, place))
            .find(|mac| ports.iter().all(|port| port.own_mac != *mac)),
    }
}

/// Moves addresses from the old active port to the new one.
pub(super) fn follow(
    how: FailOverMac,
    from: Option<PortId>,
    to: Option<PortId>,
    ports: &Ports,
    device: &Device,
    out: &mut Outbox,
) {
    let Some(new) = to.and_then(|id| ports.get(id)) else {
        return;
    };
    match how {
        FailOverMac::None => {}
        FailOverMac::Active => out.move_address(AddressMove::Bond(new.own_mac)),
        FailOverMac::Follow => {
            // The port that has the bond's address gets the new one's in exchange.
            let has_it = |port: &&Port| port.id != new.id && port.own_mac == device.mac;
            let holder = from.or_else(|| ports.iter().find(has_it).map(|port| port.id));
            out.move_address(AddressMove::Port(new.id, device.mac));
            if let Some(old) = holder {
                out.move_address(AddressMove::Port(old, new.own_mac));
            }
        }
    }
}

/// An address for a port that has the bond's address: locally administered, different for each of 32,768 indices.
/// [bond_main.c: bond_enslave, BOND_FOM_FOLLOW]
fn sibling(mac: MacAddr, place: usize) -> MacAddr {
    let mut bytes = mac.0;
    bytes[0] = (bytes[0] | 0x02) & !0x01;
    bytes[4] ^= (place >> 7) as u8;
    bytes[5] ^= (place & 0x7f) as u8 | 0x80;
    MacAddr(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bond_monitors::{Carrier, LinkReport, Time};

    use super::*;
    use crate::options::BondOptions;
    use crate::port::PortFacts;

    #[test]
    fn each_place_has_an_address_of_its_own() {
        let own = MacAddr([0, 1, 2, 3, 4, 5]);
        let all: BTreeSet<MacAddr> = (0..32_768).map(|place| sibling(own, place)).collect();
        assert_eq!(all.len(), 32_768);
        assert!(!all.contains(&own));
        assert!(all.iter().all(|mac| mac.0[0] == 2));
    }

    /// Bridges and hypervisors give many interfaces one address.
    #[test]
    fn more_than_128_ports_with_the_same_address_get_one_each() {
        let mac = MacAddr([0, 1, 2, 3, 4, 5]);
        let report = LinkReport {
            name: "port".to_owned(),
            admin_up: true,
            carrier: Carrier::On,
            mac,
            mtu: 1500,
            promisc: false,
            allmulti: false,
            speed: Default::default(),
            duplex: Default::default(),
        };
        let device = Device::new(&report, MacOrigin::Port);
        let mut ports = Ports::default();
        for number in 0..300 {
            let own_mac = for_new_port(FailOverMac::Follow, mac, &ports, &device).unwrap_or(mac);
            assert!(ports.iter().all(|port| port.own_mac != own_mac), "port {number}");
            let facts = PortFacts {
                permanent_mac: mac,
                report: report.clone(),
            };
            let mut port = Port::new(Time::ZERO, PortId(number), facts, &BondOptions::default());
            port.own_mac = own_mac;
            ports.push(port);
        }
    }
}

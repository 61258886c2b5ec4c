//! The ARP monitor's usual beginnings.

use std::net::IpAddr;

use bond_modes::options::ArpValidate;

use super::World;

/// Every value of arp_validate.
pub const VALIDATE: [&str; ArpValidate::NAMES.len()] = {
    let mut all = [""; ArpValidate::NAMES.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = ArpValidate::NAMES[at].0;
        at += 1;
    }
    all
};

/// A bond that asks one host.
pub const ARP: &str = "mode=1 arp_interval=100 arp_ip_target=10.0.0.2";

/// Ports `a` and `b` with carrier, and a host that answers.
pub fn world(options: &str) -> World {
    let mut world = World::with_carrier(options, ["a", "b"]);
    world.net.hosts.insert(host(2));
    world.after_ms(1000).clear();
    world
}

/// A host of the bond's network.
pub fn host(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// The path of a port dies while its carrier stays.
pub fn kill(world: &mut World, port: &str) {
    let id = world.port(port);
    world.net.dead.insert(id);
}

/// The path of a port works again.
pub fn mend(world: &mut World, port: &str) {
    let id = world.port(port);
    world.net.dead.remove(&id);
}

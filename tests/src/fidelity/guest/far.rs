//! The far ends of a scenario's cables: bare ends, hosts at each of them, or one switch with hosts behind it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;

use super::bench::{allow_ipv6, in_namespace};
use super::link::{End, RouteSocket};

/// The far namespace. Its hosts are the kernel's own stack: it answers at once, however slow the machine is.
#[derive(Debug)]
pub struct Far {
    /// For its devices.
    pub links: RouteSocket,
    /// The namespace itself.
    pub namespace: File,
    cables: u32,
    switch: bool,
    /// Far hosts by address, with the VLAN that each is behind or 0.
    hosts: BTreeMap<IpAddr, u16>,
}

/// One far end of a cable.
#[derive(Clone, Debug)]
pub struct FarEnd {
    /// `p0`...
    pub name: String,
    /// Index in the far namespace.
    pub index: u32,
    mac: [u8; 6],
}

impl FarEnd {
    /// As the one who makes it wants it.
    pub fn as_end(&self) -> End<'_> {
        End {
            name: &self.name,
            index: self.index,
            mac: self.mac,
        }
    }
}

impl Far {
    /// The namespace of the calling thread.
    pub fn new() -> Result<Far, String> {
        for (setting, value) in SETTINGS {
            fs::write(format!("/proc/sys/net/{setting}"), value).map_err(|e| format!("{setting}: {e}"))?;
        }
        Ok(Far {
            links: RouteSocket::open().map_err(|e| format!("cannot open a netlink socket: {e}"))?,
            namespace: File::open("/proc/thread-self/ns/net").map_err(|e| e.to_string())?,
            cables: 0,
            switch: false,
            hosts: BTreeMap::new(),
        })
    }

    /// The far end of this cable.
    pub fn end(number: u32) -> FarEnd {
        FarEnd {
            name: format!("p{number}"),
            index: 110 + number,
            mac: [2, 0, 0, 0, 0xf0, number as u8],
        }
    }

    /// Name of the far end of a port's cable.
    pub fn end_of(port: &str) -> String {
        port.replacen("eth", "p", 1)
    }

    /// Sets this number of far ends up, as ports of a switch or on their own.
    pub fn begin(&mut self, cables: u32, switch: bool) -> nix::Result<()> {
        (self.cables, self.switch) = (cables, switch);
        if switch {
            self.links.bridge(SWITCH)?;
            self.links.bridge(DEAD_END)?;
            self.links.admin(SWITCH.name, true)?;
            // Hosts are behind a port of their own, so that the switch has nothing to do with them.
            self.links.patch(HOSTS, HOSTS_PORT)?;
            for end in [HOSTS, HOSTS_PORT] {
                self.links.admin(end.name, true)?;
            }
            self.links.join(HOSTS_PORT.name, SWITCH.index)?;
        }
        for cable in 0..cables {
            let end = Far::end(cable);
            if switch {
                self.links.join(&end.name, SWITCH.index)?;
            }
            self.links.admin(&end.name, true)?;
        }
        Ok(())
    }

    /// Takes the switch and the hosts away; the far ends go with their cables.
    pub fn clear(&mut self) -> nix::Result<()> {
        self.hosts.clear();
        if std::mem::take(&mut self.switch) {
            for device in [HOSTS, SWITCH, DEAD_END] {
                self.links.delete(device.name)?;
            }
        }
        Ok(())
    }

    /// Puts a host behind the switch, or at the end of every cable.
    pub fn host(&mut self, address: IpAddr, vlan: u16) -> Result<(), String> {
        if vlan != 0 {
            for (name, index) in self.host_devices(0) {
                let device = format!("{name}.{vlan}");
                // There already for another host.
                match self.links.vlan(&device, vlan_index(index, vlan), index, vlan) {
                    Ok(()) => self.links.admin(&device, true).map_err(|e| format!("{e:?}"))?,
                    Err(nix::Error::EEXIST) => {}
                    Err(error) => return Err(format!("{error:?}")),
                }
            }
        }
        self.hosts.insert(address, vlan);
        self.answers(address, true)
    }

    /// Lets a host answer, or not.
    pub fn answers(&mut self, address: IpAddr, answers: bool) -> Result<(), String> {
        let vlan = *self.hosts.get(&address).ok_or_else(|| format!("no host {address}"))?;
        let devices = self.host_devices(vlan);
        if address.is_ipv6() {
            let allow = || devices.iter().try_for_each(|(name, _)| allow_ipv6(name));
            in_namespace(&self.namespace, allow)?.map_err(|e: io::Error| e.to_string())?;
        }
        let whole = if address.is_ipv4() { 32 } else { 128 };
        for (_, index) in devices {
            let done = match answers {
                true => self.links.add_address(index, address, whole),
                false => self.links.delete_address(index, address, whole),
            };
            done.map_err(|e| format!("{e:?}"))?;
        }
        Ok(())
    }

    /// Connects a cable with the switch, or with what drops every frame whatever the carrier does.
    pub fn forwards(&mut self, port: &str, forwards: bool) -> Result<(), String> {
        let name = Far::end_of(port);
        let known = self.switch && (0..self.cables).any(|number| Far::end(number).name == name);
        let bridge = if forwards { SWITCH } else { DEAD_END };
        match known {
            true => self.links.join(&name, bridge.index).map_err(|e| format!("{e:?}")),
            false => Err(format!("the switch has no port for {port}")),
        }
    }

    /// Where hosts are, by name and index.
    fn host_devices(&self, vlan: u16) -> Vec<(String, u32)> {
        let ends: Vec<(String, u32)> = match self.switch {
            true => vec![(HOSTS.name.to_owned(), HOSTS.index)],
            false => (0..self.cables)
                .map(Far::end)
                .map(|end| (end.name, end.index))
                .collect(),
        };
        match vlan {
            0 => ends,
            _ => ends
                .into_iter()
                .map(|(name, index)| (format!("{name}.{vlan}"), vlan_index(index, vlan)))
                .collect(),
        }
    }
}

/// Index of the VLAN device above one.
fn vlan_index(index: u32, vlan: u16) -> u32 {
    index * 10_000 + u32::from(vlan)
}

const SWITCH: End<'static> = End {
    name: "switch",
    index: 200,
    mac: [2, 0, 0, 0, 0xd0, 0],
};

/// Never set up, so that its ports drop what they hear.
const DEAD_END: End<'static> = End {
    name: "dead-end",
    index: 203,
    mac: [2, 0, 0, 0, 0xd0, 3],
};

const HOSTS: End<'static> = End {
    name: "hosts",
    index: 201,
    mac: [2, 0, 0, 0, 0xd0, 1],
};

const HOSTS_PORT: End<'static> = End {
    name: "hosts-port",
    index: 202,
    mac: [2, 0, 0, 0, 0xd0, 2],
};

/// Far hosts have the addresses that they are given and no other, keep them while their cable is pulled, ask nobody, and answer where
/// they are: else the end of a cable would answer for them while it goes from one bridge to another and is in none.
const SETTINGS: [(&str, &str); 5] = [
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv6/conf/default/keep_addr_on_down", "1"),
    ("ipv6/conf/default/router_solicitations", "0"),
    ("ipv4/conf/all/arp_ignore", "1"),
];

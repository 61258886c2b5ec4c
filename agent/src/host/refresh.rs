//! Brings the answer of a reading into the picture.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::picture::Host;
use super::reading::{Read, Reading};
use crate::netlink::Link;

impl Host {
    /// A reading of everything is asked for from now on. To be called after the queued events were read.
    pub fn begin_reading(&mut self) {
        self.reading = Some(Reading::default());
    }

    /// The answer to the last reading that was asked for; nothing if none is owed.
    pub fn finish_reading(&mut self, links: Vec<Link>, addresses: Vec<(u32, IpAddr)>) -> Read {
        let Some(Reading { touched, addressed }) = self.reading.take() else {
            return Read::default();
        };
        let there: BTreeSet<u32> = links.iter().map(|link| link.ifindex).collect();
        let gone: Vec<u32> = (self.links.keys().copied())
            .filter(|known| !there.contains(known) && !touched.contains(known))
            .collect();
        let mut read = Read::default();
        for ifindex in gone {
            let name = self.links[&ifindex].report.name.clone();
            self.remove(ifindex);
            read.gone.push((ifindex, name));
        }
        read.links = links;
        read.links.retain(|link| !touched.contains(&link.ifindex));
        for link in &read.links {
            self.insert(link.clone());
        }
        self.addresses.retain(|ifindex, _| addressed.contains(ifindex));
        for (ifindex, ip) in addresses {
            if !addressed.contains(&ifindex) && self.links.contains_key(&ifindex) {
                self.addresses.entry(ifindex).or_default().insert(ip);
            }
        }
        read
    }
}

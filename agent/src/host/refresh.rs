//! Brings the answer of a reading into the picture.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::picture::Host;
use super::reading::{Read, Reading, ReadingId};
use crate::netlink::Link;

impl Host {
    /// A reading of everything is asked for from now on. To be called after the queued events were read.
    pub fn begin_reading(&mut self) -> ReadingId {
        self.readings += 1;
        let id = ReadingId(self.readings);
        self.reading = Some(Reading {
            id,
            ..Reading::default()
        });
        id
    }

    /// The answer to a reading. `None` if a later one was asked for meanwhile: this answer may be older than lost events.
    pub fn finish_reading(&mut self, id: ReadingId, links: Vec<Link>, addresses: Vec<(u32, IpAddr)>) -> Option<Read> {
        let Reading { touched, addressed, .. } = self.reading.take_if(|reading| reading.id == id)?;
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
        Some(read)
    }
}

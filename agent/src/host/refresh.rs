//! Brings the answer of a reading into the picture.

use std::collections::BTreeSet;

use super::picture::Host;
use super::reading::{Read, Reading};
use crate::netlink::{Address, Link};

impl Host {
    /// Everything is to be read from now on. To be called after the queued events were read. Whether it is to be asked for: not
    /// if an earlier reading is not answered yet, which says so with its answer.
    pub fn begin_reading(&mut self) -> bool {
        if let Some(reading) = &mut self.reading {
            reading.outdated = true;
            return false;
        }
        self.reading = Some(Reading::default());
        true
    }

    /// The reading failed; another one may begin.
    pub fn abandon_reading(&mut self) {
        self.reading = None;
    }

    /// The answer to the reading that was asked for.
    pub fn finish_reading(&mut self, links: Vec<Link>, addresses: Vec<(u32, Address)>) -> Read {
        let Reading {
            touched,
            addressed,
            outdated,
        } = self.reading.take().unwrap_or_default();
        let there: BTreeSet<u32> = links.iter().map(|link| link.ifindex).collect();
        let gone: Vec<u32> = (self.links.keys().copied())
            .filter(|known| !there.contains(known) && !touched.contains(known))
            .collect();
        let mut read = Read {
            outdated,
            ..Read::default()
        };
        for ifindex in gone {
            let name = self.links[&ifindex].report.name.clone();
            self.remove(ifindex);
            read.gone.push((ifindex, name));
        }
        for link in links {
            if touched.contains(&link.ifindex) {
                continue;
            }
            if self.link(link.ifindex) == Some(&link) {
                read.same.push(link.ifindex);
            } else {
                self.insert(link.clone());
                read.links.push(link);
            }
        }
        self.addresses.clear();
        let read_then = addresses.into_iter().map(|address| (address, true));
        for ((ifindex, address), usable) in read_then.chain(addressed) {
            if self.links.contains_key(&ifindex) {
                self.set_address(ifindex, address, usable);
            }
        }
        read
    }
}

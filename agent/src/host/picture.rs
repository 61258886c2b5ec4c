//! The interfaces of a network namespace, with an index by what stands on what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bond_monitors::wire::ethernet::Tag;

use super::reading::Reading;
use crate::netlink::{Address, Link};

/// The interfaces of a network namespace.
#[derive(Debug, Default)]
pub struct Host {
    pub(super) links: BTreeMap<u32, Link>,
    /// By interface, those directly above it, and those directly below.
    uppers: BTreeMap<u32, BTreeSet<u32>>,
    lowers: BTreeMap<u32, BTreeSet<u32>>,
    /// By interface, its usable addresses.
    pub(super) addresses: BTreeMap<u32, BTreeSet<Address>>,
    /// The reading of everything that was asked for and is not answered yet.
    pub(super) reading: Option<Reading>,
    moves: Moves,
}

/// What stands on what now and did not, and the other way round, since that was asked last.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Interfaces that were put under another one, each with that one.
    pub under: BTreeSet<Relation>,
    /// Interfaces that are not under that one any more.
    pub away: BTreeSet<Relation>,
}

/// An interface, and one directly above it.
pub type Relation = (u32, u32);

impl Moves {
    fn note(&mut self, before: &BTreeSet<Relation>, after: &BTreeSet<Relation>) {
        for gone in before.difference(after) {
            self.under.remove(gone);
            self.away.insert(*gone);
        }
        for new in after.difference(before) {
            self.away.remove(new);
            self.under.insert(*new);
        }
    }
}

impl Host {
    /// The interface with that index.
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    /// Its usable IPv4 and IPv6 addresses (not tentative, not a duplicate), each once.
    pub fn addresses(&self, ifindex: u32) -> impl Iterator<Item = IpAddr> {
        let mut last = None;
        let addresses = self.addresses.get(&ifindex).into_iter().flatten();
        // They are sorted.
        addresses
            .map(|address| address.ip)
            .filter(move |ip| last.replace(*ip) != Some(*ip))
    }

    /// An interface and all that carry their traffic through it at any depth, such as a VLAN on it or the bridge it is a port of;
    /// each with the VLAN tags that its frames get on the way, the outermost first. Only `through` interfaces that fit. Empty if
    /// there is no such interface.
    pub fn above(&self, lowest: u32, through: fn(&Link) -> bool) -> Vec<(&Link, Vec<Tag>)> {
        let mut found: Vec<(&Link, Vec<Tag>)> = self.link(lowest).map(|link| (link, Vec::new())).into_iter().collect();
        let mut known = BTreeSet::from([lowest]);
        let mut at = 0;
        while let Some((lower, tags)) = found.get(at).cloned() {
            at += 1;
            let uppers = self.uppers.get(&lower.ifindex).into_iter().flatten();
            for link in uppers
                .filter_map(|upper| self.link(*upper))
                .filter(|link| through(link))
            {
                if known.insert(link.ifindex) {
                    found.push((link, tags.iter().copied().chain(link.vlan).collect()));
                }
            }
        }
        found
    }

    /// An interface and all that carry its traffic, at any depth. Empty if there is no such interface.
    pub fn below(&self, upper: u32) -> Vec<&Link> {
        let mut found: Vec<&Link> = self.link(upper).into_iter().collect();
        let mut known = BTreeSet::from([upper]);
        let mut at = 0;
        while let Some(link) = found.get(at) {
            at += 1;
            let lowers = self.lowers.get(&link.ifindex).into_iter().flatten();
            found.extend(
                lowers
                    .filter(|lower| known.insert(**lower))
                    .filter_map(|lower| self.link(*lower)),
            );
        }
        found
    }

    /// What has moved since the last call.
    pub fn take_moves(&mut self) -> Moves {
        std::mem::take(&mut self.moves)
    }

    /// An interface appeared or changed.
    pub fn changed(&mut self, link: Link) {
        self.touch(link.ifindex);
        self.insert(link);
    }

    /// An interface was removed.
    pub fn gone(&mut self, ifindex: u32) {
        self.touch(ifindex);
        self.remove(ifindex);
    }

    /// An address of an interface came or went.
    pub fn address(&mut self, ifindex: u32, address: Address, usable: bool) {
        if let Some(reading) = &mut self.reading {
            reading.addressed.insert((ifindex, address), usable);
        }
        self.set_address(ifindex, address, usable);
    }

    pub(super) fn set_address(&mut self, ifindex: u32, address: Address, usable: bool) {
        let addresses = self.addresses.entry(ifindex).or_default();
        if usable {
            addresses.insert(address);
        } else if addresses.remove(&address) && addresses.is_empty() {
            self.addresses.remove(&ifindex);
        }
    }

    /// More is known of an interface than a reading that is not answered yet may say.
    pub fn touch(&mut self, ifindex: u32) {
        if let Some(reading) = &mut self.reading {
            reading.touched.insert(ifindex);
        }
    }

    pub(super) fn insert(&mut self, link: Link) {
        let ifindex = link.ifindex;
        let before = self.links.insert(ifindex, link);
        self.unlist(before.as_ref());
        let link = &self.links[&ifindex];
        let far = link.far_end();
        // The end of a pair that is made first is announced before it has a far end, and not again.
        if let Some(far) = far.and_then(|far| self.links.get_mut(&far)) {
            far.peer.get_or_insert(ifindex);
        }
        let link = &self.links[&ifindex];
        let after: BTreeSet<Relation> = relations(link).collect();
        for &(lower, upper) in &after {
            self.uppers.entry(lower).or_default().insert(upper);
            self.lowers.entry(upper).or_default().insert(lower);
        }
        self.moves.note(&before.iter().flat_map(relations).collect(), &after);
    }

    pub(super) fn remove(&mut self, ifindex: u32) {
        let before = self.links.remove(&ifindex);
        self.unlist(before.as_ref());
        self.moves
            .note(&before.iter().flat_map(relations).collect(), &BTreeSet::new());
        self.addresses.remove(&ifindex);
    }

    /// Takes an outdated interface out of the index.
    fn unlist(&mut self, before: Option<&Link>) {
        let Some(before) = before else { return };
        for (lower, upper) in relations(before) {
            leave(&mut self.uppers, lower, upper);
            leave(&mut self.lowers, upper, lower);
        }
    }
}

/// Takes one value out of a set, and an empty set out of the map.
fn leave(sets: &mut BTreeMap<u32, BTreeSet<u32>>, key: u32, value: u32) {
    if let Some(set) = sets.get_mut(&key) {
        set.remove(&value);
        if set.is_empty() {
            sets.remove(&key);
        }
    }
}

/// What an interface's state says of which stands on which: each lower one with the one directly above it.
fn relations(link: &Link) -> impl Iterator<Item = Relation> + use<> {
    let master = link.master.map(|master| (link.ifindex, master));
    master
        .into_iter()
        .chain(link.stands_on().map(|lower| (lower, link.ifindex)))
}

//! Which instance an interface or a name belongs to.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use bond_modes::PortId;

use super::id::InstanceId;
use super::instance::Instance;

/// What belongs to an instance.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stake {
    ports: Vec<PortId>,
    device: Option<u32>,
    name: Option<String>,
    wanted: Vec<String>,
    above: Vec<u32>,
    unrestored: Vec<PortId>,
}

impl Stake {
    fn of(instance: &Instance) -> Stake {
        Stake {
            ports: ports(instance).collect(),
            device: Some(instance.ifindex),
            name: Some(instance.name.clone()),
            wanted: instance.wanted.clone(),
            above: above(instance).collect(),
            unrestored: instance.unrestored.keys().copied().collect(),
        }
    }

    /// Whether it is that of the instance still. Asked after every event, so it copies nothing.
    fn is_of(&self, instance: &Instance) -> bool {
        self.device == Some(instance.ifindex)
            && self.name.as_ref() == Some(&instance.name)
            && self.wanted == instance.wanted
            && self.ports.iter().copied().eq(ports(instance))
            && self.above.iter().copied().eq(above(instance))
            && self.unrestored.iter().eq(instance.unrestored.keys())
    }
}

fn ports(instance: &Instance) -> impl Iterator<Item = PortId> {
    instance.bond.ports().iter().map(|port| port.id)
}

fn above(instance: &Instance) -> impl Iterator<Item = u32> {
    instance.announced.iter().copied().chain([instance.ifindex])
}

/// Indexes from what belongs to instances to the instances.
#[derive(Debug, Default)]
pub(super) struct Owners {
    of: BTreeMap<InstanceId, Stake>,
    pub(super) ports: OwnersBy<PortId>,
    /// Of the instances' own interfaces.
    pub(super) devices: OwnersBy<u32>,
    pub(super) names: OwnersBy<String>,
    pub(super) wanted: OwnersBy<String>,
    /// Of interfaces whose addresses an instance announces, its own among them.
    pub(super) above: OwnersBy<u32>,
    /// Of interfaces whose original settings an instance keeps after they have left.
    pub(super) unrestored: OwnersBy<PortId>,
}

impl Owners {
    /// Indexes an instance as it is now; `None` if there is none with this id any more.
    pub(super) fn set(&mut self, id: InstanceId, instance: Option<&Instance>) {
        let known = self.of.get(&id);
        if instance.is_some_and(|instance| known.is_some_and(|stake| stake.is_of(instance))) {
            return;
        }
        let before = match instance {
            Some(instance) => self.of.insert(id, Stake::of(instance)),
            None => self.of.remove(&id),
        };
        if let Some(before) = before {
            self.change(id, &before, false);
        }
        if let Some(stake) = self.of.remove(&id) {
            self.change(id, &stake, true);
            self.of.insert(id, stake);
        }
    }

    fn change(&mut self, id: InstanceId, stake: &Stake, owned: bool) {
        self.ports.change(id, &stake.ports, owned);
        self.devices.change(id, &stake.device, owned);
        self.names.change(id, &stake.name, owned);
        self.wanted.change(id, &stake.wanted, owned);
        self.above.change(id, &stake.above, owned);
        self.unrestored.change(id, &stake.unrestored, owned);
    }
}

/// The instances by one kind of thing, which may belong to several.
#[derive(Debug)]
pub(super) struct OwnersBy<K>(BTreeMap<K, BTreeSet<InstanceId>>);

impl<K: Ord + Clone> OwnersBy<K> {
    /// The earliest of its owners.
    pub(super) fn first<Q: Ord + ?Sized>(&self, key: &Q) -> Option<InstanceId>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)?.first().copied()
    }

    pub(super) fn keys(&self) -> Vec<K> {
        self.0.keys().cloned().collect()
    }

    pub(super) fn all<Q: Ord + ?Sized>(&self, key: &Q) -> Vec<InstanceId>
    where
        K: Borrow<Q>,
    {
        self.0.get(key).into_iter().flatten().copied().collect()
    }

    fn change<'a>(&mut self, id: InstanceId, keys: impl IntoIterator<Item = &'a K>, owned: bool)
    where
        K: 'a,
    {
        for key in keys {
            if owned {
                self.0.entry(key.clone()).or_default().insert(id);
            } else if let Some(owners) = self.0.get_mut(key) {
                owners.remove(&id);
                if owners.is_empty() {
                    self.0.remove(key);
                }
            }
        }
    }
}

impl<K> Default for OwnersBy<K> {
    fn default() -> Self {
        OwnersBy(BTreeMap::new())
    }
}

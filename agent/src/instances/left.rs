//! Ports that have left their bonds: what they are to get back, and which of them have not got it yet.

use std::collections::BTreeMap;

use bond_modes::{Event, PortId};
use bond_monitors::Time;

use super::Instances;
use super::id::InstanceId;
use super::logged_failures::Subject;
use crate::dataplane::OriginalPort;
use crate::saved::LeftPort;
use crate::text::chain;

impl Instances {
    /// Moves traffic off a port that leaves its bond. Returns the settings that it is to get back.
    pub(super) fn let_out(&mut self, now: Time, at: InstanceId, port: PortId, gone: bool) -> Option<OriginalPort> {
        self.feed(now, at, Event::PortDetached { port, gone });
        self.stop_listening(port);
        let instance = &mut self.bonds[at];
        instance.other_macs.remove(&port);
        instance.foreign_logged.remove(&port);
        instance.ipv6_repairs.remove(&port);
        instance.unfulfilled.forget(port);
        instance.silent_drivers.remove(&port);
        instance.failures.forget(&Subject::Port(port));
        instance.devices.remove(&port.0);
        instance.dirty = true;
        instance.originals.remove(&port)
    }

    /// A port of a bond is gone.
    pub(super) fn port_gone(&mut self, now: Time, at: InstanceId, port: PortId) {
        if self.let_out(now, at, port, true).is_none() {
            return;
        }
        // The interface may be back already: whoever attaches it anew does this first.
        let name = self.bonds[at].name.clone();
        self.leave_to_plane(at, move |plane| {
            if let Err(error) = plane.forget(port) {
                log::debug!("{name}: {}", chain(&error));
            }
        });
    }

    /// A port that leaves its bond is to be given back. Until it is, what it was is saved.
    pub(super) fn port_taken(&mut self, now: Time, at: InstanceId, port: PortId) {
        if let Some(original) = self.let_out(now, at, port, false) {
            self.bonds[at].unrestored.insert(port, original);
        }
    }

    /// When the next port is tried again.
    pub(super) fn give_back_timeout(&mut self) -> Option<Time> {
        let left = self.left_ports().into_iter();
        left.map(|port| self.returns.retry(port)).min()
    }

    /// The next port that is to be given back now.
    pub(super) fn next_return(&mut self, now: Time) -> Option<PortId> {
        let left = self.left_ports();
        left.into_iter().find(|port| self.returns.retry(*port) <= now)
    }

    fn left_ports(&mut self) -> Vec<PortId> {
        let mut left = self.bonds.left_ports();
        left.extend(self.left.ports.keys());
        left
    }

    /// Keeps settings of ports that outlive their bond. A change saves them.
    pub(super) fn leave(&mut self, bond: &str, plane: &str, ports: BTreeMap<PortId, OriginalPort>) {
        let left = ports.into_iter().map(|(port, original)| {
            let (bond, plane) = (bond.to_owned(), plane.to_owned());
            (port, LeftPort { bond, plane, original })
        });
        self.left.ports.extend(left);
        self.left.changed = true;
    }

    /// The original settings of an interface that has not got them back.
    pub(super) fn unrestored(&mut self, port: PortId) -> Option<&OriginalPort> {
        let keeper = self.bonds.keeping(port).first().copied();
        let kept = keeper.and_then(|at| self.bonds.get(at)?.unrestored.get(&port));
        kept.or_else(|| self.left.ports.get(&port).map(|left| &left.original))
    }

    /// An interface has its settings again, is a port, or is gone.
    pub(super) fn forget_unrestored(&mut self, port: PortId) {
        self.returns.forget(port);
        for at in self.bonds.keeping(port) {
            self.bonds[at].unrestored.remove(&port);
            self.bonds[at].dirty = true;
        }
        self.left.changed |= self.left.ports.remove(&port).is_some();
    }
}

//! Ports that are moved to another network namespace: they get their own settings back there, where that can be done.
//!
//! Like the kernel's driver does it, a port that leaves is itself again. But the move is over when its event comes, and a namespace
//! answers only those who are in it: so a thread goes there. Nothing waits for it.

use bond_modes::PortId;

use super::Instances;
use super::id::InstanceId;
use crate::dataplane::{MovedPort, PlaneError, Settled, restore_moved};
use crate::elsewhere;
use crate::netlink::Moved;
use crate::text::chain;

/// A port that has left, and what is known of it.
pub(super) struct Leaver {
    /// The bond that had it, or has not given it back; `None` if that is gone.
    at: Option<InstanceId>,
    name: String,
    namespace: i32,
    port: MovedPort,
}

impl Instances {
    /// What a port that was moved is to get back; nothing if it is no port. Asked before it counts as gone.
    pub(super) fn leaver(&mut self, port: PortId, name: &str, to: Moved) -> Option<Leaver> {
        let at = self.bonds.owner_of(port);
        let at = at.or_else(|| self.bonds.keeping(port).first().copied());
        let instance = at.and_then(|at| self.bonds.get(at));
        let (bond, original) = match instance {
            Some(instance) => {
                let original = instance.originals.get(&port);
                let original = original.or_else(|| instance.unrestored.get(&port))?;
                (instance.name.clone(), original.clone())
            }
            None => {
                let left = self.left.ports.get(&port)?;
                (left.bond.clone(), left.original.clone())
            }
        };
        let given = instance.and_then(|instance| instance.bond.plan().ports.get(&port).copied());
        Some(Leaver {
            at,
            name: name.to_owned(),
            namespace: to.namespace,
            port: MovedPort {
                ifindex: to.ifindex,
                bond,
                original,
                given,
            },
        })
    }

    /// Has a thread give a port back where it is now.
    pub(super) fn give_back_there(&mut self, leaver: Leaver) {
        self.threads.examiner.ask(move |()| {
            let done = leaver.give_back();
            Box::new(move |instances, _| instances.on_given_back_there(&leaver, done))
        });
    }

    fn on_given_back_there(&mut self, leaver: &Leaver, done: Result<Settled, String>) {
        let (bond, name) = (&leaver.port.bond, &leaver.name);
        match done {
            Ok(Settled::Restored) => {
                log::info!("{bond}: {name} has its own settings again in the network namespace to which it was moved");
                if let Some(at) = leaver.at.filter(|at| self.bonds.get(*at).is_some()) {
                    self.bonds[at].vanished.remove(name);
                    self.bonds[at].dirty = true;
                }
            }
            // It has gone on, or somebody else has it.
            Ok(Settled::NotOurs) => {}
            Err(why) => log::warn!(
                "{bond}: {name} keeps the settings of a port in the network namespace to which it was moved: {why}; there `{}` gives \
                 it its own",
                leaver.port.commands(name)
            ),
        }
    }
}

impl Leaver {
    fn give_back(&self) -> Result<Settled, String> {
        let namespace = elsewhere::find(self.namespace).map_err(|error| error.to_string())?;
        let namespace = namespace.ok_or("it is neither among those of `ip netns` nor that of a process in sight")?;
        let done = elsewhere::inside(&namespace, || restore_moved(&self.port));
        let done: Result<Settled, PlaneError> = done.map_err(|error| error.to_string())?;
        done.map_err(|error| chain(&error))
    }
}

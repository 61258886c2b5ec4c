//! What is in force of one bond, for several threads: the loop, which moves its traffic, and those that may wait, which do the rest of
//! a plan. Whatever is done with it locked waits for nothing, so the loop does not wait for the others either.

use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, Weak};

use bond_modes::plan::{Accept, Rewrite, Tx};
use bond_modes::{ForwardingPlan, PortId};
use bond_monitors::{Carrier, MacAddr};

use super::bpf::BondBpf;
use super::failover::{Prepared, Standing, losses};
use crate::dataplane::lock::lock;
use crate::dataplane::port::name_of;
use crate::dataplane::step::step;
use crate::dataplane::{BondName, PlaneError};

/// The forwarding of one bond. Clones are the same one.
///
/// Its lock is held for reading and writing maps only, and for opening those at their pins that a failover does not need: never
/// across a netlink request, the loading or attaching of a program, a sysctl or a file, as each of them may wait for the kernel's
/// RTNL lock, nor across a grace period; the traffic would wait with them.
#[derive(Clone)]
pub struct Forwarding(pub(super) Arc<Mutex<InForce>>);

/// State in force of a bond that this process made or took over.
pub struct InForce {
    /// The bond's name, for messages.
    pub name: BondName,
    /// Its maps.
    pub bpf: BondBpf,
    /// The plan in force. Its `ports` are the attached ones.
    pub applied: ForwardingPlan,
    /// The plan that counts for the maps, whichever is being programmed; none before the traffic was moved for the first time.
    pub wanted: Option<ForwardingPlan>,
    /// Ports whose all-multicast another program turned off.
    pub lost_allmulti: BTreeSet<PortId>,
    /// Ordinary traffic is tied to the first queue, so that another queue is an operator's mark.
    pub steered: bool,
    /// Programs of an earlier agent are still to be taken over.
    pub unfinished: bool,
    /// What the kernel does by itself if a port loses its carrier; none if it cannot.
    pub prepared: Option<Prepared>,
    /// Why it cannot.
    pub why_unprepared: String,
    /// A plan is being programmed: a request for it may change what `applied` does not say yet.
    pub programming: bool,
    /// The traffic has yet to move to a list for which there was no room.
    pub postponed: bool,
    /// How room for lists is made.
    pub restocking: Restocking,
}

/// A bond that is short of lists. It may be gone when its turn comes.
pub type Short = Weak<Mutex<InForce>>;

/// How room for lists of ports is made; see [`restock`](super::restock).
pub struct Restocking {
    /// Who makes it.
    pub by: Sender<Short>,
    /// It was asked.
    pub asked: bool,
}

impl Forwarding {
    /// Of a bond without ports that sends nowhere.
    pub fn new(name: &str, bpf: BondBpf, carrier: Carrier, mac: MacAddr, restocker: &Sender<Short>) -> Forwarding {
        let applied = ForwardingPlan {
            carrier,
            mac,
            ports: Default::default(),
            tx: Tx::one(None),
            steer: Vec::new(),
            rewrite: Rewrite::default(),
            without_agent: None,
            if_lost: Default::default(),
        };
        Forwarding(Arc::new(Mutex::new(InForce {
            name: name.to_owned(),
            bpf,
            applied,
            wanted: None,
            lost_allmulti: BTreeSet::new(),
            steered: false,
            unfinished: false,
            prepared: None,
            why_unprepared: String::new(),
            programming: false,
            postponed: false,
            restocking: Restocking {
                by: restocker.clone(),
                asked: false,
            },
        })))
    }

    /// Reads or changes it, locked: `work` asks the kernel for nothing but maps.
    pub fn with<T>(&self, work: impl FnOnce(&mut InForce) -> T) -> T {
        let mut in_force = lock(&self.0);
        #[cfg(test)]
        let _forbidden = crate::netlink::tests::asks::forbid();
        let done = work(&mut in_force);
        self.ask_for_room(&mut in_force);
        in_force.bpf.close_spare();
        done
    }

    /// As [`Forwarding::with`], with the plan that counts: the newest by which the traffic was moved, or else `plan`.
    pub fn with_newest<T>(&self, plan: &ForwardingPlan, work: impl FnOnce(&mut InForce, &ForwardingPlan) -> T) -> T {
        self.with(|now| {
            let wanted = now.wanted.take();
            let done = work(now, wanted.as_ref().unwrap_or(plan));
            now.wanted = wanted;
            done
        })
    }
}

impl InForce {
    /// Changes which frames a port lets in.
    pub fn set_accept(&mut self, port: PortId, accept: Accept) -> Result<(), PlaneError> {
        let doing = || format!("change what {} lets in from {}", self.name, name_of(port));
        step(doing, || self.bpf.set_accept(port, accept))?;
        if let Some(now) = self.applied.ports.get_mut(&port) {
            now.accept = accept;
        }
        Ok(())
    }

    /// Takes all that is prepared for the loss of a port out of force, also what an earlier agent prepared and this one has not read.
    /// Whether it was in force until now: else the kernel may be about to move the traffic, and notes that.
    pub fn unprepare(&mut self) -> io::Result<bool> {
        let standing = Standing::read(&self.bpf)?;
        if standing.number != 0 {
            Standing::default().write(&mut self.bpf)?;
        }
        if let Some(prepared) = &mut self.prepared {
            prepared.in_force.clear();
        }
        self.applied.if_lost.clear();
        self.bpf.set_spare(Vec::new());
        Ok(standing.number == 0 || standing.losses == losses(&self.bpf)?)
    }

    /// Forgets a port: nothing goes through it any more, and nothing is prepared, as its loss is not counted any more.
    pub fn remove_port(&mut self, port: PortId) -> io::Result<()> {
        self.unprepare()?;
        if let Some(prepared) = &mut self.prepared {
            prepared.forget_port(port)?;
        }
        self.bpf.remove_port(port)
    }

    /// Takes addresses for its own, besides those that are.
    pub fn add_own(&mut self, macs: impl IntoIterator<Item = MacAddr>) -> Result<(), PlaneError> {
        let doing = || format!("add to the own addresses of {}", self.name);
        step(doing, || self.bpf.add_own(macs))
    }

    /// Takes the addresses of the bond and its ports, as they are in force, for its own; no others but these.
    pub fn keep_own(&mut self, others: impl IntoIterator<Item = MacAddr>) -> Result<(), PlaneError> {
        let own = addresses(&self.applied).chain(others).collect();
        let doing = || format!("set the own addresses of {}", self.name);
        step(doing, || self.bpf.set_own(&own))
    }

    /// Under a bridge all senders above are remembered: a switch may flood what each of them sends.
    pub fn remember_all(&mut self, all: bool) -> Result<(), PlaneError> {
        let doing = format!("change which senders {} remembers", self.name);
        if self.bpf.remembers_all() != all {
            // The selector is written along with it, as it was, so the kernel must not move it meanwhile.
            let ended = || match self.unprepare()? {
                true => Ok(()),
                false => Err(io::ErrorKind::WouldBlock.into()),
            };
            step(|| doing.clone(), ended)?;
        }
        step(|| doing, || self.bpf.remember_all(all))
    }

    /// Moves the traffic under the program that is on the wire.
    pub fn set_tx(&mut self, tx: Tx) -> Result<(), PlaneError> {
        let doing = || format!("move the transmission of {}", self.name);
        step(doing, || self.bpf.set_tx(&tx))?;
        self.applied.tx = tx;
        Ok(())
    }

    /// What is possible of a wish: a port that is not attached costs the others nothing.
    pub fn among_attached(&self, tx: &Tx) -> Tx {
        tx.among(|port| self.applied.ports.contains_key(&port))
    }
}

/// Those of the bond and its ports.
pub fn addresses(plan: &ForwardingPlan) -> impl Iterator<Item = MacAddr> {
    std::iter::once(plan.mac).chain(plan.ports.values().map(|port| port.mac))
}

/// Whether a bridge stands above, which asks for promiscuity.
pub fn bridged(plan: &ForwardingPlan) -> bool {
    plan.ports.values().any(|port| port.promisc)
}

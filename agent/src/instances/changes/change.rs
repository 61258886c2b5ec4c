//! One change at work: it has the instances on loan, and gives them back to the loop while it waits for the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bond_modes::Event;
use bond_monitors::Time;
use parking_lot::{FairMutex, FairMutexGuard};

use super::super::Instances;
use super::super::id::InstanceId;
use super::super::instance::Instance;
use super::super::tools::Tools;
use crate::clock;
use crate::dataplane::PlaneBond;
use crate::netlink::{Link, RouteSocket};
use crate::text::chain;

/// Tools, and the instances that the loop shares with whoever has them.
pub struct Desk {
    /// The instances.
    pub instances: Arc<FairMutex<Instances>>,
    /// The tools.
    pub tools: Tools,
}

/// The instances, while a change works on them. The loop can do nothing meanwhile, so a change waits for the kernel and for disks only
/// in [`Change::unlocked`]. Then the loop goes on, with this bond too: ports may go, and state that was read before may be outdated.
/// But bonds come and go by changes alone, and there is one change at a time, so the instances that it knows stay.
pub struct Change<'a> {
    instances: FairMutexGuard<'a, Instances>,
    /// Used in [`Change::unlocked`] only.
    tools: &'a mut Tools,
    /// The loop does not know yet what changed: it may have something to do.
    touched: bool,
    /// The time, in a test, and what the loop does there whenever this waits.
    #[cfg(test)]
    pub(in crate::instances) stopped: Option<Time>,
    #[cfg(test)]
    pub(in crate::instances) meanwhile: Option<Meanwhile>,
}

/// See [`Change::meanwhile`].
#[cfg(test)]
pub type Meanwhile = Box<dyn FnMut(&mut Instances)>;

impl Desk {
    /// Begins a change.
    pub fn change(&mut self) -> Change<'_> {
        self.tools.begin_with_instances();
        Change {
            instances: self.instances.lock(),
            tools: &mut self.tools,
            touched: false,
            #[cfg(test)]
            stopped: None,
            #[cfg(test)]
            meanwhile: None,
        }
    }

    /// Sees to it that all bonds go on forwarding when this process has ended. Returns those that will not, and why.
    pub fn outlive(&mut self) -> BTreeMap<String, String> {
        let named = |instance: &Instance| (instance.name.clone(), Arc::clone(&instance.plane));
        let planes: Vec<_> = self.instances.lock().bonds.iter().map(named).collect();
        let mut left = BTreeMap::new();
        for (name, plane) in planes {
            if let Some(Err(error)) = plane.if_there(&mut self.tools, |plane| plane.outlive()) {
                left.insert(name, chain(&error));
            }
        }
        left
    }
}

impl Deref for Change<'_> {
    type Target = Instances;

    fn deref(&self) -> &Instances {
        &self.instances
    }
}

impl DerefMut for Change<'_> {
    fn deref_mut(&mut self) -> &mut Instances {
        self.touched = true;
        &mut self.instances
    }
}

impl Change<'_> {
    /// The time by now.
    pub(in crate::instances) fn now(&self) -> Time {
        #[cfg(test)]
        if let Some(stopped) = self.stopped {
            return stopped;
        }
        clock::now()
    }

    /// Does work that may take long, while the loop has the instances.
    pub(in crate::instances) fn unlocked<T>(&mut self, work: impl FnOnce(&mut Tools) -> T) -> T {
        if std::mem::take(&mut self.touched) {
            (self.tools.wake)();
        }
        #[cfg(test)]
        if let Some(mut meanwhile) = self.meanwhile.take() {
            meanwhile(&mut self.instances);
            self.meanwhile = Some(meanwhile);
        }
        FairMutexGuard::unlocked(&mut self.instances, || {
            self.tools.end_with_instances();
            let done = work(self.tools);
            self.tools.begin_with_instances();
            done
        })
    }

    /// The tools, for a test itself.
    #[cfg(test)]
    pub(in crate::instances) fn tools(&mut self) -> &mut Tools {
        self.tools
    }

    /// Reads an interface and brings it into the picture. It is read again if an event told of it meanwhile, which may be newer.
    ///
    /// # Errors
    /// As `read`.
    pub(in crate::instances) fn read_link(
        &mut self,
        read: impl Fn(&mut RouteSocket) -> io::Result<Option<Link>>,
    ) -> io::Result<Option<Link>> {
        let mut told = None;
        for _ in 0..READS {
            self.underway.heard = Some(BTreeSet::new());
            let found = self.unlocked(|tools| read(&mut tools.links));
            let heard = self.underway.heard.take().unwrap_or_default();
            let Some(link) = found? else { return Ok(None) };
            if !heard.contains(&link.ifindex) {
                self.host.changed(link.clone());
                return Ok(Some(link));
            }
            told = Some(link.ifindex);
        }
        Ok(told.and_then(|ifindex| self.host.link(ifindex).cloned()))
    }

    /// As [`Change::read_link`], of the interface with this index.
    pub(in crate::instances) fn read_index(&mut self, ifindex: u32) -> io::Result<Option<Link>> {
        self.read_link(|links| links.by_index(ifindex))
    }

    /// As [`Change::read_link`], of the interface of this name.
    pub(in crate::instances) fn read_name(&mut self, name: &str) -> io::Result<Option<Link>> {
        self.read_link(|links| links.by_name(name))
    }

    /// Feeds one fact to a bond, and has its plan done.
    pub(in crate::instances) fn feed(&mut self, at: InstanceId, event: Event) {
        let now = self.now();
        self.instances.feed(now, at, event);
        self.finish_plan(at);
    }

    /// Does what a bond wants done, and has its plan done.
    pub(in crate::instances) fn drain(&mut self, at: InstanceId) {
        let now = self.now();
        self.instances.drain(now, at);
        self.finish_plan(at);
    }

    /// Asks the plane of a bond something, which may take long. Then what the bond wanted meanwhile is done.
    pub(in crate::instances) fn on_plane<T>(
        &mut self,
        at: InstanceId,
        work: impl FnOnce(&mut dyn PlaneBond) -> T,
    ) -> T {
        let forwarder = self.bonds[at].plane.clone();
        let done = self.at_work_with(at, |tools| forwarder.with(tools, work));
        self.finish_plan(at);
        done
    }

    /// Has the plan of a bond done, after its machine had something to say: whoever asked for the change is told what was not done.
    pub(in crate::instances) fn finish_plan(&mut self, at: InstanceId) {
        while self.rests.remove(&at) {
            let forwarder = self.bonds[at].plane.clone();
            let programmed = self.at_work_with(at, |tools| forwarder.program(tools));
            let now = self.now();
            self.on_programmed(now, at, programmed);
        }
        for ask in std::mem::take(&mut self.held) {
            ask(self);
        }
    }

    fn at_work_with<T>(&mut self, at: InstanceId, work: impl FnOnce(&mut Tools) -> T) -> T {
        self.underway.at_work = Some(at);
        let done = self.unlocked(work);
        self.underway.at_work = None;
        done
    }
}

/// How often an interface is read that changes all the time. What events tell of it counts then.
const READS: usize = 4;

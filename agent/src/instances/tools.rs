//! What changes work with and the loop has not: all of it may wait for the kernel.

use crate::dataplane::Planes;
use crate::may_wait::MayWait;
use crate::netlink::RouteSocket;
use crate::priority;
use crate::threads::Kernel;

/// The planes, and what else a change asks the kernel with.
pub struct Tools {
    /// The planes, which make bonds and take them over.
    pub planes: Planes,
    /// For requests about interfaces.
    pub links: RouteSocket,
    /// Wakes the loop.
    pub wake: Box<dyn Fn() + Send>,
    /// The real-time priority of a change that waits; the loop's while it has the instances, which the loop waits for then. It stays
    /// as it is if there is none.
    pub priority: Option<i32>,
}

impl Tools {
    /// To be called before the instances are locked.
    pub(super) fn begin_with_instances(&self) {
        if self.priority.is_some() {
            priority::raise(priority::LOOP);
        }
    }

    /// To be called when they are free again.
    pub(super) fn end_with_instances(&self) {
        if let Some(usual) = self.priority {
            priority::raise(usual);
        }
    }
}

impl MayWait for Tools {}

impl MayWait for Kernel {}

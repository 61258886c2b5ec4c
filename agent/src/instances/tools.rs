//! What changes work with and the loop has not: all of it may wait for the kernel.

use crate::dataplane::Planes;
use crate::may_wait::MayWait;
use crate::netlink::RouteSocket;
use crate::threads::Kernel;

/// The planes, and what else a change asks the kernel with.
pub struct Tools {
    /// The planes, which make bonds and take them over.
    pub planes: Planes,
    /// For requests about interfaces.
    pub links: RouteSocket,
    /// Wakes the loop.
    pub wake: Box<dyn Fn() + Send>,
}

impl MayWait for Tools {}

impl MayWait for Kernel {}

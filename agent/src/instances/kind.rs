//! What a kind of instances is to the rest of the agent.

use bond_monitors::Time;
use serde_json::Value;

use crate::netlink::Link;

/// A kind of instances, such as bonds: what facts and time mean to them. `S` is what all kinds share: the picture of the host, the
/// threads that ask the kernel, the sockets and the files. A kind keeps its machines, each a [`Machine`](bond_modes::Machine), and
/// carries out their actions with what is shared.
pub trait Kind<S>: Send {
    /// What it is called, in the answer to `show`.
    fn name(&self) -> &'static str;

    /// These interfaces are as told here. The picture shows them already. They come together if they were read together.
    fn on_links(&mut self, shared: &mut S, now: Time, links: &[Link]);

    /// An interface is gone.
    fn on_gone(&mut self, shared: &mut S, now: Time, ifindex: u32, name: &str);

    /// An interface has other addresses than before. The picture shows them already.
    fn on_addresses(&mut self, shared: &mut S, now: Time, ifindex: u32);

    /// When [`Kind::handle_timeout`] has something to do.
    fn poll_timeout(&self, shared: &mut S) -> Option<Time>;

    /// Runs the timers that are due.
    fn handle_timeout(&mut self, shared: &mut S, now: Time);

    /// Its instances, where they are not shown in another way.
    fn show(&self, _shared: &S, _now: Time) -> Option<Value> {
        None
    }
}

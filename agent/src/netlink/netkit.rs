//! netkit devices: two ends as a veth pair has, with a place for BPF programs in what the first end transmits.

use std::io;

use rtnetlink::LinkNetkit;
use rtnetlink::packet_route::link::{NetkitMode, NetkitPolicy};

use super::link::RouteSocket;

impl RouteSocket {
    /// Makes one that carries Ethernet frames, both ends down. Without a program, or if that does not say what becomes of a frame,
    /// what the first end transmits is dropped, and what the other end transmits reaches the first. Either name may be a pattern
    /// such as `wire%d`.
    pub fn add_netkit(&mut self, name: &str, peer: &str) -> io::Result<()> {
        let device = LinkNetkit::new(name, peer, NetkitMode::L2)
            .policy(NetkitPolicy::Drop)
            .peer_policy(NetkitPolicy::Pass)
            .build();
        let made = self.ask(|handle| handle.link().add(device).execute());
        self.done_or_found(made, |links| links.is_of_kind(name, "netkit"))
    }
}

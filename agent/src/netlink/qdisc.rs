//! The qdisc on the ingress side of an interface, which classifier programs hang on where there is no tcx.

use std::io;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::tc::TcHandle;

use super::link::Links;

impl Links {
    /// Whether the interface has a clsact qdisc, or the older ingress qdisc: there is room for one of the two.
    pub fn has_clsact(&mut self, ifindex: u32) -> io::Result<bool> {
        let found = self.ask(|handle| handle.qdisc().get().execute().try_collect::<Vec<_>>())?;
        Ok(found
            .iter()
            .any(|qdisc| qdisc.header.index as u32 == ifindex && qdisc.header.parent == TcHandle::CLSACT))
    }

    /// Removes it with all filters on it; harmless if there is none.
    pub fn remove_clsact(&mut self, ifindex: u32) -> io::Result<()> {
        let removed = self.ask(|handle| {
            let mut request = handle.qdisc().del(ifindex as i32);
            request.message_mut().header.parent = TcHandle::CLSACT;
            request.message_mut().header.handle = TcHandle {
                major: 0xffff,
                minor: 0,
            };
            request.execute()
        });
        match removed {
            // EINVAL is the answer for an interface that had one before.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(()),
            done => done,
        }
    }
}

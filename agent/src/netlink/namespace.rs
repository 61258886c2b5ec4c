//! Ids of network namespaces.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::StreamExt;
use rtnetlink::Error;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};

use super::link::RouteSocket;

impl RouteSocket {
    /// The id that another network namespace has in this one; `None` if it has none.
    ///
    /// # Errors
    /// Among others, the file is not that of a network namespace.
    pub fn namespace_id(&mut self, namespace: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        let mut asked = NsidMessage::default();
        asked
            .attributes
            .push(NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned()));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(asked));
        request.header.flags = NLM_F_REQUEST;
        let id = self.ask(|handle| {
            let answers = handle.request(request);
            async move {
                match answers?.next().await.map(|answer| answer.payload) {
                    Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(answer))) => Ok(id_in(&answer)),
                    Some(NetlinkPayload::Error(error)) => Err(Error::NetlinkError(error)),
                    _ => Ok(None),
                }
            }
        })?;
        Ok(id.filter(|id| *id >= 0))
    }
}

fn id_in(answer: &NsidMessage) -> Option<i32> {
    answer.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) => Some(*id),
        _ => None,
    })
}

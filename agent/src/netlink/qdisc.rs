//! The qdisc on the ingress side of an interface, to which classifier programs are attached on kernels without tcx.

use std::io;

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::Error;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_ECHO, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::link::RouteSocket;

/// A filter on the clsact qdisc of an interface, on either side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Name of its program, if it has one.
    pub program: Option<String>,
    /// Its priority.
    pub priority: u16,
}

impl Filter {
    /// Whether it is this program at this priority.
    pub fn is(&self, program: &str, priority: u16) -> bool {
        self.program.as_deref() == Some(program) && self.priority == priority
    }
}

impl RouteSocket {
    /// The filters on the clsact qdisc of an interface; empty if there is no such qdisc. Filters of unknown kinds are included.
    pub fn filters(&mut self, ifindex: u32) -> io::Result<Vec<Filter>> {
        let mut filters = Vec::new();
        for egress in [false, true] {
            let found = self.ask(|handle| {
                let request = handle.traffic_filter(ifindex as i32).get();
                let request = if egress { request.egress() } else { request.ingress() };
                request.execute().try_collect::<Vec<_>>()
            });
            match found {
                // An entry without a handle is the head of all filters of a priority.
                Ok(found) => filters.extend(
                    found
                        .iter()
                        .filter(|it| it.header.handle != TcHandle::default())
                        .map(filter),
                ),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINVAL | libc::ENOENT | libc::EOPNOTSUPP) => {}
                    Some(_) => return Err(error),
                    None => filters.push(Filter::default()),
                },
            }
        }
        Ok(filters)
    }

    /// Whether the interface has a clsact qdisc or the older ingress qdisc; it can have only one of them. Not by a dump, which
    /// the kernel makes of all interfaces.
    pub fn has_clsact(&mut self, ifindex: u32) -> io::Result<bool> {
        let mut asked = TcMessage::default();
        asked.header.index = ifindex as i32;
        asked.header.parent = TcHandle::CLSACT;
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetQueueDiscipline(asked));
        // The kernel says nothing of a qdisc that was there before, and sends what it says to others unless told to echo it.
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_ECHO;
        let found = self.ask(|handle| {
            let answers = handle.request(request);
            async move {
                let answers: Vec<_> = answers?.collect().await;
                answers
                    .into_iter()
                    .try_fold(false, |found, answer| match answer.payload {
                        NetlinkPayload::InnerMessage(_) => Ok(true),
                        NetlinkPayload::Error(error) if error.code.is_some() => Err(Error::NetlinkError(error)),
                        _ => Ok(found),
                    })
            }
        });
        match found {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            found => found,
        }
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

fn filter(message: &TcMessage) -> Filter {
    let options = message.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let program = options.flatten().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
        _ => None,
    });
    Filter {
        program,
        priority: (message.header.info >> 16) as u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::tests::{in_netns, ip, run};

    #[test]
    fn an_ingress_qdisc_is_seen_on_its_interface_alone_as_long_as_it_is_there() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            links.add_veth("p0", "p1").unwrap();
            ip("link set p1 up");
            let has = |links: &mut RouteSocket| {
                ["p0", "p1"].map(|name| {
                    let index = links.by_name(name).unwrap().unwrap().ifindex;
                    links.has_clsact(index).unwrap()
                })
            };
            assert_eq!(has(&mut links), [false, false]);
            for kind in ["clsact", "ingress"] {
                run("tc", &format!("qdisc add dev p1 {kind}"));
                assert_eq!(has(&mut links), [false, true], "{kind}");
                run("tc", &format!("qdisc del dev p1 {kind}"));
                assert_eq!(has(&mut links), [false, false], "{kind} was there before");
            }
            assert!(links.has_clsact(1 << 20).is_err());
        });
    }
}

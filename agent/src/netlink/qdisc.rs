//! The qdisc on the ingress side of an interface, to which classifier programs are attached on kernels without tcx.

use std::io;

use futures_util::TryStreamExt;
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

    /// Whether the interface has a clsact qdisc or the older ingress qdisc; it can have only one of them.
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

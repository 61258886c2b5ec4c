//! The carriers of many interfaces at once: requests leave in batches, and of the answers only the carrier is read.

use std::collections::BTreeMap;
use std::io;

use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use super::message::{self, LinkState, brief};

/// Reads carriers in the network namespace in which it was opened.
pub struct CarrierSocket {
    socket: Socket,
    buffer: Box<[u8]>,
}

impl CarrierSocket {
    /// Opens the socket.
    pub fn open() -> io::Result<CarrierSocket> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(CarrierSocket {
            socket,
            buffer: vec![0; DATAGRAM_MAX].into_boxed_slice(),
        })
    }

    /// The states of these interfaces. One that is not there, or that the kernel does not answer for, is left out.
    pub fn read(&mut self, ports: &[u32]) -> io::Result<BTreeMap<u32, LinkState>> {
        let mut found = BTreeMap::new();
        for batch in ports.chunks(BATCH) {
            #[cfg(test)]
            super::tests::asks::here()?;
            let requests: Vec<u8> = batch.iter().flat_map(|ifindex| request(*ifindex)).collect();
            // The kernel handles the requests within the call and queues its answers before that returns.
            self.socket.send(&requests, 0)?;
            self.receive(&mut found)?;
        }
        Ok(found)
    }

    fn receive(&mut self, found: &mut BTreeMap<u32, LinkState>) -> io::Result<()> {
        loop {
            let length = match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Some answers did not fit in; the next round reads them.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
                Err(error) => return Err(error),
            };
            let Ok(answer) = NetlinkBuffer::new_checked(&self.buffer[..length]) else {
                continue;
            };
            if answer.message_type() == libc::RTM_NEWLINK
                && let Some((ifindex, state)) = message::link_state(answer.payload())
            {
                found.insert(ifindex, state);
            }
        }
    }
}

/// The request for one interface.
fn request(ifindex: u32) -> Vec<u8> {
    let mut link = LinkMessage::default();
    link.header.index = ifindex;
    link.attributes.push(LinkAttribute::ExtMask(brief()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(link));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    bytes
}

/// Requests that are sent at once: their answers fit into a receive buffer of the default size.
const BATCH: usize = 64;

/// An answer describes one interface.
const DATAGRAM_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::RouteSocket;
    use crate::netlink::tests::{in_netns, ip};

    #[test]
    fn carriers_are_those_of_single_requests_and_missing_interfaces_are_left_out() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            let names: Vec<String> = (0..100).map(|number| format!("p{number}")).collect();
            for (number, name) in names.iter().enumerate() {
                links.add_veth(name, &format!("q{number}")).unwrap();
                ip(&format!(
                    "link set {name} {}",
                    if number % 3 == 0 { "down" } else { "up" }
                ));
                ip(&format!(
                    "link set q{number} {}",
                    if number % 2 == 0 { "down" } else { "up" }
                ));
            }
            let mut wanted: Vec<u32> = links.all().unwrap().iter().map(|link| link.ifindex).collect();
            let mut socket = CarrierSocket::open().unwrap();
            // In service is a moment later than carrier.
            let single = |links: &mut RouteSocket, ifindex: &u32| {
                let link = links.by_index(*ifindex).unwrap().unwrap();
                let carrier = link.report.carrier;
                (
                    *ifindex,
                    LinkState {
                        carrier,
                        in_service: link.in_service,
                    },
                )
            };
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            loop {
                let before: BTreeMap<_, _> = wanted.iter().map(|ifindex| single(&mut links, ifindex)).collect();
                if socket.read(&wanted).unwrap() == before {
                    assert!(before.values().any(|state| state.carrier.is_on()));
                    assert!(before.values().any(|state| !state.carrier.is_on()));
                    break;
                }
                assert!(std::time::Instant::now() < deadline);
            }
            let there = wanted.len();
            wanted.insert(7, 1 << 20);
            assert_eq!(socket.read(&wanted).unwrap().len(), there);
            assert_eq!(socket.read(&[]).unwrap().len(), 0);
        });
    }
}

//! Raw frames: a socket on one interface, a target with configurable faults, and noise.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, bind, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::netns::Netns;

/// A packet socket on one interface.
#[derive(Debug)]
pub struct Raw {
    socket: OwnedFd,
}

impl Raw {
    /// In the calling thread's namespace. Hears frames of that type; with 0 it only sends.
    ///
    /// # Panics
    /// Without such an interface, or the right to do so.
    #[track_caller]
    pub fn open(interface: &str, ethertype: u16) -> Raw {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
            .expect("root may open a packet socket");
        let index = if_nametoindex(interface).unwrap_or_else(|e| panic!("{interface}: {e}"));
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: ethertype.to_be(),
            sll_ifindex: index as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the pointer is to a whole sockaddr_ll, whose length is the one given.
        let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) };
        bind(socket.as_raw_fd(), &address.expect("a packet address"))
            .unwrap_or_else(|e| panic!("cannot bind to {interface}: {e}"));
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(20)).expect("a socket takes a time-out");
        Raw { socket }
    }

    /// Sends one frame, from the destination address on.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).unwrap_or_else(|e| panic!("cannot send a frame: {e}"));
    }

    /// The next frame; `None` if none comes for a moment.
    fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 1514];
        match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Ok(length) => frame.truncate(length),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return None,
            Err(errno) => panic!("cannot hear frames: {errno}"),
        }
        Some(frame)
    }
}

/// A thread in a namespace that counts what it does until it is dropped.
#[derive(Debug)]
struct Worker {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Calls `step` repeatedly; it returns the amount of its work.
    fn start(netns: &Netns, prepare: impl FnOnce() -> Box<dyn FnMut() -> u64> + Send + 'static) -> Worker {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = thread::spawn({
            let (netns, stop, count) = (netns.clone(), stop.clone(), count.clone());
            move || {
                netns.join();
                let mut step = prepare();
                while !stop.load(Ordering::Relaxed) {
                    count.fetch_add(step(), Ordering::Relaxed);
                }
            }
        });
        Worker {
            stop,
            count,
            thread: Some(thread),
        }
    }

    fn done(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It holds the namespace, which must go before the test ends; its panic was reported already.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Answers ARP requests for one address in place of the kernel, whose own answers must be switched off.
#[derive(Debug)]
pub struct Responder(Worker);

impl Responder {
    /// Answers on an interface that it has `mac`, one question after the other, each so long after it read it.
    pub fn start(netns: &Netns, interface: &str, address: Ipv4Addr, mac: [u8; 6], delay: Duration) -> Responder {
        let interface = interface.to_owned();
        Responder(Worker::start(netns, move || {
            let raw = Raw::open(&interface, libc::ETH_P_ARP as u16);
            Box::new(move || {
                let answer = raw.receive().and_then(|frame| arp_answer(&frame, address, mac));
                let Some(answer) = answer else { return 0 };
                thread::sleep(delay);
                raw.send(&answer);
                1
            })
        }))
    }

    /// Questions answered so far.
    pub fn answered(&self) -> u64 {
        self.0.done()
    }
}

/// The answer to a request for that address. [RFC 826]
fn arp_answer(request: &[u8], address: Ipv4Addr, mac: [u8; 6]) -> Option<Vec<u8>> {
    let asked = request.get(38..42)? == address.octets() && request[20..22] == [0, 1];
    let (asker, header) = (&request[22..32], &request[12..20]);
    asked.then(|| [&asker[..6], &mac, header, &[0, 2], &mac, &address.octets(), asker].concat())
}

/// Broadcasts out of an interface, half of them ARP requests of and for strangers, at an even rate.
#[derive(Debug)]
pub struct Flood {
    worker: Worker,
    since: Instant,
}

impl Flood {
    /// Frames per second, a multiple of 1,000.
    pub fn start(netns: &Netns, interface: &str, per_second: u64) -> Flood {
        let interface = interface.to_owned();
        let since = Instant::now();
        let worker = Worker::start(netns, move || {
            let raw = Raw::open(&interface, 0);
            let mut turn = 0;
            Box::new(move || {
                let burst = per_second / 1_000;
                for number in turn * burst..(turn + 1) * burst {
                    raw.send(&noise(number));
                }
                turn += 1;
                thread::sleep((since + Duration::from_millis(turn)).saturating_duration_since(Instant::now()));
                burst
            })
        });
        Flood { worker, since }
    }

    /// Frames a second so far.
    pub fn rate(&self) -> f64 {
        self.worker.done() as f64 / self.since.elapsed().as_secs_f64()
    }
}

fn noise(number: u64) -> Vec<u8> {
    let mac = [2, 0, 0, 0, 0xf1, number as u8];
    let header = [&[0xff; 6][..], &mac].concat();
    if number.is_multiple_of(2) {
        return [&header[..], &[0x88, 0xb5], &[0; 46]].concat();
    }
    let [a, b] = (number as u16).to_be_bytes();
    [
        &header[..],
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &mac,
        &[10, 78, a, b, 0, 0, 0, 0, 0, 0, 10, 79, b, a],
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_the_address_is_answered_to_the_asker_and_no_other_one() {
        let asker = [2, 0, 0, 0, 0, 1, 10, 0, 0, 1];
        let mut request = [
            &[0xff; 6][..],
            &asker[..6],
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &asker,
            &[0; 6],
            &[10, 0, 0, 2],
        ]
        .concat();
        let mac = [2, 0, 0, 0, 0, 9];
        let answer = arp_answer(&request, [10, 0, 0, 2].into(), mac).unwrap();
        let expected = [
            &asker[..6],
            &mac,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
            &mac,
            &[10, 0, 0, 2],
            &asker,
        ];
        assert_eq!(answer, expected.concat());
        assert_eq!(arp_answer(&request, [10, 0, 0, 3].into(), mac), None);
        request[21] = 2;
        assert_eq!(arp_answer(&request, [10, 0, 0, 2].into(), mac), None);
        assert_eq!(arp_answer(&request[..41], [10, 0, 0, 2].into(), mac), None);
    }
}

//! The programs in the kernel: its checks accept them, and it computes the same index.
//!
//! The result of a packet socket's filter is the number of bytes of the frame that the socket gets. So a hash program as the
//! filter returns the index as the length of what is received. A socket sees frames that leave a device as a team's program
//! does.

use std::os::fd::OwnedFd;
use std::{fs, iter};

use bond_modes::hash::hash;
use libc::{sock_filter, sock_fprog};

use super::*;
use crate::netlink::RouteSocket;
use crate::netlink::tests::in_netns;
use crate::packet::tests::{pair, receive};
use crate::packet::{PacketSocket, bind, open_socket, set_option};

#[test]
fn the_kernel_computes_the_index_of_frames_that_leave_and_arrive() {
    in_netns(|| {
        // The kernel's own IPv6 chatter would be taken for ours.
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let (mut links, sender) = (RouteSocket::open().unwrap(), PacketSocket::open().unwrap());
        let (near, far) = pair(&mut links, "a", "b");
        let mut random = Random::new(7);
        for (policy, name) in policies() {
            for ports in [1, 2, 3, 5, 7, 11, 13] {
                let program = program(policy, ports).unwrap();
                let (leaving, arriving) = (Counter::on(near, &program), Counter::on(far, &program));
                for _ in 0..FRAMES {
                    let frame = sendable(&mut random);
                    sender.send(near, &frame).unwrap();
                    let left = hash_at(policy, &frame, None, ETHERNET_HEADER) % ports;
                    assert_eq!(leaving.index(), left, "{name} of {ports} leaving: {frame:02x?}");
                    // On arrival the kernel lifts a tag out of the bytes.
                    let arrived = hash(policy, &frame, None) % ports;
                    assert_eq!(arriving.index(), arrived, "{name} of {ports} arriving: {frame:02x?}");
                }
            }
        }
    });
}

/// A socket whose filter is a program that returns the index plus one, because of 0 bytes there would be nothing to receive.
struct Counter(OwnedFd);

impl Counter {
    fn on(ifindex: u32, program: &[SockFilter]) -> Counter {
        let [start @ .., finish] = program else {
            panic!("no program")
        };
        let add_one = SockFilter {
            code: (libc::BPF_ALU | BPF_ADD | libc::BPF_K) as u16,
            jt: 0,
            jf: 0,
            k: 1,
        };
        let mut lines: Vec<_> = start.iter().chain([&add_one, finish]).map(raw).collect();
        let program = sock_fprog {
            len: lines.len() as u16,
            filter: lines.as_mut_ptr(),
        };
        let socket = open_socket().unwrap();
        set_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program).unwrap();
        bind(&socket, ifindex, (libc::ETH_P_ALL as u16).to_be()).unwrap();
        Counter(socket)
    }

    /// The index of the next frame, which must be longer than the index.
    fn index(&self) -> u32 {
        receive(&self.0).len() as u32 - 1
    }
}

fn raw(one: &SockFilter) -> sock_filter {
    let SockFilter { code, jt, jf, k } = *one;
    sock_filter { code, jt, jf, k }
}

/// A random frame that arrives, at times in a tag more: not too long, and with an EtherType behind a tag.
fn sendable(random: &mut Random) -> Vec<u8> {
    let next = || {
        let mut frame = frames::frame(random);
        if random.below(3) == 0 {
            let tag = [0x8100, random.below(1 << 16) as u16].map(u16::to_be_bytes);
            frame.splice(12..12, tag.concat());
        }
        frame
    };
    let arrives = |frame: &Vec<u8>| {
        let tagged = matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]);
        frame.len() <= 1500 && (frame.len() >= 20 || !tagged)
    };
    iter::repeat_with(next).find(arrives).unwrap()
}

const FRAMES: usize = 600;

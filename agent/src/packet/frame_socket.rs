//! Receives the frames of a port that its monitors need.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use bond_monitors::frames::SLOW_GROUP;
use bond_monitors::{FrameKinds, WantedFrames};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use super::filter::{self, SNAP};
use super::{bind, join, open_socket, set_option};
use crate::netlink::Drained;

/// A packet socket that receives frames of given kinds on one interface, before tc programs drop or redirect them. Of neighbour
/// discovery it receives solicitations and advertisements.
///
/// It returns the first 128 bytes of each frame, without the outer VLAN tag. Frames sent by the interface are not received.
/// Memory is limited by the receive buffer; in a flood, frames beyond it are lost.
///
/// Dropping it, also one that receives nothing, waits until no processor may be looking at it any more, which takes many
/// milliseconds. [af_packet.c: packet_release]
pub struct FrameSocket {
    socket: OwnedFd,
    ifindex: u32,
    wanted: WantedFrames,
}

impl FrameSocket {
    /// One that receives nothing yet; needs CAP_NET_RAW.
    pub fn unbound(ifindex: u32) -> io::Result<FrameSocket> {
        Ok(FrameSocket {
            socket: open_socket()?,
            ifindex,
            wanted: WantedFrames::default(),
        })
    }

    /// Receives these from now on, once only. The interface may be down.
    pub fn begin(&mut self, wanted: &WantedFrames) -> io::Result<()> {
        let socket = &self.socket;
        // The filter is set before the socket is bound to a protocol, so every queued frame has passed a filter.
        filter::attach(socket, &WantedFrames::default())?;
        // Makes the kernel skip sent frames. Before 4.20 it cannot, and the filter drops each of them, which costs time.
        let on: libc::c_int = 1;
        let _ = set_option(socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &on);
        setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        // All protocols, because sockets of a single protocol come after tc. [dev.c: __netif_receive_skb_core]
        bind(socket, self.ifindex, (libc::ETH_P_ALL as u16).to_be())?;
        self.listen_for(wanted)
    }

    /// Receives these from now on. Queued frames stay, and none is lost of those that were received before and still are.
    /// Where slow protocols are wanted, or no longer, this waits for the kernel's RTNL lock.
    pub fn listen_for(&mut self, wanted: &WantedFrames) -> io::Result<()> {
        if *wanted == self.wanted {
            return Ok(());
        }
        let groups = |wanted: &WantedFrames| wanted.kinds.meets(FrameKinds::SLOW);
        if groups(wanted) != groups(&self.wanted) {
            join(&self.socket, self.ifindex, SLOW_GROUP, groups(wanted))?;
        }
        filter::attach(&self.socket, wanted)?;
        self.wanted.clone_from(wanted);
        Ok(())
    }

    /// Appends at most `budget` received frames to `sink`. After [`Drained::More`] the caller must call again: an
    /// edge-triggered wait would not report the rest.
    ///
    /// When the interface is gone, no frames arrive, and there is no error.
    pub fn read(&mut self, budget: usize, sink: &mut Vec<Vec<u8>>) -> io::Result<Drained> {
        let mut frame = [0; SNAP];
        for _ in 0..budget {
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => sink.push(frame[..length].to_vec()),
                Err(Errno::EAGAIN) => return Ok(Drained::Empty),
                // ENETDOWN is reported once each time the interface goes down; the socket receives again when it is up.
                Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Drained::More)
    }
}

impl AsRawFd for FrameSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// In bytes. After the kernel's overhead they hold some hundred frames.
const RECEIVE_BUFFER: usize = 256 << 10;

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
impl FrameSocket {
    /// One that receives these kinds.
    pub(crate) fn open(ifindex: u32, kinds: FrameKinds) -> io::Result<FrameSocket> {
        let mut listener = FrameSocket::unbound(ifindex)?;
        listener.begin(&kinds.into())?;
        Ok(listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::events::tests::{carrier_of, read_until};
    use crate::netlink::tests::{in_netns, run};
    use crate::netlink::{Events, RouteSocket};
    use crate::packet::PacketSocket;
    use crate::packet::tests::{await_readable, pair, receive};

    /// A frame of that type, with zeros behind it but for the bytes at the given offsets.
    fn frame(ethertype: u16, bytes: &[(usize, u8)]) -> Vec<u8> {
        let mut frame = vec![0; 200];
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        for (at, byte) in bytes {
            frame[*at] = *byte;
        }
        frame
    }

    fn arp(number: u8) -> Vec<u8> {
        frame(0x0806, &[(41, number)])
    }

    /// An ICMPv6 message of that type, first behind the IPv6 header. Marked, because the kernel sends some of its own.
    fn icmpv6(kind: u8) -> Vec<u8> {
        frame(0x86dd, &[(20, 58), (54, kind), (60, MARK)])
    }

    /// A frame of a slow protocol to its group.
    fn slow(number: u8) -> Vec<u8> {
        let mut frame = frame(0x8809, &[(41, number)]);
        frame[..6].copy_from_slice(&SLOW_GROUP.0);
        frame
    }

    fn tagged(tag: u16, mut frame: Vec<u8>) -> Vec<u8> {
        let [high, low] = tag.to_be_bytes();
        frame.splice(12..12, [high, low, 0, 7]);
        frame
    }

    fn kept(frame: &[u8]) -> Vec<u8> {
        frame[..SNAP].to_vec()
    }

    /// Reads until `last` arrives; returns all frames except the kernel's own.
    fn hear_until(listener: &mut FrameSocket, last: &[u8]) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        while heard.last() != Some(&kept(last)) {
            await_readable(&listener.socket);
            listener.read(1, &mut heard).unwrap();
            heard.retain(|frame| frame[12..14] != [0x86, 0xdd] || frame.get(60).is_none_or(|byte| *byte == MARK));
        }
        heard
    }

    /// A pair in service, with a socket on the far end.
    fn listening() -> (RouteSocket, PacketSocket, FrameSocket, [u32; 2]) {
        let mut links = RouteSocket::open().unwrap();
        let (near, far) = pair(&mut links, "eth0", "eth1");
        let listener = FrameSocket::open(far, PROBES).unwrap();
        (links, PacketSocket::open().unwrap(), listener, [near, far])
    }

    #[test]
    fn arp_and_neighbour_discovery_that_arrive_are_heard_and_nothing_else() {
        in_netns(|| {
            let (_links, sender, mut listener, [near, far]) = listening();
            let wanted = [arp(1), icmpv6(135), icmpv6(136), arp(2)];
            let unwanted = [
                icmpv6(134),
                icmpv6(137),
                frame(0x86dd, &[(20, 17), (54, 135), (60, MARK)]),
                // Behind a hop-by-hop header.
                frame(0x86dd, &[(20, 0), (54, 58), (62, 135), (60, MARK)]),
                frame(0x0800, &[(20, 58), (54, 135), (60, MARK)]),
                // Cut before the ICMPv6 type.
                frame(0x86dd, &[(20, 58)])[..54].to_vec(),
            ];
            for frame in wanted[..3].iter().chain(&unwanted).chain([&wanted[3]]) {
                sender.send(far, &arp(9)).unwrap();
                sender.send(near, frame).unwrap();
            }
            assert_eq!(hear_until(&mut listener, &wanted[3]), wanted.map(|frame| kept(&frame)));
        });
    }

    #[test]
    fn the_filter_alone_keeps_out_what_is_sent() {
        in_netns(|| {
            let (_links, sender, _, [near, far]) = listening();
            let socket = open_socket().unwrap();
            filter::attach(&socket, &PROBES.into()).unwrap();
            bind(&socket, far, (libc::ETH_P_ALL as u16).to_be()).unwrap();
            sender.send(far, &arp(9)).unwrap();
            sender.send(near, &arp(1)).unwrap();
            let mut listener = FrameSocket {
                socket,
                ifindex: far,
                wanted: PROBES.into(),
            };
            assert_eq!(hear_until(&mut listener, &arp(1)), [kept(&arp(1))]);
        });
    }

    #[test]
    fn the_outer_tag_does_not_hide_a_frame() {
        in_netns(|| {
            let (_links, sender, mut listener, [near, _]) = listening();
            for tag in [0x8100, 0x88a8] {
                sender.send(near, &tagged(tag, arp(1))).unwrap();
                sender.send(near, &tagged(tag, icmpv6(135))).unwrap();
                let expected = [kept(&arp(1)), kept(&icmpv6(135))];
                assert_eq!(hear_until(&mut listener, &icmpv6(135)), expected, "{tag:04x}");
            }
        });
    }

    #[test]
    fn slow_protocols_are_heard_while_they_are_wanted() {
        in_netns(|| {
            let (_links, sender, mut listener, [near, _]) = listening();
            let joined = || {
                let groups = std::fs::read_to_string("/proc/thread-self/net/dev_mcast").unwrap();
                let mut lines = groups.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
                lines.any(|line| line[1] == "eth1" && line[4] == "0180c2000002")
            };
            let rounds = [
                (PROBES, vec![arp(2), arp(9)]),
                (PROBES | FrameKinds::SLOW, vec![slow(1), arp(2), slow(4), arp(9)]),
                (FrameKinds::SLOW, vec![slow(1), slow(4)]),
                (FrameKinds::ARP, vec![arp(2), arp(9)]),
            ];
            for (kinds, expected) in rounds {
                listener.listen_for(&kinds.into()).unwrap();
                assert_eq!(joined(), kinds.meets(FrameKinds::SLOW), "{kinds:?}");
                let mut elsewhere = slow(3);
                elsewhere[5] = 3;
                for frame in [slow(1), arp(2), elsewhere, tagged(0x8100, slow(4)), arp(9)] {
                    sender.send(near, &frame).unwrap();
                }
                let expected: Vec<_> = expected.iter().map(|frame| kept(frame)).collect();
                let last = expected.last().unwrap().clone();
                assert_eq!(hear_until(&mut listener, &last), expected, "{kinds:?}");
            }
        });
    }

    #[test]
    fn of_arp_only_what_two_groups_of_hosts_say_to_each_other_is_heard() {
        in_netns(|| {
            let (_links, sender, mut listener, [near, _]) = listening();
            let host = |number: u8| [10, 0, 0, number];
            let arp = |from: u8, to: u8| {
                let mut frame = arp(0);
                frame[28..32].copy_from_slice(&host(from));
                frame[38..42].copy_from_slice(&host(to));
                frame
            };
            let asked = [arp(1, 8), arp(8, 1), arp(2, 9), arp(9, 2)];
            let others = [
                arp(7, 8),
                arp(8, 7),
                arp(1, 2),
                arp(7, 1),
                arp(1, 7),
                arp(8, 9),
                arp(7, 7),
            ];
            let hosts = |numbers: &[u8]| numbers.iter().map(|number| host(*number).into()).collect();
            let mut many: Vec<u8> = (10..80).collect();
            many.extend([8, 9]);
            for (own, expected) in [
                (vec![8, 9], asked.to_vec()),
                (vec![8], asked[..2].to_vec()),
                // Too many to be told from others.
                (many, [&asked[..], &[arp(1, 2), arp(7, 1), arp(1, 7)]].concat()),
            ] {
                let wanted = WantedFrames {
                    kinds: FrameKinds::ARP | FrameKinds::IPV6,
                    arp_between: (hosts(&[1, 2]), hosts(&own)),
                };
                listener.listen_for(&wanted).unwrap();
                for frame in asked.iter().chain(&others).chain([&icmpv6(135)]) {
                    sender.send(near, frame).unwrap();
                }
                let mut expected: Vec<_> = expected.iter().map(|frame| kept(frame)).collect();
                expected.push(kept(&icmpv6(135)));
                assert_eq!(hear_until(&mut listener, &icmpv6(135)), expected, "{own:?}");
            }
        });
    }

    #[test]
    fn no_frame_of_a_wanted_kind_is_lost_while_the_kinds_change() {
        in_netns(|| {
            let (_links, sender, mut listener, [near, _]) = listening();
            let mut heard = Vec::new();
            std::thread::scope(|scope| {
                scope.spawn(|| (0..200).for_each(|number| sender.send(near, &arp(number)).unwrap()));
                for kinds in [PROBES | FrameKinds::SLOW, FrameKinds::ARP].into_iter().cycle() {
                    listener.listen_for(&kinds.into()).unwrap();
                    await_readable(&listener.socket);
                    listener.read(1, &mut heard).unwrap();
                    heard.retain(|frame| frame[12..14] == [8, 6]);
                    if heard.last() == Some(&kept(&arp(199))) {
                        break;
                    }
                }
            });
            let all: Vec<_> = (0..200).map(|number| kept(&arp(number))).collect();
            assert_eq!(heard, all);
        });
    }

    #[test]
    fn frames_are_heard_that_tc_drops() {
        in_netns(|| {
            let (_links, sender, mut listener, [near, far]) = listening();
            let behind_tc = open_socket().unwrap();
            bind(&behind_tc, far, (libc::ETH_P_ARP as u16).to_be()).unwrap();
            sender.send(near, &arp(1)).unwrap();
            assert_eq!(receive(&behind_tc), arp(1));
            run("tc", "qdisc add dev eth1 clsact");
            // Returns TC_ACT_SHOT for every frame.
            run("tc", "filter add dev eth1 ingress bpf da bytecode 1,6\t0\t0\t2");
            sender.send(near, &arp(2)).unwrap();
            sender.send(near, &arp(3)).unwrap();
            assert_eq!(
                hear_until(&mut listener, &arp(3)),
                [1, 2, 3].map(|number| kept(&arp(number)))
            );
            let mut buffer = [0; SNAP];
            // When the third frame arrives, the second one has passed.
            let heard = recv(behind_tc.as_raw_fd(), &mut buffer, MsgFlags::empty());
            assert_eq!(heard, Err(Errno::EAGAIN));
        });
    }

    #[test]
    fn an_interface_that_goes_down_is_heard_again_when_it_comes_up() {
        in_netns(|| {
            let (mut links, sender, mut listener, [near, far]) = listening();
            links.set_up(far, false).unwrap();
            let mut early = FrameSocket::open(far, PROBES).unwrap();
            let mut heard = Vec::new();
            for listener in [&mut listener, &mut early] {
                while listener.read(64, &mut heard).unwrap() == Drained::More {}
            }
            let mut events = Events::open().unwrap();
            links.set_up(far, true).unwrap();
            read_until(&mut events, |event| carrier_of(event, near) == Some(true));
            sender.send(near, &arp(1)).unwrap();
            for listener in [&mut listener, &mut early] {
                assert_eq!(hear_until(listener, &arp(1)), [kept(&arp(1))]);
            }
            links.delete(far).unwrap();
            for listener in [&mut listener, &mut early] {
                while listener.read(64, &mut heard).unwrap() == Drained::More {}
            }
        });
    }

    #[test]
    fn a_spent_budget_leaves_the_rest_for_the_next_call() {
        in_netns(|| {
            let (_links, sender, mut listener, [near, _]) = listening();
            for number in 1..=3 {
                sender.send(near, &arp(number)).unwrap();
            }
            let mut heard = Vec::new();
            await_readable(&listener.socket);
            assert_eq!(listener.read(1, &mut heard).unwrap(), Drained::More);
            assert_eq!(heard.len(), 1);
            hear_until(&mut listener, &arp(3));
            while listener.read(64, &mut heard).unwrap() == Drained::More {}
            assert_eq!(listener.read(1, &mut heard).unwrap(), Drained::Empty);
        });
    }

    #[test]
    fn an_ear_needs_an_interface() {
        in_netns(|| {
            let errno = |ifindex| {
                FrameSocket::open(ifindex, PROBES)
                    .err()
                    .and_then(|error| error.raw_os_error())
            };
            assert_eq!(errno(9999), Some(libc::ENODEV));
            assert_eq!(errno(0), Some(libc::ENXIO), "which would be all of them");
        });
    }

    const PROBES: FrameKinds = FrameKinds::ARP.or(FrameKinds::IPV6);

    /// A byte that distinguishes our ICMPv6 messages from the kernel's.
    const MARK: u8 = 0xa5;
}

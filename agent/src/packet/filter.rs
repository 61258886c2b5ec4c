//! Classic BPF filter of an [`FrameSocket`](super::FrameSocket).

use std::io;
use std::os::fd::OwnedFd;

use bond_monitors::FrameKinds;
use bond_monitors::frames::SLOW_GROUP;
use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter, sock_fprog};

use super::set_option;

/// Bytes kept of a frame: as many as any parser reads.
pub(super) const SNAP: usize = 128;

/// Attaches the program for these kinds and replaces the previous one: from now on only what it passes is queued. Queued frames
/// stay, and the socket is never without a program.
pub(super) fn attach(socket: &OwnedFd, kinds: FrameKinds) -> io::Result<()> {
    let mut program = program(kinds);
    let program = sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Passes arriving frames of these kinds, but no frames that this host sends or loops back. Offsets are those of a frame without
/// tag, because the kernel stores the outer tag separately. A frame that is too short for a load is dropped.
fn program(kinds: FrameKinds) -> Vec<sock_filter> {
    let mut program = ARRIVED.to_vec();
    let parts: [(FrameKinds, &[sock_filter]); 3] = [
        (FrameKinds::ARP, &ARP),
        (FrameKinds::SLOW, &SLOW),
        (FrameKinds::IPV6, &NEIGHBOUR_DISCOVERY),
    ];
    for (_, part) in parts.into_iter().filter(|(kind, _)| kinds.meets(*kind)) {
        program.extend_from_slice(part);
    }
    program.push(give(0));
    program
}

/// Drops frames that did not arrive. Every other part passes the frames of its kind and leaves the rest to the next part.
const ARRIVED: [sock_filter; 3] = [
    load(BPF_B, PACKET_TYPE),
    jump(BPF_JGT, libc::PACKET_OTHERHOST as u32, Over(0), Over(1)),
    give(0),
];

const ARP: [sock_filter; 3] = [
    load(BPF_H, ETHERTYPE),
    jump(BPF_JEQ, libc::ETH_P_ARP as u32, Over(0), Over(1)),
    give(SNAP as u32),
];

/// Slow protocols to their group address. [802.3 annex 57A]
const SLOW: [sock_filter; 7] = [
    load(BPF_H, ETHERTYPE),
    jump(BPF_JEQ, libc::ETH_P_SLOW as u32, Over(0), Over(5)),
    load(BPF_W, 0),
    jump(BPF_JEQ, number(&SLOW_GROUP.0, 0, 4), Over(0), Over(3)),
    load(BPF_H, 4),
    jump(BPF_JEQ, number(&SLOW_GROUP.0, 4, 6), Over(0), Over(1)),
    give(SNAP as u32),
];

/// ICMPv6 neighbour solicitations and advertisements directly behind the IPv6 header.
const NEIGHBOUR_DISCOVERY: [sock_filter; 8] = [
    load(BPF_H, ETHERTYPE),
    jump(BPF_JEQ, libc::ETH_P_IPV6 as u32, Over(0), Over(6)),
    load(BPF_B, ETHERNET_HEADER + 6),
    jump(BPF_JEQ, libc::IPPROTO_ICMPV6 as u32, Over(0), Over(4)),
    load(BPF_B, ETHERNET_HEADER + IPV6_HEADER),
    jump(BPF_JEQ, NEIGHBOUR_SOLICITATION, Over(1), Over(0)),
    jump(BPF_JEQ, NEIGHBOUR_ADVERTISEMENT, Over(0), Over(1)),
    give(SNAP as u32),
];

/// The bytes from `from` to before `to` as a number, as a load gives it.
const fn number(bytes: &[u8], from: usize, to: usize) -> u32 {
    let (mut number, mut at) = (0, from);
    while at < to {
        number = number << 8 | bytes[at] as u32;
        at += 1;
    }
    number
}

/// Number of instructions that a jump skips.
struct Over(u8);

const fn load(size: u32, offset: u32) -> sock_filter {
    instruction(BPF_LD | size | BPF_ABS, Over(0), Over(0), offset)
}

const fn jump(test: u32, than: u32, if_true: Over, if_false: Over) -> sock_filter {
    instruction(BPF_JMP | test | BPF_K, if_true, if_false, than)
}

/// Ends the program and keeps this number of bytes of the frame.
const fn give(bytes: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, Over(0), Over(0), bytes)
}

const fn instruction(code: u32, Over(jt): Over, Over(jf): Over, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

/// The offset at which a program reads the PACKET_ type of a frame.
const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;

const ETHERTYPE: u32 = 12;

const ETHERNET_HEADER: u32 = 14;

const IPV6_HEADER: u32 = 40;

/// ICMPv6 types. [RFC 4861 4.3, 4.4]
const NEIGHBOUR_SOLICITATION: u32 = 135;
const NEIGHBOUR_ADVERTISEMENT: u32 = 136;

//! Classic BPF filter of an [`Ear`](super::Ear).

use std::io;
use std::os::fd::OwnedFd;

use super::set_option;
use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, sock_filter, sock_fprog};

/// Bytes kept of a frame: as many as any parser reads.
pub(super) const SNAP: usize = 128;

/// Attaches [`PROGRAM`]: from now on only what it passes is queued.
pub(super) fn attach(socket: &OwnedFd) -> io::Result<()> {
    let program = sock_fprog {
        len: PROGRAM.len() as u16,
        // The kernel copies it and writes nothing.
        filter: PROGRAM.as_ptr().cast_mut(),
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Passes arriving ARP frames, and ICMPv6 neighbour solicitations and advertisements directly behind the IPv6 header, but no
/// frames that this host sends or loops back. Offsets are those of a frame without tag, because the kernel stores the outer tag
/// separately.
const PROGRAM: [sock_filter; 12] = [
    load(BPF_B, PACKET_TYPE),
    jump(BPF_JGT, libc::PACKET_OTHERHOST as u32, Over(9), Over(0)),
    load(BPF_H, 12),
    jump(BPF_JEQ, libc::ETH_P_ARP as u32, Over(6), Over(0)),
    jump(BPF_JEQ, libc::ETH_P_IPV6 as u32, Over(0), Over(6)),
    load(BPF_B, ETHERNET_HEADER + 6),
    jump(BPF_JEQ, libc::IPPROTO_ICMPV6 as u32, Over(0), Over(4)),
    load(BPF_B, ETHERNET_HEADER + IPV6_HEADER),
    jump(BPF_JEQ, NEIGHBOUR_SOLICITATION, Over(1), Over(0)),
    jump(BPF_JEQ, NEIGHBOUR_ADVERTISEMENT, Over(0), Over(1)),
    give(SNAP as u32),
    give(0),
];

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

const ETHERNET_HEADER: u32 = 14;

const IPV6_HEADER: u32 = 40;

/// ICMPv6 types. [RFC 4861 4.3, 4.4]
const NEIGHBOUR_SOLICITATION: u32 = 135;
const NEIGHBOUR_ADVERTISEMENT: u32 = 136;

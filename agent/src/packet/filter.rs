//! Classic BPF filter of an [`FrameSocket`](super::FrameSocket).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use bond_monitors::frames::SLOW_GROUP;
use bond_monitors::{FrameKinds, WantedFrames};
use libc::{
    BPF_ABS, BPF_B, BPF_H, BPF_JA, BPF_JEQ, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter, sock_fprog,
};

use super::set_option;

/// Bytes kept of a frame: as many as any parser reads.
pub(super) const SNAP: usize = 128;

/// Attaches the program for these frames and replaces the previous one: from now on only what it passes is queued. Queued frames
/// stay, and the socket is never without a program.
pub(super) fn attach(socket: &OwnedFd, wanted: &WantedFrames) -> io::Result<()> {
    let mut program = program(wanted);
    let program = sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Passes arriving frames that are wanted, but no frames that this host sends or loops back. Offsets are those of a frame without
/// tag, because the kernel stores the outer tag separately. A frame that is too short for a load is dropped.
fn program(wanted: &WantedFrames) -> Vec<sock_filter> {
    let mut program = ARRIVED.to_vec();
    let arp = arp(&wanted.arp_between);
    let parts: [(FrameKinds, &[sock_filter]); 3] = [
        (FrameKinds::ARP, &arp),
        (FrameKinds::SLOW, &SLOW),
        (FrameKinds::IPV6, &NEIGHBOUR_DISCOVERY),
    ];
    for (_, part) in parts.into_iter().filter(|(kind, _)| wanted.kinds.meets(*kind)) {
        program.extend_from_slice(part);
    }
    program.push(give(0));
    program
}

/// What these hosts say to each other. A storm of ARP among others then costs the agent nothing, and no answer is lost to it for lack
/// of room in the receive buffer.
fn arp((targets, own): &(Vec<Ipv4Addr>, Vec<Ipv4Addr>)) -> Vec<sock_filter> {
    let wanted = match targets.is_empty() {
        true => vec![PASS],
        false => [
            from_one_to_another((SENDER, targets), (TARGET, own)),
            from_one_to_another((TARGET, targets), (SENDER, own)),
        ]
        .concat(),
    };
    let mut part = vec![
        load(BPF_H, ETHERTYPE),
        jump(BPF_JEQ, libc::ETH_P_ARP as u32, Over(1), Over(0)),
        skip(wanted.len()),
    ];
    part.extend(wanted);
    part
}

/// Passes frames with one of the first addresses at their place and one of the second ones at theirs.
fn from_one_to_another(first: (u32, &[Ipv4Addr]), second: (u32, &[Ipv4Addr])) -> Vec<sock_filter> {
    let second = match second.1.len() <= MOST_ADDRESSES {
        true => only_with(second, &[PASS]),
        false => vec![PASS],
    };
    only_with(first, &second)
}

/// Does this with frames that have one of the addresses at this place.
fn only_with((place, addresses): (u32, &[Ipv4Addr]), then: &[sock_filter]) -> Vec<sock_filter> {
    let mut part = vec![load(BPF_W, place)];
    // Over the other comparisons, and the skip behind them.
    let over = (1..=addresses.len()).rev();
    part.extend(
        addresses
            .iter()
            .zip(over)
            .map(|(address, over)| jump(BPF_JEQ, (*address).into(), Over(over as u8), Over(0))),
    );
    part.push(skip(then.len()));
    part.extend(then);
    part
}

/// Drops frames that did not arrive. Every other part passes the frames of its kind and leaves the rest to the next part.
const ARRIVED: [sock_filter; 3] = [
    load(BPF_B, PACKET_TYPE),
    jump(BPF_JGT, libc::PACKET_OTHERHOST as u32, Over(0), Over(1)),
    give(0),
];

const PASS: sock_filter = give(SNAP as u32);

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

/// Skips this number of instructions.
const fn skip(instructions: usize) -> sock_filter {
    instruction(BPF_JMP | BPF_JA, Over(0), Over(0), instructions as u32)
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

/// Protocol addresses of ARP for IPv4. [RFC 826]
const SENDER: u32 = ETHERNET_HEADER + 14;
const TARGET: u32 = ETHERNET_HEADER + 24;

/// A host with more of its own is not told from others: a jump is no longer than 255 instructions.
const MOST_ADDRESSES: usize = 64;

/// ICMPv6 types. [RFC 4861 4.3, 4.4]
const NEIGHBOUR_SOLICITATION: u32 = 135;
const NEIGHBOUR_ADVERTISEMENT: u32 = 136;

//! Programs for the team driver's option `bpf_hash_func` that choose ports as the bonding driver's xmit_hash_policy does.
//!
//! A program computes the whole of `hash % ports`. The driver mixes the four bytes of the result into one, which leaves a number
//! below 256 as it is, and takes that as the index of a port or of a cell of `lb_tx_hash_to_port_mapping`.
//! [team_mode_loadbalance.c: lb_get_skb_hash, lb_transmit] The arithmetic is that of [`bond_modes::hash`], which is the oracle of
//! the tests; words are little-endian on every host, as there.
//!
//! Exact for layer2, layer2+3, layer3+4 and vlan+srcmac, for every frame. Not expressible are encap2+3 and encap3+4: they walk
//! through up to 15 headers of any mix of kinds, and a program that cannot loop would have to contain each of them 15 times.
//!
//! What a program reads is what bonding reads of the same packet: the EtherType of the packet decides whether it is IP, a tag
//! outside the bytes counts only for vlan+srcmac, and the length is that of the packet, wherever a driver put its pages.
//! differs: the network header is taken to be behind 14 bytes; bonding asks the packet. The two are the same for whatever the
//! stack, a VLAN device, a bridge or a packet socket sends as IP.

use bond_modes::XmitHashPolicy;
use bond_modes::hash::ETHERNET_HEADER;
use libc::{BPF_ADD, BPF_AND, BPF_B, BPF_H, BPF_LSH, BPF_MOD, BPF_OR, BPF_RSH, BPF_W, BPF_XOR};

use self::assembler::{Assembler, Cell, Label};

mod assembler;
#[cfg(test)]
mod tests;

pub use self::assembler::SockFilter;

/// A program that returns `hash % ports`, for 1 to 255 ports. None for more, for none, and for a policy that classic BPF cannot
/// compute exactly.
///
/// It has at most [`MAX_INSTRUCTIONS`] and passes the kernel's checks.
pub fn program(policy: XmitHashPolicy, ports: u32) -> Option<Vec<SockFilter>> {
    use XmitHashPolicy::{Encap23, Encap34, Layer2, Layer23, Layer34, VlanSrcmac};
    if !(1..=MAX_PORTS).contains(&ports) {
        return None;
    }
    let mut code = Assembler::default();
    match policy {
        Layer2 => ethernet_word(&mut code),
        Layer23 => FlowHash::new(&mut code, false).emit(),
        Layer34 => FlowHash::new(&mut code, true).emit(),
        VlanSrcmac => vlan_srcmac_word(&mut code),
        Encap23 | Encap34 => return None,
    }
    code.alu(BPF_MOD, ports);
    code.finish();
    Some(code.assemble())
}

/// The policy and number of ports for which [`program`] makes this program; none for a program of other origin, be it another
/// version of ours.
pub fn recognise(program: &[SockFilter]) -> Option<(XmitHashPolicy, u32)> {
    // Every program ends so.
    let [.., modulo, _finish] = program else { return None };
    let ports = modulo.k;
    let mut policies = XmitHashPolicy::VALUES.iter().map(|(policy, ..)| *policy);
    let policy = policies.find(|policy| self::program(*policy, ports).is_some_and(|ours| ours == program))?;
    Some((policy, ports))
}

/// Longest program that the driver can still report: a longer one breaks every later reading of the team's options.
pub const MAX_INSTRUCTIONS: usize = 460;

/// Most ports whose index, folded, stays what it is.
const MAX_PORTS: u32 = 255;

/// A = E. [bond_main.c: bond_eth_hash]
fn ethernet_word(code: &mut Assembler) {
    code.load(BPF_B, 5);
    code.copy_to_x();
    code.load(BPF_B, 11);
    code.alu_x(BPF_XOR);
    code.copy_to_x();
    code.load(BPF_H, 12);
    code.alu_x(BPF_XOR);
}

/// A = the tag and both halves of the source address. [bond_main.c: bond_vlan_srcmac_hash]
fn vlan_srcmac_word(code: &mut Assembler) {
    let untagged = code.label();
    // A frame without a whole Ethernet header ends here, with 0 as in the driver.
    code.load(BPF_H, 12);
    code.about(libc::SKF_AD_VLAN_TAG_PRESENT);
    code.jump_if(0, untagged);
    code.about(libc::SKF_AD_VLAN_TAG);
    code.place(untagged);
    code.store(FIRST);
    code.load(BPF_W, 6);
    code.alu(BPF_RSH, 8);
    code.copy_to_x();
    code.load(BPF_W, 8);
    code.alu(BPF_AND, 0x00ff_ffff);
    code.alu_x(BPF_XOR);
    code.recall_x(FIRST);
    code.alu_x(BPF_XOR);
}

/// layer2+3 and layer3+4: IP directly behind the Ethernet header, no extension headers; an ICMP error counts as the packet that
/// it quotes. [bond_main.c: bond_flow_dissect]
struct FlowHash<'a> {
    code: &'a mut Assembler,
    /// Whether ports, SPI and ICMP id count, and not E.
    to_ports: bool,
    /// No IP header that can be read: E is the hash.
    ethernet: Label,
    /// All that counts is in [`MIXED`] and [`FIRST`].
    found: Label,
}

impl<'a> FlowHash<'a> {
    fn new(code: &'a mut Assembler, to_ports: bool) -> Self {
        let (ethernet, found) = (code.label(), code.label());
        FlowHash {
            code,
            to_ports,
            ethernet,
            found,
        }
    }

    /// A = the hash.
    fn emit(mut self) {
        let (quoted, ports, hashed) = (self.code.label(), self.code.label(), self.code.label());
        ethernet_word(self.code);
        self.code.store(ETHER);
        if self.to_ports {
            self.code.number(0);
        }
        self.code.store(FIRST);
        self.code.number(ETHERNET_HEADER as u32);
        self.code.store(AT);
        self.ip_header();
        self.icmp(quoted, ports);

        self.code.place(quoted);
        self.advance(ICMP_HEADER);
        self.ip_header();
        self.code.jump(ports);

        self.code.place(self.ethernet);
        self.code.recall(ETHER);
        self.code.jump(hashed);

        self.code.place(ports);
        if self.to_ports {
            self.ports();
        }
        self.code.place(self.found);
        self.fold();
        self.code.place(hashed);
    }

    /// Takes the addresses and the protocol of the IP header at [`AT`] and steps behind it. Goes on at `ethernet` if it is not
    /// whole, and at `found` behind a fragment, whatever is in it. [bond_main.c: bond_flow_ip]
    fn ip_header(&mut self) {
        let (not_ipv4, done) = (self.code.label(), self.code.label());
        self.code.about(libc::SKF_AD_PROTOCOL);
        self.code.jump_unless(libc::ETH_P_IP as u16, not_ipv4);
        self.require(IPV4_HEADER, self.ethernet);
        self.mix(&[12, 16]);
        self.code.recall_x(AT);
        self.code.load_behind(BPF_H, 6);
        self.code.jump_if_any(FRAGMENT_BITS, self.found);
        self.code.load_behind(BPF_B, 9);
        self.code.store(PROTOCOL);
        // Its length, in words.
        self.code.load_behind(BPF_B, 0);
        self.code.alu(BPF_AND, 15);
        self.code.alu(BPF_LSH, 2);
        self.code.alu_x(BPF_ADD);
        self.code.store(AT);
        self.code.jump(done);

        self.code.place(not_ipv4);
        self.code.jump_unless(libc::ETH_P_IPV6 as u16, self.ethernet);
        self.require(IPV6_HEADER, self.ethernet);
        self.mix(&[8, 12, 16, 20, 24, 28, 32, 36]);
        self.code.recall_x(AT);
        self.code.load_behind(BPF_B, 6);
        self.code.store(PROTOCOL);
        self.advance(IPV6_HEADER);
        self.code.place(done);
    }

    /// Sends ICMP errors to `quoted` and what is no ICMP to `ports`; takes the id of other ICMP messages if ports count.
    fn icmp(&mut self, quoted: Label, ports: Label) {
        let (version4, version6, no_error) = (self.code.label(), self.code.label(), self.code.label());
        self.code.recall(PROTOCOL);
        self.code.jump_if(libc::IPPROTO_ICMP as u8, version4);
        self.code.jump_if(libc::IPPROTO_ICMPV6 as u8, version6);
        self.code.jump(ports);
        for (version, errors) in [(version4, ERRORS_OF_ICMP), (version6, ERRORS_OF_ICMP6)] {
            self.code.place(version);
            self.require(ICMP_HEADER, self.found);
            self.code.load_behind(BPF_B, 0);
            for kind in errors {
                self.code.jump_if(*kind, quoted);
            }
            self.code.jump(no_error);
        }
        self.code.place(no_error);
        if self.to_ports {
            self.icmp_id();
        }
        self.code.jump(self.found);
    }

    /// First word = type, code and id of an ICMP message that has one; A is its type and X where it starts.
    /// [flow_dissector.c: skb_flow_get_icmp_tci]
    fn icmp_id(&mut self) {
        let (has_id, not_zero) = (self.code.label(), self.code.label());
        for kind in ICMP_WITH_ID {
            self.code.jump_if(kind, has_id);
        }
        self.code.jump(self.found);
        self.code.place(has_id);
        self.code.store(FIRST);
        self.code.load_behind(BPF_B, 1);
        self.code.alu(BPF_LSH, 8);
        self.add_to_first();
        self.code.recall_x(AT);
        self.code.load_behind(BPF_H, 4);
        self.code.jump_unless(0, not_zero);
        self.code.number(1);
        self.code.place(not_zero);
        self.code.alu(BPF_LSH, 16);
        self.add_to_first();
    }

    /// First word = first word with the bits of A.
    fn add_to_first(&mut self) {
        self.code.recall_x(FIRST);
        self.code.alu_x(BPF_OR);
        self.code.store(FIRST);
    }

    /// Mixes in the ports or the SPI at [`AT`], if the protocol has such a thing. [ip.h: proto_ports_offset]
    fn ports(&mut self) {
        let present = self.code.label();
        self.code.recall(PROTOCOL);
        for protocol in WITH_PORTS {
            self.code.jump_if(protocol, present);
        }
        self.code.jump_unless(libc::IPPROTO_AH as u16, self.found);
        self.advance(SPI_IN_AH);
        self.code.place(present);
        self.require(PORTS, self.found);
        self.code.load_behind(BPF_W, 0);
        self.code.recall_x(MIXED);
        self.code.alu_x(BPF_XOR);
        self.code.store(MIXED);
    }

    /// Goes on at `otherwise` unless the frame has this many bytes from [`AT`] on. X is then there.
    fn require(&mut self, bytes: u32, otherwise: Label) {
        self.code.recall(AT);
        self.code.alu(BPF_ADD, bytes);
        self.code.copy_to_x();
        self.code.length();
        self.code.jump_if_less(otherwise);
        self.code.recall_x(AT);
    }

    /// Mixed = these words behind [`AT`].
    fn mix(&mut self, offsets: &[u32]) {
        for (number, offset) in offsets.iter().enumerate() {
            self.code.recall_x(AT);
            self.code.load_behind(BPF_W, *offset);
            if number > 0 {
                self.code.recall_x(MIXED);
                self.code.alu_x(BPF_XOR);
            }
            self.code.store(MIXED);
        }
    }

    fn advance(&mut self, bytes: u32) {
        self.code.recall(AT);
        self.code.alu(BPF_ADD, bytes);
        self.code.store(AT);
    }

    /// A = the hash out of both words. [bond_main.c: bond_ip_hash]
    fn fold(&mut self) {
        self.swap_mixed();
        self.code.recall_x(FIRST);
        self.code.alu_x(BPF_XOR);
        for half in [16, 8] {
            self.code.store(SCRATCH);
            self.code.alu(BPF_RSH, half);
            self.code.recall_x(SCRATCH);
            self.code.alu_x(BPF_XOR);
        }
        if self.to_ports {
            self.code.alu(BPF_RSH, 1);
        }
    }

    /// A = the mixed words as a little-endian host reads them: halves swapped, then the bytes in them.
    fn swap_mixed(&mut self) {
        self.code.recall(MIXED);
        self.code.alu(BPF_LSH, 16);
        self.code.copy_to_x();
        self.code.recall(MIXED);
        self.code.alu(BPF_RSH, 16);
        self.code.alu_x(BPF_OR);
        self.code.store(SCRATCH);
        self.code.alu(BPF_AND, 0x00ff_00ff);
        self.code.alu(BPF_LSH, 8);
        self.code.copy_to_x();
        self.code.recall(SCRATCH);
        self.code.alu(BPF_RSH, 8);
        self.code.alu(BPF_AND, 0x00ff_00ff);
        self.code.alu_x(BPF_OR);
    }
}

/// E.
const ETHER: Cell = Cell(0);
/// What the mixed words are mixed with in the end, little-endian: E, an ICMP id, or nothing.
const FIRST: Cell = Cell(1);
/// Addresses, and ports if they count, in network order.
const MIXED: Cell = Cell(2);
/// Where in the frame the next header starts.
const AT: Cell = Cell(3);
/// IP protocol of the next header.
const PROTOCOL: Cell = Cell(4);
const SCRATCH: Cell = Cell(5);

const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const ICMP_HEADER: u32 = 8;
const PORTS: u32 = 4;
const SPI_IN_AH: u32 = 4;

/// "More fragments" and the offset.
const FRAGMENT_BITS: u16 = 0x3fff;

/// TCP, UDP, DCCP, ESP, SCTP, UDP-Lite: ports, or an SPI, come first. [ip.h: proto_ports_offset]
const WITH_PORTS: [u8; 6] = [6, 17, 33, 50, 132, 136];
/// Echo, timestamp and their replies; echo and its reply of version 6. Either version may use any of them.
/// [flow_dissector.c: icmp_has_id]
const ICMP_WITH_ID: [u8; 6] = [8, 0, 13, 14, 128, 129];
/// [icmp.h: icmp_is_err]
const ERRORS_OF_ICMP: &[u8] = &[3, 4, 5, 11, 12];
/// [icmpv6.h: icmpv6_is_err]
const ERRORS_OF_ICMP6: &[u8] = &[1, 2, 3, 4];

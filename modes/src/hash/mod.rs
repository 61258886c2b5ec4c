//! The transmit hash: which port a frame takes in balance-xor.
//!
//! The port is `ports[hash % ports.len()]` of the usable ports in the order of attaching. This module computes what the
//! kernel's driver computes, on a whole Ethernet frame; it is the oracle for the BPF program and explains itself for
//! `bondctl hash`. Addresses and ports are mixed as little-endian words whatever the host, so a flow takes the same port
//! on every machine; the driver does the same on little-endian hosts.
//!
//! differs: a layer-4 hash that the kernel stored with a packet (random per TCP connection, encap3+4 only) is not
//! visible in a frame and never counts.

use bond_monitors::MacAddr;

mod dissect;
mod explain;
mod flow;
mod layers;
mod policy;

pub use explain::{Explanation, Source};
pub use flow::{FIELDS, FlowError, FlowSpec};
pub use layers::{Addresses, ETHERNET_HEADER, Layer4};
pub use policy::XmitHashPolicy;

use layers::{be16, part};

/// The hash of a frame; `frame` starts at the destination MAC address. [bond_main.c: bond_xmit_hash]
///
/// `tci` is the VLAN tag that travels outside the bytes. Without one, a tag that the bytes start with is lifted out first,
/// as the kernel does for every frame that crosses the bond: so a whole frame hashes like the same frame of a VLAN device.
pub fn hash(policy: XmitHashPolicy, frame: &[u8], tci: Option<u16>) -> u32 {
    explain(policy, frame, tci).hash
}

/// The hash of a frame whose tags stay where they are and whose network header is believed to start at `nhoff`.
///
/// The driver asks the kernel for that offset. It is [`ETHERNET_HEADER`], but for a frame that was sent with tags inside its
/// bytes it lies behind them, although the EtherType read is the outer one: the encap policies then parse the wrong bytes.
pub fn hash_at(policy: XmitHashPolicy, frame: &[u8], tci: Option<u16>, nhoff: usize) -> u32 {
    work(policy, &FrameView::at(frame, tci, nhoff)).hash
}

/// Explains the value of [`hash`].
pub fn explain(policy: XmitHashPolicy, frame: &[u8], tci: Option<u16>) -> Explanation {
    let view = match tci {
        Some(_) => FrameView::at(frame, tci, ETHERNET_HEADER),
        None => FrameView::untagged(frame).unwrap_or_else(|| FrameView::at(frame, None, ETHERNET_HEADER)),
    };
    work(policy, &view)
}

/// A frame as read by the driver.
struct FrameView<'a> {
    bytes: &'a [u8],
    tci: Option<u16>,
    /// Destination address, source address and EtherType; none if the frame is too short for them.
    ethernet: Option<(MacAddr, MacAddr, u16)>,
    /// Where the network header is believed to start.
    nhoff: usize,
}

impl<'a> FrameView<'a> {
    fn at(bytes: &'a [u8], tci: Option<u16>, nhoff: usize) -> Self {
        FrameView {
            bytes,
            tci,
            ethernet: ethernet(bytes, 12),
            // All offsets behind the end are the same, and sums with this one cannot overflow.
            nhoff: nhoff.min(bytes.len()),
        }
    }

    /// With the outermost tag lifted out of the bytes, if there is one. [skbuff.c: skb_vlan_untag]
    fn untagged(bytes: &'a [u8]) -> Option<Self> {
        if !matches!(be16(bytes, 12)?, layers::VLAN | layers::SERVICE_VLAN) {
            return None;
        }
        Some(FrameView {
            bytes,
            tci: Some(be16(bytes, 14)?),
            ethernet: Some(ethernet(bytes, 16)?),
            nhoff: ETHERNET_HEADER + layers::VLAN_HEADER,
        })
    }
}

fn ethernet(bytes: &[u8], ethertype_at: usize) -> Option<(MacAddr, MacAddr, u16)> {
    Some((
        MacAddr(part(bytes, 0)?),
        MacAddr(part(bytes, 6)?),
        be16(bytes, ethertype_at)?,
    ))
}

/// One policy on one frame. [bond_main.c: __bond_xmit_hash]
fn work(policy: XmitHashPolicy, view: &FrameView<'_>) -> Explanation {
    use XmitHashPolicy::{Encap23, Encap34, Layer2, Layer23, Layer34, VlanSrcmac};
    let Some((destination, source, ethertype)) = view.ethernet else {
        return Explanation::too_short(policy, view.tci);
    };
    let found = match policy {
        Layer2 | VlanSrcmac => None,
        Layer23 | Layer34 => dissect::shallow(view.bytes, ethertype, view.nhoff),
        Encap23 | Encap34 => dissect::deep(view.bytes, ethertype, view.nhoff),
    };
    let mut sum = Explanation {
        policy,
        source_mac: source,
        destination_mac: destination,
        ethertype,
        tci: view.tci,
        uses: Source::Ethernet,
        addresses: None,
        layer4: Layer4::Nothing,
        first_word: ethernet_word(destination, source, ethertype),
        address_word: 0,
        folded: None,
        hash: 0,
    };
    let Some(flow) = found else {
        if policy == VlanSrcmac {
            sum.uses = Source::VlanSrcmac;
            sum.first_word = vlan_srcmac_word(source, view.tci);
        }
        sum.hash = sum.first_word;
        return sum;
    };
    sum.addresses = flow.addresses;
    sum.address_word = flow.addresses.map_or(0, |addresses| addresses.word());
    let to_ports = matches!(policy, Layer34 | Encap34);
    if to_ports {
        sum.uses = Source::Layer34;
        sum.layer4 = flow.layer4;
        sum.first_word = flow.layer4.word();
    } else {
        sum.uses = Source::Layer23;
    }
    let folded = fold(sum.first_word ^ sum.address_word);
    sum.folded = Some(folded);
    // Ports are often even: the lowest bit says little. [bond_main.c: bond_ip_hash]
    sum.hash = if to_ports { folded >> 1 } else { folded };
    sum
}

/// The last bytes of the MAC addresses and the EtherType as a number. [bond_main.c: bond_eth_hash]
fn ethernet_word(destination: MacAddr, source: MacAddr, ethertype: u16) -> u32 {
    u32::from(u16::from(destination.0[5] ^ source.0[5]) ^ ethertype)
}

/// The whole tag, priority too, and the halves of the source address. [bond_main.c: bond_vlan_srcmac_hash]
fn vlan_srcmac_word(source: MacAddr, tci: Option<u16>) -> u32 {
    let [a, b, c, d, e, f] = source.0;
    u32::from_be_bytes([0, a, b, c]) ^ u32::from_be_bytes([0, d, e, f]) ^ u32::from(tci.unwrap_or(0))
}

/// Brings every byte into the lowest one. [bond_main.c: bond_ip_hash]
fn fold(word: u32) -> u32 {
    let halves = word ^ (word >> 16);
    halves ^ (halves >> 8)
}

#[cfg(test)]
mod tests;

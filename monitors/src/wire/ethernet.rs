//! Ethernet II headers, with an optional 802.1Q tag.

use super::mac::MacAddr;

/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;

/// What stands before the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Receiver.
    pub destination: MacAddr,
    /// Sender.
    pub source: MacAddr,
    /// VLAN id, 0 to 4094, with priority 0.
    pub vlan: Option<u16>,
    /// What the payload is.
    pub ethertype: u16,
}

impl Header {
    /// Appends 14 bytes, or 18 with a tag.
    pub fn emit(&self, frame: &mut Vec<u8>) {
        frame.extend_from_slice(&self.destination.0);
        frame.extend_from_slice(&self.source.0);
        if let Some(id) = self.vlan {
            frame.extend_from_slice(&VLAN.to_be_bytes());
            frame.extend_from_slice(&(id & 0x0fff).to_be_bytes());
        }
        frame.extend_from_slice(&self.ethertype.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_stands_between_addresses_and_ethertype() {
        let mut header =
            Header { destination: MacAddr::BROADCAST, source: MacAddr([2, 0, 0, 0, 0, 1]), vlan: None, ethertype: ARP };
        let mut plain = Vec::new();
        header.emit(&mut plain);
        assert_eq!(plain, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6]);
        header.vlan = Some(100);
        let mut tagged = Vec::new();
        header.emit(&mut tagged);
        assert_eq!(tagged[12..], [0x81, 0, 0, 100, 8, 6]);
    }
}

//! Ethernet addresses.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A 48-bit Ethernet address; text form `02:00:00:00:00:01`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// Where frames to an IPv4 group go: 01:00:5e and its lowest 23 bits. [RFC 1112 6.4]
    pub fn ipv4_group(group: Ipv4Addr) -> MacAddr {
        let [_, high, middle, low] = group.octets();
        MacAddr([1, 0, 0x5e, high & 0x7f, middle, low])
    }

    /// Where frames to an IPv6 group go: 33:33 and its lowest 32 bits. [RFC 2464 7]
    pub fn ipv6_group(group: Ipv6Addr) -> MacAddr {
        let [.., a, b, c, d] = group.octets();
        MacAddr([0x33, 0x33, a, b, c, d])
    }

    /// Whether a device may have it: neither a group address nor all zero. [etherdevice.h: is_valid_ether_addr]
    pub fn is_valid_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six hexadecimal bytes joined by colons.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address, expected six hexadecimal bytes such as 02:00:00:00:00:01")]
pub struct BadMac(String);

impl FromStr for MacAddr {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bad = || BadMac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| (1..=2).contains(&p.len())).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            Err(bad())
        } else {
            Ok(MacAddr(bytes))
        }
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}

impl TryFrom<String> for MacAddr {
    type Error = BadMac;

    fn try_from(text: String) -> Result<Self, BadMac> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_goes_both_ways() {
        let mac = MacAddr([2, 0, 0, 0, 0xab, 1]);
        assert_eq!(mac.to_string(), "02:00:00:00:ab:01");
        assert_eq!("2:0:0:0:AB:1".parse(), Ok(mac));
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "02:00:00:00:00:g1",
            "020:0:0:0:0:0",
            ":::::",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn groups_keep_the_lowest_bits_of_their_address() {
        let ipv4 = MacAddr::ipv4_group(Ipv4Addr::new(239, 255, 2, 3));
        assert_eq!(ipv4.to_string(), "01:00:5e:7f:02:03");
        let ipv6 = MacAddr::ipv6_group("ff15::1234:5678:9abc".parse().unwrap());
        assert_eq!(ipv6.to_string(), "33:33:56:78:9a:bc");
    }

    #[test]
    fn group_and_zero_addresses_are_no_device_addresses() {
        assert!(!MacAddr::BROADCAST.is_valid_unicast());
        assert!(!MacAddr::default().is_valid_unicast());
        assert!(MacAddr([2, 0, 0, 0, 0, 1]).is_valid_unicast());
    }
}

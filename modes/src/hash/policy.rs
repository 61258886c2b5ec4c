//! The hash policies by name and number.

use crate::named::named;

named! {
    /// Fields that balance-xor hashes to choose a port. [bonding.rst: xmit_hash_policy]
    XmitHashPolicy {
        /// MAC addresses and EtherType.
        Layer2 = "layer2" 0,
        /// IP addresses and ports.
        Layer34 = "layer3+4" 1,
        /// MAC and IP addresses.
        Layer23 = "layer2+3" 2,
        /// As layer2+3, of the innermost headers of a tunnel.
        Encap23 = "encap2+3" 3,
        /// As layer3+4, of the innermost headers of a tunnel.
        Encap34 = "encap3+4" 4,
        /// VLAN tag and source MAC address.
        VlanSrcmac = "vlan+srcmac" 5,
    }
}

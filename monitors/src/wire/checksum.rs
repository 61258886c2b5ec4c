//! The checksum of IPv4, IGMP and ICMPv6. [RFC 1071]

/// Checksum of up to 64 KiB, their checksum field being zero; of bytes whose field is filled in it is zero.
pub(super) fn internet(bytes: impl IntoIterator<Item = u8>) -> u16 {
    let word = |(at, byte)| u32::from(byte) << if at % 2 == 0 { 8 } else { 0 };
    let sum: u32 = bytes.into_iter().enumerate().map(word).sum();
    // Carries go round to the lowest bit; the second fold takes the carry of the first.
    let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
    !(fold(fold(sum)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_standards_example() {
        // [RFC 1071 3]: the words add up to 0xddf2.
        assert_eq!(internet([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn a_last_odd_byte_counts_as_the_high_half_of_a_word() {
        assert_eq!(internet([0x12, 0x34, 0x56]), internet([0x12, 0x34, 0x56, 0]));
    }

    #[test]
    fn the_most_carries_there_can_be_are_taken_round() {
        assert_eq!(internet([0xff; 0x1_0000]), 0);
        assert_eq!(internet([]), 0xffff);
    }
}

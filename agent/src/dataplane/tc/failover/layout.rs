//! The maps that `carrier_off` reads: an interface between versions of bondd, as their pins outlive an agent. A change of it takes
//! another [`FOLDER`].

use aya::Pod;

/// `struct port_key` of carrier_off.bpf.c.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortKey {
    /// Cookie of the network namespace.
    pub netns: u64,
    /// Index of the interface.
    pub ifindex: u32,
    /// Fills the last word.
    pub unused: u32,
}

// SAFETY: integers without padding; every bit pattern is a value.
unsafe impl Pod for PortKey {}

/// `struct rule` of carrier_off.bpf.c.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Slot in the map `rules` of the bond.
    pub slot: u32,
    /// What is to be there.
    pub value: u32,
}

/// `struct armed` of carrier_off.bpf.c.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Armed {
    /// Index of the port.
    pub ifindex: u32,
    /// Index of the bond.
    pub bond: u32,
    /// Of what is prepared, if this is part of it.
    pub number: u32,
    /// Number of the [`Way`](super::super::object::Way) whose selector moves.
    pub program: u32,
    /// That selector as it was.
    pub expected: u32,
    /// As it is to be; 0 if nothing is prepared for this port.
    pub selector: u32,
    /// How many rules change.
    pub rules: u32,
    /// These.
    pub rule: [Rule; MOST_RULES],
    /// Of all before: see [`Armed::sealed`].
    pub sum: u32,
}

impl Armed {
    /// With its sum: the program acts on no other value.
    pub fn sealed(self) -> Armed {
        Armed {
            sum: self.sum_of(),
            ..self
        }
    }

    /// [carrier_off.bpf.c: sum_of]
    fn sum_of(&self) -> u32 {
        let Armed {
            ifindex,
            bond,
            number,
            program,
            expected,
            selector,
            rules,
            rule,
            sum: _,
        } = *self;
        let rule = rule.into_iter().flat_map(|rule| [rule.slot, rule.value]);
        let words = [ifindex, bond, number, program, expected, selector, rules].into_iter();
        words
            .chain(rule)
            .fold(0, |sum: u32, word| sum.wrapping_add(word).wrapping_mul(SUM_FACTOR))
    }
}

// SAFETY: integers without padding; every bit pattern is a value.
unsafe impl Pod for Armed {}

/// `struct loss` of carrier_off.bpf.c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub at: u64,
    /// Index of the bond.
    pub bond: u32,
    /// The port.
    pub ifindex: u32,
    /// Its traffic was moved.
    pub failed_over: bool,
}

impl Loss {
    /// From a note; `None` if it is none.
    pub fn read(bytes: &[u8]) -> Option<Loss> {
        let (at, words) = bytes.split_first_chunk()?;
        let words: &[u8; 16] = words.try_into().ok()?;
        let word = |at: usize| u32::from_ne_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]]);
        Some(Loss {
            at: u64::from_ne_bytes(*at),
            bond: word(0),
            ifindex: word(4),
            failed_over: word(8) != 0,
        })
    }
}

/// Rules that can change with one failover. [carrier_off.bpf.c: MOST_RULES]
pub const MOST_RULES: usize = 4;

/// [carrier_off.bpf.c: SUM_FACTOR]
const SUM_FACTOR: u32 = 0x0100_0193;

/// Key in a bond's map `transmit` of the losses that are counted. [selector.bpf.h: TX_LOSSES]
pub const LOSSES_COUNTED: u32 = 14;
/// Key there of what is in force. [selector.bpf.h: TX_PREPARED]
pub const PREPARED: u32 = 15;

/// Name of the map of the ports of all bonds.
pub const ARMED: &str = "armed";
/// Name of the map with the map `transmit` of each bond.
pub const TRANSMITS: &str = "transmits";
/// Name of the map with the map `rules` of each bond.
pub const RULES_OF: &str = "rules_of";
/// Name of the ring of notes.
pub const LOSSES: &str = "losses";
/// Name of the map with the count of notes that had no room there.
pub const MISSED: &str = "missed";
/// All of them.
pub const MAPS: [&str; 5] = [ARMED, TRANSMITS, RULES_OF, LOSSES, MISSED];
/// The folder of their pins, beside those of the bonds of a network namespace; the number is the version of the layout.
pub const FOLDER: &str = "failover3";
/// How the name of any such folder begins.
pub const FOLDERS: &str = "failover";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_whole_or_not_at_all() {
        let mut bytes = 77u64.to_ne_bytes().to_vec();
        bytes.extend([3u32, 5, 1, 0].into_iter().flat_map(u32::to_ne_bytes));
        let loss = Loss {
            at: 77,
            bond: 3,
            ifindex: 5,
            failed_over: true,
        };
        assert_eq!(Loss::read(&bytes), Some(loss));
        for length in 0..bytes.len() {
            assert_eq!(Loss::read(&bytes[..length]), None);
        }
    }
}

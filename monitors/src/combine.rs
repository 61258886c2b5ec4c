//! Combines several verdicts about one port.

use crate::monitor::Verdict;

/// Rule of combination. Monitors without a verdict are left out. Bonds use [`Combine::All`]; no option asks for the others yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Combine {
    /// Down if one says down.
    #[default]
    All,
    /// Down if all with a verdict say down.
    Any,
    /// Up while at least this number says up, or all with a verdict if those are fewer.
    Quorum(u8),
}

impl Combine {
    /// The combined verdict; unknown if no monitor has one.
    pub fn verdict(self, of: impl Iterator<Item = Verdict>) -> Verdict {
        let (mut up, mut known) = (0, 0);
        for verdict in of.filter(|verdict| *verdict != Verdict::Unknown) {
            known += 1;
            up += u32::from(verdict == Verdict::Up);
        }
        let needed = match self {
            Combine::All => known,
            Combine::Any => 1,
            Combine::Quorum(count) => u32::from(count).min(known),
        };
        match known {
            0 => Verdict::Unknown,
            _ if up >= needed => Verdict::Up,
            _ => Verdict::Down,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Down, Unknown, Up};
    use super::*;

    fn verdict(combine: Combine, of: &[Verdict]) -> Verdict {
        combine.verdict(of.iter().copied())
    }

    #[test]
    fn all_any_and_quorum_need_all_one_or_so_many() {
        let two_of_three = [Up, Down, Up];
        assert_eq!(verdict(Combine::All, &two_of_three), Down);
        assert_eq!(verdict(Combine::Any, &two_of_three), Up);
        assert_eq!(verdict(Combine::Quorum(2), &two_of_three), Up);
        assert_eq!(verdict(Combine::Quorum(3), &two_of_three), Down);
        assert_eq!(verdict(Combine::Any, &[Down, Down]), Down);
        assert_eq!(verdict(Combine::All, &[Up, Up]), Up);
    }

    #[test]
    fn who_does_not_know_is_left_out() {
        assert_eq!(verdict(Combine::All, &[Up, Unknown]), Up);
        assert_eq!(verdict(Combine::Any, &[Down, Unknown]), Down);
        for combine in [Combine::All, Combine::Any, Combine::Quorum(1)] {
            assert_eq!(verdict(combine, &[Unknown, Unknown]), Unknown);
            assert_eq!(verdict(combine, &[]), Unknown);
        }
    }

    #[test]
    fn a_quorum_of_more_than_there_are_needs_all_of_them() {
        assert_eq!(verdict(Combine::Quorum(3), &[Up, Up, Unknown]), Up);
        assert_eq!(verdict(Combine::Quorum(3), &[Up, Down, Unknown]), Down);
    }
}

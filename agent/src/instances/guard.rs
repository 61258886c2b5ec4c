//! When bonds are looked after: each once a round, and some sooner.

use std::time::Duration;

use bond_monitors::Time;

use super::deadlines::Deadlines;
use super::id::InstanceId;

/// When bonds are looked after.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// Those that are not to wait for their turn.
    pub(super) sooner: Deadlines,
    /// The one whose turn was last.
    last: Option<InstanceId>,
    /// When the next ones have their turn.
    pub(super) next: Time,
    /// Some are being looked after.
    pub(super) asked: bool,
}

impl Guard {
    /// Those of all bonds whose turn it is now.
    pub(super) fn next_turn(&mut self, now: Time, all: &[InstanceId]) -> Vec<InstanceId> {
        let shares = all.len().div_ceil(BONDS_A_JOB).max(1);
        self.next = now + (ROUND / shares as u32).max(PAUSE);
        let after = all.partition_point(|at| self.last.is_some_and(|last| *at <= last));
        let rest = if after == all.len() { all } else { &all[after..] };
        let these: Vec<InstanceId> = rest.iter().take(BONDS_A_JOB).copied().collect();
        self.last = these.last().copied();
        these
    }
}

/// How long it takes until every bond was looked after, unless there are more than 200.
const ROUND: Duration = Duration::from_secs(5);
/// At least so long between two jobs: more than 40 looks a second would keep an agent with a thousand bonds busy.
const PAUSE: Duration = Duration::from_millis(200);
/// Bonds that are one job of the thread: plans wait for it.
pub(super) const BONDS_A_JOB: usize = 8;
/// When a bond is looked after again of which something was put back.
pub(super) const SOON: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_bond_has_its_turn_within_five_seconds_or_forty_of_them_a_second() {
        for (bonds, round) in [(3, 5_000), (200, 5_000), (1_000, 25_000)] {
            let all: Vec<InstanceId> = (0..bonds as u32).map(InstanceId).collect();
            let mut guard = Guard::default();
            let mut seen = BTreeSet::new();
            while seen.len() < bonds {
                let now = guard.next;
                seen.extend(guard.next_turn(now, &all));
            }
            assert_eq!(guard.next, Time::from_millis(round), "{bonds} bonds");
        }
    }
}

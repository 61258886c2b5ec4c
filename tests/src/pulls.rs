//! Cost of failovers in frames.

use crate::lab::TwoBonds;
use crate::traffic::TEN_THOUSAND;

/// Pulls the active cable ten times, plugging it back in between, and returns how many frames each pull cost, in order: of
/// 10,000 a second, so that one is 0.1 ms.
///
/// # Panics
/// When frames are lost or doubled at any other time.
#[track_caller]
pub fn ten_pulls(pair: &TwoBonds) -> Vec<u64> {
    let flow = pair.flow(TEN_THOUSAND);
    let mut marks = Vec::new();
    for pull in 0..10 {
        let (active, cable) = if pull % 2 == 0 { ("eth1", 0) } else { ("eth0", 1) };
        flow.pass(2_000);
        let from = flow.sent();
        pair.cables[cable].pull();
        pair.wait_active(active);
        flow.pass(1_000);
        marks.push(from..flow.sent());
        pair.cables[cable].plug();
        let back = pair.cables[cable].near_name();
        pair.left.daemon.wait_link("bond0", back, "up");
        pair.right.daemon.wait_link("bond0", back, "up");
    }
    let record = flow.finish();
    let lost: Vec<u64> = marks.iter().map(|mark| record.between(mark.clone()).lost).collect();
    let in_pulls: u64 = lost.iter().sum();
    assert_eq!(
        record.tally().lost,
        in_pulls,
        "frames were lost while nothing was pulled; by pull: {lost:?}"
    );
    assert_eq!(record.tally().doubled, 0);
    lost
}

/// The number in the middle; of an even count the upper one.
///
/// # Panics
/// When there is none.
pub fn median(numbers: &[u64]) -> u64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

//! Cost of failovers in frames.

use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use crate::daemon::LIMIT;
use crate::lab::{BondAndSwitch, TwoBonds};
use crate::many_bonds::watch::{LinkEvents, at_once};
use crate::traffic::{Flow, TEN_THOUSAND};

/// Cost of one pull in frames, of 10,000 a second, so that one is 0.1 ms.
#[derive(Clone, Copy, Debug)]
pub struct Pull {
    /// All that were lost.
    pub lost: u64,
    /// Those of them that were sent after the kernel had reported the loss of carrier at both ends, which a busy machine delays.
    pub after_report: u64,
}

/// Pulls the active cable ten times, plugging it back in between, and returns what each pull cost, in order.
///
/// # Panics
/// When frames are lost or doubled at any other time.
#[track_caller]
pub fn ten_pulls(pair: &TwoBonds) -> Vec<Pull> {
    let flow = pair.flow(TEN_THOUSAND);
    let mut marks = Vec::new();
    for pull in 0..10 {
        let (active, cable) = if pull % 2 == 0 { ("eth1", 0) } else { ("eth0", 1) };
        flow.pass(2_000);
        let from = flow.sent();
        let reported = pull_until_reported(pair, cable, &flow);
        pair.wait_active(active);
        flow.pass(1_000);
        marks.push((from, reported, flow.sent()));
        pair.cables[cable].plug();
        let back = pair.cables[cable].near_name();
        pair.left.daemon.wait_link("bond0", back, "up");
        pair.right.daemon.wait_link("bond0", back, "up");
    }
    let record = flow.finish();
    let cost = |&(from, reported, to): &(u64, u64, u64)| Pull {
        lost: record.between(from..to).lost,
        after_report: record.between(reported..to).lost,
    };
    let pulls: Vec<Pull> = marks.iter().map(cost).collect();
    assert_eq!(
        record.tally().lost,
        pulls.iter().map(|pull| pull.lost).sum::<u64>(),
        "frames were lost while nothing was pulled; by pull: {pulls:?}"
    );
    assert_eq!(record.tally().doubled, 0);
    pulls
}

/// Has the switch drop all frames of the active port ten times, whose carrier stays on; how many of 10,000 a second were lost until
/// the bond had left it, in order.
#[track_caller]
pub fn ten_silences(bench: &BondAndSwitch) -> Vec<u64> {
    let daemon = &bench.host.daemon;
    let flow = bench.flow(TEN_THOUSAND);
    let mut marks = Vec::new();
    for silence in 0..10 {
        let (active, silent) = (["eth1", "eth0"][silence % 2], silence % 2);
        let [port, near] = [format!("p{silent}"), format!("eth{silent}")];
        flow.pass(2_000);
        let from = flow.sent();
        bench.switch.block(&port);
        daemon.wait_active("bond0", active);
        flow.pass(1_000);
        marks.push((from, flow.sent()));
        bench.switch.unblock(&port);
        daemon.wait_link("bond0", &near, "up");
    }
    let record = flow.finish();
    marks.iter().map(|&(from, to)| record.between(from..to).lost).collect()
}

/// Pulls a cable; how many frames had been sent when the kernel had reported it at both ends.
#[track_caller]
fn pull_until_reported(pair: &TwoBonds, cable: usize, flow: &Flow) -> u64 {
    let name = pair.cables[cable].near_name();
    thread::scope(|scope| {
        let (ready, are_ready) = mpsc::channel();
        let ends = [&pair.left.netns, &pair.right.netns].map(|netns| {
            let ready = ready.clone();
            scope.spawn(move || {
                at_once(|| {
                    let mut events = LinkEvents::subscribe(netns);
                    let _ = ready.send(());
                    let end = Instant::now() + LIMIT;
                    while Instant::now() < end {
                        let read = events.read(LIMIT);
                        if read.iter().any(|event| event.name == name && !event.carrier) {
                            return flow.sent();
                        }
                    }
                    panic!("the kernel does not report that {name} of {} was pulled", netns.name());
                })
            })
        });
        assert_eq!(are_ready.iter().take(ends.len()).count(), ends.len());
        pair.cables[cable].pull();
        let sent = ends.map(|end| end.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        sent.into_iter().max().unwrap_or_default()
    })
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

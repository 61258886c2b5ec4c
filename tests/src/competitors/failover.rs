//! In the lab's machine: frames that each competitor loses when a cable is pulled, and when a path dies whose carrier stays.

use std::thread;
use std::time::Duration;

use serde_json::json;

use super::rival::{Bond, Mode, Rival};
use crate::in_kernel::{FAR, Host, Pull, lost, wait_prepared};
use crate::traffic::Flow;
use crate::wait::until;

/// How something fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// The port has no carrier any more.
    Pulled,
    /// The far switch drops all frames.
    Dead,
}

/// One competitor as it is set up.
struct Entry {
    harm: Harm,
    rival: Rival,
    /// In few words, how it finds the failure.
    how: &'static str,
    /// The same in its own, see [`Bond::new`].
    watch: &'static str,
}

const fn entry(harm: Harm, rival: Rival, how: &'static str, watch: &'static str) -> Entry {
    Entry {
        harm,
        rival,
        how,
        watch,
    }
}

const ENTRIES: [Entry; 13] = [
    entry(Harm::Pulled, Rival::Kernel, "miimon=100", "miimon 100"),
    entry(Harm::Pulled, Rival::Kernel, "miimon=1", "miimon 1"),
    entry(Harm::Pulled, Rival::Teamd, "ethtool", r#"{"name": "ethtool"}"#),
    entry(Harm::Pulled, Rival::OpenVswitch, "carrier", ""),
    entry(Harm::Pulled, Rival::Tc, "miimon=100", BY_BONDD),
    entry(Harm::Pulled, Rival::Netkit, "miimon=100", BY_BONDD),
    entry(Harm::Pulled, Rival::Team, "miimon=100", "miimon=100"),
    entry(Harm::Pulled, Rival::Tc, IN_KERNEL, "miimon=100"),
    entry(
        Harm::Dead,
        Rival::Kernel,
        "arp_interval=100",
        "arp_interval 100 arp_validate all arp_ip_target 10.77.0.2",
    ),
    entry(
        Harm::Dead,
        Rival::Teamd,
        "arp_ping, 100 ms",
        r#"{"name": "arp_ping", "interval": 100, "missed_max": 1, "send_always": true, "source_host": "10.77.0.1", "target_host": "10.77.0.2"}"#,
    ),
    entry(Harm::Dead, Rival::OpenVswitch, "carrier", ""),
    entry(Harm::Dead, Rival::Tc, "arp_interval=100", PROBING),
    entry(Harm::Dead, Rival::Team, "arp_interval=100", PROBING),
];

const IN_KERNEL: &str = "in-kernel failover";
/// The kernel does not answer by itself.
const BY_BONDD: &str = "miimon=100 --in-kernel-failover=off";
const PROBING: &str = "arp_interval=100 arp_validate=all arp_ip_target=10.77.0.2";

/// Pulls the cable of each so often, or has its path die, and prints a JSON object for it; with a word only for those with it in
/// their name.
pub fn play(dead: bool, pulls: u32, word: &str) {
    let harm = if dead { Harm::Dead } else { Harm::Pulled };
    let entries = ENTRIES.iter().filter(|entry| entry.harm == harm);
    for entry in entries.filter(|entry| format!("{}, {}", entry.rival.name(), entry.how).contains(word)) {
        let seen = harmed(entry, pulls);
        let look = look(entry.harm);
        // If none came through any more, the silence is as long as it was listened to.
        let gaps = seen.iter().map(|pull| match pull {
            Pull { lost: 1.., gap } if gap.is_zero() => look,
            Pull { gap, .. } => *gap,
        });
        let unnoticed = seen.iter().filter(|pull| pull.lost > 0 && pull.gap.is_zero()).count();
        let mut counts: Vec<u64> = seen.iter().map(|pull| pull.lost).collect();
        counts.sort_unstable();
        let gap = gaps.max().unwrap_or_default().as_micros() as u64;
        println!(
            "{}",
            json!({
                "failover": entry.rival.name(),
                "how": entry.how,
                "dead": dead,
                "lost": counts,
                "longest_gap_us": gap,
                "unnoticed": unnoticed,
            })
        );
    }
}

fn look(harm: Harm) -> Duration {
    match harm {
        Harm::Pulled => Duration::from_millis(160),
        Harm::Dead => Duration::from_millis(500),
    }
}

fn harmed(entry: &Entry, pulls: u32) -> Vec<Pull> {
    let host = Host::new();
    let bond = Bond::new(entry.rival, &host.netns, Mode::ActiveBackup, entry.watch);
    host.address();
    // Daemons have found their ports.
    thread::sleep(START);
    let one = |pull| {
        // The port is used again, and its announcements are over. Failures come at all moments of an interval of 100 ms.
        thread::sleep(SETTLE + Duration::from_millis(u64::from(pull * 37 % 100)));
        if entry.how == IN_KERNEL {
            bond.agent().into_iter().for_each(wait_prepared);
        }
        let before = passed(&host);
        // An agent of high priority must not hold back the sender on the one processor: that would hide what is lost.
        let flow = Flow::start_punctual(&host.netns, &host.switch.netns, FAR, 10_000);
        let seen = lost(flow, |flow| {
            assert!(passed(&host) > before, "frames do not go through eth0");
            match entry.harm {
                Harm::Pulled => host.cables[0].pull(),
                Harm::Dead => host.switch.block("p0"),
            }
            let arrived = flow.arrived();
            until(look(entry.harm), || (flow.arrived() > arrived + AGAIN).then_some(()));
        });
        match entry.harm {
            Harm::Pulled => host.cables[0].plug(),
            Harm::Dead => host.switch.unblock("p0"),
        }
        seen
    };
    (0..pulls).map(one).collect()
}

/// Frames that eth0 has sent.
fn passed(host: &Host) -> u64 {
    let link = host.netns.link("eth0").expect("it is there");
    link["stats64"]["tx"]["packets"].as_u64().unwrap_or_default()
}

/// When so many frames have come through, the other port is used; more than are on their way.
const AGAIN: u64 = 300;
/// Longer than any of them takes to use a port again.
const SETTLE: Duration = Duration::from_secs(2);
/// Longer than any daemon takes to start.
const START: Duration = Duration::from_secs(5);

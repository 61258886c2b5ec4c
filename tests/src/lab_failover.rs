//! Failovers timed beside the kernel's driver, in the lab's machine: the story, and what its observations come to.

use serde_json::Value;

use crate::fidelity::scenario::Scenario;

/// Polling intervals of the monitor, in ms.
pub const MIIMON: [u64; 3] = [100, 10, 1];

/// Pulls of a story.
pub const ROUNDS: u64 = 6;

/// One story for each interval: the active port's cable is pulled under traffic, at different moments of the interval.
pub fn stories() -> Vec<Scenario> {
    MIIMON.iter().map(|miimon| story(*miimon)).collect()
}

fn story(miimon: u64) -> Scenario {
    let mut text = format!("bond mode=active-backup miimon={miimon}\nattach eth0 eth1\nup\nwait 1000\n");
    for round in 0..ROUNDS {
        let (port, wait) = (round % 2, 500 + 17 * round);
        text += &format!("?active eth{port}\nwait 300\ncut eth{port}\nplug eth{port}\nwait {wait}\n");
    }
    Scenario::parse(&format!("cut_miimon_{miimon}"), &text).expect("the story is readable")
}

/// Effects of pulled cables on one column.
pub struct Cuts {
    gaps: Vec<u64>,
    lost: u64,
}

impl Cuts {
    /// Those of a story that a column played.
    pub fn of(observed: &[Value], story: &str, column: &str) -> Cuts {
        let cuts: Vec<&Value> = observed
            .iter()
            .filter(|o| o["scenario"] == story && o["column"] == column && o["moved to"].is_string())
            .collect();
        let mut gaps: Vec<u64> = cuts.iter().filter_map(|cut| cut["took"].as_u64()).collect();
        gaps.sort_unstable();
        Cuts {
            gaps,
            lost: cuts.iter().filter_map(|cut| cut["lost"].as_u64()).sum(),
        }
    }

    /// How many failovers were seen.
    pub fn count(&self) -> u64 {
        self.gaps.len() as u64
    }

    /// The middle one and the longest, in words.
    pub fn gaps(&self) -> String {
        match (self.gaps.get(self.gaps.len() / 2), self.gaps.last()) {
            (Some(median), Some(longest)) => format!("{median} ms, {longest} ms"),
            _ => "not played".to_owned(),
        }
    }

    /// Frames that never arrived, in words.
    pub fn lost(&self) -> String {
        if self.gaps.is_empty() {
            "not played".to_owned()
        } else {
            self.lost.to_string()
        }
    }
}

//! The tables of `docs/competitors.md`.

use std::fs;
use std::io;

use super::slow_port::SlowPort;
use super::{Cost, Failover, Seen, chart};
use crate::bins::root;
use crate::instructions::grouped;
use crate::pulls::median;
use crate::recorded::{self, replaced};

/// What frames, streams and questions cost, with how many times as much as over a cable without a bond.
pub fn costs(costs: &[Cost]) -> String {
    let mut text = format!("{COSTS} sent | received | 64 KiB of TCP | question and answer |\n|---|--:|--:|--:|--:|\n");
    let Some(raw) = costs.first() else { return text };
    for cost in costs {
        let cell = |way: usize| {
            let (count, without) = (cost.instructions[way], raw.instructions[way]);
            let count_text = grouped(count.round() as i64);
            if cost == raw {
                return count_text;
            }
            format!("{count_text} ({:.2})", count / without)
        };
        let cells = [0, 1, 2, 3].map(cell).join(" | ");
        text += &format!("| {} | {cells} |\n", cost_name(cost, cost == raw));
    }
    text
}

fn cost_name(cost: &Cost, is_raw: bool) -> String {
    let mode = match (cost.spread, cost.name.as_str()) {
        _ if is_raw => return cost.name.clone(),
        (false, _) => "active-backup",
        (true, "Open vSwitch") => "balance-slb",
        (true, "teamd") => "loadbalance by ip and l4",
        (true, _) => "balance-xor layer3+4",
    };
    format!("{}: {mode}", cost.name)
}

/// What failures cost.
pub fn failovers(failovers: &[Failover]) -> String {
    let mut text =
        format!("{FAILOVERS} median | nine of ten at most | most | longest silence, ms |\n|---|--:|--:|--:|--:|\n");
    for failover in failovers {
        let Failover { lost, longest_gap, .. } = failover;
        let (Some(most), Some(nine)) = (lost.last(), lost.get((lost.len() * 9).div_ceil(10).saturating_sub(1))) else {
            continue;
        };
        let harm = if failover.dead { "path dead" } else { "cable pulled" };
        text += &format!("| {harm}: {}, {} |", failover.name, failover.how);
        if failover.unnoticed > 0 {
            text += " not noticed | | all | |\n";
            continue;
        }
        text += &format!(
            " {} | {nine} | {most} | {:.1} |\n",
            median(lost),
            *longest_gap as f64 / 1_000.0
        );
    }
    text
}

/// What becomes of those who send through a port that is slower than they are.
pub fn slow_ports(slow_ports: &[SlowPort]) -> String {
    let mut text = format!(
        "{SLOW_PORTS} Mbit/s of TCP | question and answer beside it, ms: median, 99 % | KB in the queue: mean, most \
         | frames dropped | datagrams sent a second | dropped |\n|---|--:|--:|--:|--:|--:|--:|\n"
    );
    let mut queues: Vec<&str> = slow_ports.iter().map(|seen| seen.queue.as_str()).collect();
    queues.sort_unstable();
    queues.dedup();
    for queue in queues {
        for seen in slow_ports.iter().filter(|seen| seen.queue == queue) {
            let [median, most] = seen.trips.map(|micros| format!("{:.2}", micros as f64 / 1_000.0));
            let [mean, longest] = seen.waiting.map(|bytes| format!("{:.0}", bytes as f64 / 1_000.0));
            let [sent, dropped] = seen.datagrams.map(|count| grouped(count as i64));
            let megabits = seen.megabits;
            let name = &seen.name;
            text += &format!("| {queue}: {name} | {megabits:.1} | {median}, {most} | {mean}, {longest} ");
            text += &format!("| {} | {sent} | {dropped} |\n", seen.dropped);
        }
    }
    text
}

/// Puts that table in the place of the one in the page.
///
/// # Errors
/// The file cannot be read or written, or has no such table.
pub fn record_slow_ports(seen: &Seen) -> io::Result<()> {
    recorded::record("competitors.md", SLOW_PORTS, &slow_ports(&seen.slow_ports))
}

/// Puts the other tables in the place of those in the page, and draws the picture anew.
///
/// # Errors
/// The files cannot be read or written, or the page has no such tables.
pub fn record(seen: &Seen) -> io::Result<()> {
    let path = root().join("docs/competitors.md");
    let page = fs::read_to_string(&path)?;
    let page = replaced(&page, COSTS, &costs(&seen.costs))
        .and_then(|page| replaced(&page, FAILOVERS, &failovers(&seen.failovers)));
    let page = page.ok_or_else(|| io::Error::other("docs/competitors.md has no such tables"))?;
    let lines = page.lines().map(|line| match line.starts_with(SETTING) {
        true => format!("{SETTING}{}.\n", seen.setting),
        false => format!("{line}\n"),
    });
    fs::write(path, lines.collect::<String>())?;
    fs::write(root().join("docs/failover.svg"), chart::draw(&seen.failovers))
}

const COSTS: &str = "| instructions (times those without a bond) |";
const FAILOVERS: &str = "| frames lost, of 10,000 a second |";
const SLOW_PORTS: &str = "| port of 100 Mbit/s, its queue |";
const SETTING: &str = "Recorded with ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_have_their_ratio_to_a_cable_without_a_bond() {
        let row = |name: &str, spread, instructions| Cost {
            name: name.to_owned(),
            spread,
            instructions,
        };
        let text = costs(&[
            row("cable without a bond", false, [8_000.0, 8_000.0, 50_000.0, 20_000.0]),
            row("Open vSwitch", true, [12_000.0, 8_000.4, 100_000.0, 20_000.0]),
        ]);
        assert!(
            text.contains("| cable without a bond | 8,000 | 8,000 | 50,000 | 20,000 |\n"),
            "{text}"
        );
        assert!(
            text.contains(
                "| Open vSwitch: balance-slb | 12,000 (1.50) | 8,000 (1.00) | 100,000 (2.00) | 20,000 (1.00) |\n"
            ),
            "{text}"
        );
        assert!(text.starts_with(COSTS));
    }

    #[test]
    fn failures_that_nobody_notices_have_no_figures() {
        let mut row = Failover {
            name: "teamd".to_owned(),
            how: "ethtool".to_owned(),
            dead: false,
            lost: (1..=10).collect(),
            longest_gap: 1_240,
            unnoticed: 0,
        };
        let text = failovers(std::slice::from_ref(&row));
        assert!(
            text.contains("| cable pulled: teamd, ethtool | 6 | 9 | 10 | 1.2 |\n"),
            "{text}"
        );
        row.dead = true;
        row.unnoticed = 10;
        let text = failovers(&[row]);
        assert!(
            text.contains("| path dead: teamd, ethtool | not noticed | | all | |\n"),
            "{text}"
        );
    }

    #[test]
    fn slow_ports_are_grouped_by_their_queues() {
        let seen = |name: &str, queue: &str| SlowPort {
            name: name.to_owned(),
            queue: queue.to_owned(),
            megabits: 95.51,
            trips: [11_339, 20_004],
            waiting: [118_909, 151_443],
            dropped: 7,
            datagrams: [74_442, 65_756],
        };
        let all = [
            seen("teamd", "long"),
            seen("teamd", "fq"),
            seen("bondd", "long"),
            seen("bondd", "fq"),
        ];
        let text = slow_ports(&all);
        let row = "| long: teamd | 95.5 | 11.34, 20.00 | 119, 151 | 7 | 74,442 | 65,756 |\n";
        assert!(text.contains(row), "{text}");
        let order = ["fq: teamd", "fq: bondd", "long: teamd", "long: bondd"].map(|row| text.find(row).unwrap());
        assert!(order.is_sorted(), "{text}");
    }

    #[test]
    fn the_page_has_all_tables_and_names_the_picture() {
        let page = fs::read_to_string(root().join("docs/competitors.md")).unwrap();
        for head in [COSTS, FAILOVERS, SLOW_PORTS, SETTING, "failover.svg"] {
            assert_eq!(page.matches(head).count(), 1, "{head}");
        }
        let readme = fs::read_to_string(root().join("README.md")).unwrap();
        assert!(readme.contains("docs/failover.svg") && readme.contains("docs/competitors.md"));
    }
}

//! The table of `docs/measured.md`: what a pulled cable costs, by who moves the traffic.

use std::io;

use super::{Measured, Row};
use crate::pulls::median;
use crate::recorded;

/// Of several kernels, each with its name.
pub fn table(machines: &[(String, Measured)]) -> String {
    let mut text = HEAD.to_owned();
    for (kernel, _) in machines {
        text += &format!(" {kernel}: median | most |");
    }
    text += &format!("\n|---|{}\n", "--:|".repeat(2 * machines.len()));
    let rows = machines.first().map_or(&[][..], |(_, measured)| &measured.rows);
    for Row { who, how, .. } in rows {
        text += &format!("| {} |", name(who, how));
        for (_, measured) in machines {
            let found = measured.rows.iter().find(|row| (&row.who, &row.how) == (who, how));
            text += &found.map_or_else(
                || " | |".to_owned(),
                |row| format!(" {} | {} |", median(&row.lost), row.lost.last().unwrap_or(&0)),
            );
        }
        text.push('\n');
    }
    for (name, count) in [
        (
            "instructions from the loss to the first frame through the other port",
            0,
        ),
        ("those of them that are the failover's own", 1),
    ] {
        text += &format!("| {name} |");
        for (_, measured) in machines {
            let (whole, own) = measured.instructions();
            text += &format!(" {} | |", [whole, own][count]);
        }
        text.push('\n');
    }
    text
}

fn name(who: &str, how: &str) -> String {
    match (who, how) {
        ("kernel", how) => format!("kernel bonding, {how}"),
        ("bondd off", how) => format!("by bondd, {how}"),
        (_, "stopped") => "by the kernel, bondd stopped by SIGSTOP".to_owned(),
        (_, how) => format!("by the kernel, bondd {how}"),
    }
}

/// Puts a table in the place of the one in the page.
///
/// # Errors
/// The page cannot be read or written, or has no such table.
pub fn record(table: &str) -> io::Result<()> {
    recorded::record("measured.md", HEAD, table)
}

const HEAD: &str = "| frames lost by a pulled cable, of 10,000 a second |";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded::replaced;

    #[test]
    fn a_table_takes_the_place_of_the_one_before() {
        let row = |who: &str, how: &str, lost: &[u64]| Row {
            who: who.to_owned(),
            how: how.to_owned(),
            lost: lost.to_vec(),
            longest_gap: 0,
        };
        let measured = Measured {
            rows: vec![
                row("kernel", "miimon=10", &[1, 2, 9]),
                row("bondd", "stopped", &[0, 0, 3]),
            ],
            instructions: vec![7, 8, 9],
            without: vec![5, 6, 6],
        };
        let text = table(&[("6.1".to_owned(), measured)]);
        assert!(text.contains("| kernel bonding, miimon=10 | 2 | 9 |\n"), "{text}");
        assert!(
            text.contains("| by the kernel, bondd stopped by SIGSTOP | 0 | 3 |\n"),
            "{text}"
        );
        assert!(text.ends_with("own | 2 | |\n"), "{text}");
        let page = format!("before\n\n{HEAD} old |\n|---|--:|\n| old | 1 |\n\nafter\n");
        assert_eq!(
            replaced(&page, HEAD, &text).unwrap(),
            format!("before\n\n{text}\nafter\n")
        );
        assert_eq!(replaced("nothing\n", HEAD, &text), None);
    }
}

//! The table of `docs/measured.md`: bonds beside a plain cable.

use std::io;

use super::{Comparison, Kind, Way};
use crate::recorded;

/// Of several ways to attach programs, each with its name.
pub fn table(hooks: &[(&str, Vec<Comparison>)]) -> String {
    let mut text =
        format!("{HEAD} plain cable | bond at one end | ratio (quartiles) | at both | ratio (quartiles) |\n");
    text += "|---|--:|--:|--:|--:|--:|\n";
    for (hook, comparisons) in hooks {
        for comparison in comparisons {
            let [plain, one, two] = Way::ALL.map(|way| format!("{:.1}", comparison.median(way)));
            let [one_ratio, two_ratio] = [Way::OneBond, Way::TwoBonds].map(|way| {
                let [low, middle, high] = comparison.ratios(way);
                format!("{middle:.2} ({low:.2} to {high:.2})")
            });
            let name = name(comparison.kind);
            text += &format!("| {name}, {hook} | {plain} | {one} | {one_ratio} | {two} | {two_ratio} |\n");
        }
    }
    text
}

fn name(kind: Kind) -> String {
    match kind {
        Kind::Streams(1) => "one stream of TCP, Gbit/s".to_owned(),
        Kind::Streams(streams) => format!("{streams} streams of TCP, Gbit/s"),
        Kind::Frames => "frames of 64 bytes, thousands a second".to_owned(),
        Kind::Question => "question and answer, µs".to_owned(),
    }
}

/// Puts a table in the place of the one in the page.
///
/// # Errors
/// The page cannot be read or written, or has no such table.
pub fn record(table: &str) -> io::Result<()> {
    recorded::record("measured.md", HEAD, table)
}

const HEAD: &str = "| medians, in turns |";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::bins::root;

    #[test]
    fn each_hook_has_a_row_for_each_kind_with_ratios_to_the_plain_cable() {
        let comparison = Comparison {
            kind: Kind::Streams(8),
            rounds: vec![[20.0, 19.0, 18.0]; 3],
        };
        let text = table(&[("tcx", vec![comparison])]);
        let row =
            "| 8 streams of TCP, Gbit/s, tcx | 20.0 | 19.0 | 0.95 (0.95 to 0.95) | 18.0 | 0.90 (0.90 to 0.90) |\n";
        assert!(text.ends_with(row), "{text}");
    }

    #[test]
    fn the_page_has_the_table() {
        let page = fs::read_to_string(root().join("docs/measured.md")).unwrap();
        assert_eq!(page.matches(HEAD).count(), 1);
    }
}
